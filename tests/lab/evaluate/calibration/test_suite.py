"""The calibration suite: what it measures, in which order, and what it is fitted on."""

import json
import math

import pytest
import torch
from torch import Tensor

import toy
from listening import Kept
from multimix.lab.data import Images, Splits
from multimix.lab.evaluate import Source
from multimix.lab.evaluate.calibration import (
    Calibration,
    CalibrationSettings,
    expected_calibration_error,
    fit_temperature,
)
from multimix.methods import ERM

METRICS = ["nll", "brier", "ece", "mce", "classwise_ece", "rms_calibration_error", "overconfidence_error"]


def pairs(logits: Tensor, labels: Tensor, batch: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(logits.split(batch), labels.split(batch), strict=True))


def sharp(examples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Logits of an over-confident network."""
    logits, labels = toy.batch(examples, 4, classes=4, seed=seed)
    labels[::2] = logits.argmax(1)[::2]
    return logits * 5, labels


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_it_measures_before_and_after_scaling_whatever_the_batches(batch):
    test, validation = sharp(60, 0), sharp(40, 1)
    monitor = Kept()
    found = dict(Calibration(pairs(*test, batch), pairs(*validation, batch))(toy.identity(4), monitor))
    assert list(found) == ["accuracy", *METRICS, "temperature", *(f"scaled/{name}" for name in METRICS)]
    assert all(math.isfinite(value) for value in found.values())
    assert monitor.passes == ["test", "validation"]
    assert list(monitor.figures) == ["reliability", "reliability_scaled"]
    assert json.loads(json.dumps(monitor.figures)) == monitor.figures
    assert found == dict(Calibration(pairs(*test, 60), pairs(*validation, 40))(toy.identity(4)))
    assert found["temperature"] == fit_temperature(*validation)
    for prefix, temperature in (("", 1.0), ("scaled/", found["temperature"])):
        probabilities = (test[0].double() / temperature).softmax(1)
        assert found[f"{prefix}ece"] == expected_calibration_error(probabilities, test[1])


def test_scaling_repairs_an_overconfident_network():
    found = dict(Calibration(pairs(*sharp(2000, 0), 500), pairs(*sharp(2000, 1), 500))(toy.identity(4)))
    assert found["temperature"] > 2
    for name in ("nll", "brier", "ece", "overconfidence_error"):
        assert found[f"scaled/{name}"] < found[name]


def test_the_bins_are_what_was_asked_for():
    suite = Calibration(pairs(*sharp(50, 0), 50), None, CalibrationSettings(bins=4))
    monitor = Kept()
    found = dict(suite(toy.identity(4), monitor))
    assert len(monitor.figures["reliability"]["count"]) == 4
    assert sum(monitor.figures["reliability"]["count"]) == 50
    assert list(found) == ["accuracy", *METRICS]


@pytest.fixture
def splits() -> Splits:
    generator = torch.Generator().manual_seed(0)

    def part(n: int) -> Images:
        images = torch.randint(256, (n, 3, 4, 4), generator=generator, dtype=torch.uint8)
        return Images(images, torch.arange(n) % 5, tuple("abcde"))

    return Splits("random", part(20), part(10), part(30), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))


def source(splits: Splits) -> Source:
    return Source(splits, ERM(), torch.device("cpu"), batch_size=8)


def test_of_a_run_it_takes_the_validation_split(splits):
    suite = Calibration.of(source(splits), CalibrationSettings(examples=15, validation_examples=5))
    assert suite.validation is not None
    assert sum(len(labels) for _, labels in suite.batches) == 15
    served = torch.cat([inputs for inputs, _ in suite.validation])
    assert len(served) == 5
    everything = Calibration.of(source(splits), CalibrationSettings())
    assert everything.validation is not None
    inputs, _ = next(iter(everything.validation))
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (splits.mean, splits.std))
    pixels = (inputs * std + mean) * 255
    assert torch.equal(pixels.round().byte(), splits.validation.images[:8])
    assert "temperature" in dict(everything(toy.images()))


def test_a_run_without_validation_split_or_wish_is_not_scaled(splits):
    without = Splits(splits.name, splits.train, None, splits.test, splits.mean, splits.std)
    for suite in (
        Calibration.of(source(without), CalibrationSettings()),
        Calibration.of(source(splits), CalibrationSettings(scaling=False)),
    ):
        monitor = Kept()
        assert list(dict(suite(toy.images(), monitor))) == ["accuracy", *METRICS]
        assert list(monitor.figures) == ["reliability"]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bins": 0}, "bins must be at least 1, got 0"),
        ({"examples": 0}, "examples must be at least 1, got 0"),
        ({"validation_examples": -1}, "validation_examples must be at least 1, got -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CalibrationSettings(**settings)


@pytest.mark.bad_input
def test_more_validation_images_than_there_are_are_refused(splits):
    with pytest.raises(ValueError, match="validation_examples=11 does not fit"):
        Calibration.of(source(splits), CalibrationSettings(validation_examples=11))
