"""Measuring a finished run, and loading what it trained."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from multimix.lab.data import Images
from multimix.lab.evaluate import SuiteSettings
from multimix.lab.train import evaluate_run, load_network, load_trained
from multimix.lab.train import network as networks
from train.tiny import events, files, steady

_MEASURED = ("accuracy", "nll", "ece", "examples", "epoch", "seed", "suite", "split", "device", "torch")


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A finished run of one's own."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_it_finds_what_training_wrote_and_writes_it_once(run):
    before = steady(run)
    (result,) = evaluate_run(run, again=True)
    (recorded,) = [event for event in before if event["event"] == "test" and "network" not in event]
    assert {name: result[name] for name in _MEASURED} == {name: recorded[name] for name in _MEASURED}
    evaluate_run(run, ["accuracy"], again=True)
    after = steady(run)
    assert sorted(map(str, after)) == sorted(map(str, before))
    assert after[-1] == recorded  # the newest comes last; average and teacher keep theirs
    assert [event.get("network") for event in events(run, "test")] == ["ema", "teacher", None]


def test_what_is_measured_already_is_not_measured_again(run, monkeypatch):
    (first,) = evaluate_run(run)
    before = files(run)
    monkeypatch.setattr("multimix.lab.train.evaluation.suite_record", None)
    assert evaluate_run(run) == [first]
    assert files(run) == before


def test_other_settings_or_weights_are_measured_anew(run):
    evaluate_run(run)
    (fewer,) = evaluate_run(run, settings={"accuracy": SuiteSettings(examples=50)})
    assert (fewer["examples"], fewer["settings"]) == (50, {"examples": 50})
    (every,) = evaluate_run(run)
    assert every["examples"] == 359
    other = load_file(run / "model.safetensors")
    save_file({name: value * 1.5 if name == "head.weight" else value for name, value in other.items()},
              run / "model.safetensors")  # fmt: skip
    (changed,) = evaluate_run(run)
    assert changed["weights"] != every["weights"]
    assert changed["nll"] != every["nll"]


@pytest.mark.bad_input
def test_data_of_other_classes_or_size_are_refused(run):
    _, splits = load_network(run)
    renamed = Images(splits.test.images, splits.test.labels, (*splits.classes[:9], "ten"))
    with pytest.raises(ValueError, match=r"trained on 10 classes \(0, 1, 2, 3, ...\), but data digits has 10 classes"):
        evaluate_run(run, splits=replace(splits, train=renamed))
    wide = Images(splits.test.images.repeat(1, 1, 1, 2), splits.test.labels, splits.classes)
    with pytest.raises(ValueError, match=r"trained on images \(c, h, w\) = \(1, 8, 8\), but .* are \(1, 8, 16\)"):
        evaluate_run(run, splits=replace(splits, train=wide))


def test_a_run_that_does_not_say_what_it_was_trained_on_is_taken_at_its_data(run):
    whole = json.loads((run / "config.json").read_text())
    del whole["trained_on"]
    (run / "config.json").write_text(json.dumps(whole))
    (result,) = evaluate_run(run, again=True)
    assert result["examples"] == 359


def test_a_trained_network_needs_neither_its_data_nor_a_download(run, monkeypatch):
    """Of a run that began with a library's weights, too: those it ended with are in its folder."""
    expected, splits = load_network(run, device="cpu")
    whole = json.loads((run / "config.json").read_text())
    whole["config"] |= {"pretrained": True, "data": "npz:gone.npz"}
    (run / "config.json").write_text(json.dumps(whole))
    asked = []
    real = networks.build
    monkeypatch.setattr(networks, "build", lambda *a, **k: asked.append(k["pretrained"]) or real(*a, **k))
    network, facts = load_trained(run, device="cpu")
    assert asked == [False]
    assert (facts.classes, facts.shape, facts.mean) == (splits.classes, splits.shape, splits.mean)
    found = network.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.state_dict().items())


@pytest.mark.bad_input
def test_facts_that_cannot_be_read_are_refused(run):
    whole = json.loads((run / "config.json").read_text())
    for broken in ({"classes": 3}, {"classes": ["a"], "colour": [1]}, [1, 2]):
        (run / "config.json").write_text(json.dumps({**whole, "trained_on": broken}))
        with pytest.raises(ValueError, match=r"config\.json cannot be read: "):
            evaluate_run(run, again=True)


@pytest.mark.bad_input
def test_an_unknown_suite_or_option_is_refused_before_anything_is_measured(run):
    before = files(run)
    with pytest.raises(TypeError, match="evaluations takes no option agian"):
        evaluate_run(run, agian=True)
    with pytest.raises(ValueError, match="unknown suite acuracy, speed; known are accuracy"):
        evaluate_run(run, ["accuracy", "acuracy", "speed"])
    assert files(run) == before


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("ruin", "kind", "said"),
    [
        (Path.unlink, FileNotFoundError, r"has no model\.safetensors yet; finish it with: multimix train"),
        (lambda path: os.truncate(path, 9999), ValueError, r"model\.safetensors is damaged or of another network: \S"),
    ],
    ids=["unfinished", "damaged"],
)
def test_without_whole_weights_there_is_no_network(ruin, kind, said, run):
    ruin(run / "model.safetensors")
    before = files(run)
    for attempt in (load_network, load_trained, evaluate_run):
        with pytest.raises(kind, match=said):
            attempt(run)
    assert files(run) == before


@pytest.mark.bad_input
def test_weights_that_are_no_numbers_are_refused(run):
    path = run / "model.safetensors"
    save_file({name: torch.full_like(value, float("nan")) if value.is_floating_point() else value
               for name, value in load_file(path).items()}, path)  # fmt: skip
    before = files(run)
    with pytest.raises(ValueError, match="the network predicts NaN"):
        evaluate_run(run)
    assert files(run) == before
