"""Several processes do what one does with the same mini-batches; the long form is ``make chaos``."""

from dataclasses import replace

import pytest
import torch

from chaos.parity import BAR, CASES, compare
from multimix.lab.train.parallel import start_processes
from parallel.jobs import largest_difference, steps
from parallel.together import together
from train.tiny import tiny


@pytest.mark.parametrize("name", ["multimix", "distilled dense", "accumulated"])
def test_losses_over_six_steps_are_those_of_one_process(name):
    """On into a second epoch."""
    record = compare(name, replace(CASES[name], train_size=160), world=2, count=6)
    assert record["largest_difference"] <= BAR
    assert record["processes_differ_by"] == 0


def test_running_statistics_and_teachers_stay_in_step_without_synchronised_batchnorm():
    config = CASES["distilled dense"]
    config = tiny(method=config.method, ema=0.9, devices=2, batch_size=30, train_size=90, validation=0.0)
    one, two = together(2, steps, config, 7)
    for name in one:
        if name != "losses":
            assert largest_difference(one[name], two[name]) == 0
    assert one["losses"] == two["losses"]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 33}, "batch_size is that of all 2 processes together and must be a multiple of their number"),
        ({"device": "cuda"}, "device 'cuda' is not there: torch sees 0 CUDA devices"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_what_cannot_be_shared_out_is_refused_before_a_process_is_started(changes, message, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    with pytest.raises(ValueError, match=message):
        start_processes(tiny(**{"devices": 2, **changes}))


@pytest.mark.bad_input
def test_one_of_several_processes_with_a_configuration_of_one_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="devices and nodes must say that there are 4 processes, got 1 device"):
        start_processes(tiny())
