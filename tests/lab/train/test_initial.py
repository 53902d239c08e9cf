"""Fine-tuning: training begins from the network of an earlier run."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from multimix.lab.train import Engine, resume, train
from multimix.lab.train.engine import build_network
from multimix.lab.train.network import initialise
from train.tiny import splits_of, stopped_after, tiny, weights


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on digits, ten classes."""
    folder = tmp_path_factory.mktemp("initial") / "first"
    train(tiny(epochs=1), folder, quiet=True)
    return folder


@pytest.mark.parametrize(
    ("classes", "new"),
    [
        (tuple("0123456789"), set()),
        (tuple("abcdefghij"), {"head.weight", "head.bias"}),
        (tuple("01234"), {"head.weight", "head.bias"}),
    ],
    ids=["the same", "of other names", "fewer"],
)
def test_every_weight_is_the_runs_but_for_the_classifier_where_classes_differ(run, classes, new):
    config = tiny(init=str(run), seed=1)
    splits = splits_of(config)
    part = replace(splits.train, labels=splits.train.labels % len(classes), classes=classes)
    splits = replace(splits, train=part, validation=None, test=part)
    begun, plain = (Engine(replace(config, init=i), splits).network.state_dict() for i in (config.init, None))
    there = load_file(str(run / "model.safetensors"))
    assert set(begun) == set(there)
    assert {name for name in begun if not torch.equal(begun[name], there[name])} == new
    assert all(torch.equal(begun[name], plain[name]) for name in new), "as the seed draws them"


def test_the_home_folder_is_meant_and_a_run_goes_on_without_the_first_one(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(run, tmp_path / "first")
    config = tiny(init="~/first", seed=1, checkpoint_steps=1)
    whole = train(config, Path("~/whole"), quiet=True).path
    assert whole == tmp_path / "whole"
    with stopped_after(2):
        train(config, tmp_path / "part", quiet=True)
    shutil.rmtree(tmp_path / "first")
    assert weights(resume("~/part", quiet=True).path) == weights(whole)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 3}, "is another one than is to be trained: width 2 instead of 3"),
        ({"model": "wide_resnet16_8", "strides": None}, "model preact_resnet18 instead of wide_resnet16_8"),
    ],
)
def test_another_architecture_is_refused(run, changes, said):
    config = tiny(init=str(run))
    with pytest.raises(ValueError, match=rf"^init: .*{said}"):
        Engine(replace(config, **changes), splits_of(config))


@pytest.mark.bad_input
def test_pretrained_weights_do_not_go_with_those_of_a_run(run):
    config = tiny(init=str(run))
    network = build_network(config, splits_of(config))
    with pytest.raises(ValueError, match="init does not go with pretrained=True"):
        initialise(network, replace(config, pretrained=True), splits_of(config))


@pytest.mark.bad_input
def test_images_of_other_channels_are_refused_with_what_differs(run):
    config = tiny(init=str(run))
    splits = splits_of(config)
    part = replace(splits.train, images=splits.train.images.expand(-1, 3, -1, -1))
    coloured = replace(splits, train=part, validation=None, test=part, mean=(0.5,) * 3, std=(0.2,) * 3)
    with pytest.raises(ValueError, match=r"stem.weight is \(2, 1, 3, 3\) there and \(2, 3, 3, 3\)"):
        Engine(config, coloured)


@pytest.mark.bad_input
def test_a_run_that_is_not_there_or_not_finished_or_damaged_is_named(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    config = tiny(init=str(copy))
    splits = splits_of(config)
    with pytest.raises(FileNotFoundError, match=f"init: there is no run folder {tmp_path / 'none'}"):
        Engine(replace(config, init=str(tmp_path / "none")), splits)
    (copy / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"init: .*model.safetensors is damaged"):
        Engine(config, splits)
    (copy / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"init: .* has no model.safetensors yet; finish it"):
        Engine(config, splits)
    (copy / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"init: .*config.json cannot be read"):
        Engine(config, splits)
