"""The corruption suite: accuracies by hand, names, figure, progress, and bad settings."""

import json

import pytest
import torch
from torch import Tensor, nn

import toy
from listening import Kept
from multimix.lab.data import Images, Splits
from multimix.lab.evaluate import Source
from multimix.lab.evaluate.corruption import CORRUPTIONS, Corruption, CorruptionSettings, corrupt
from multimix.methods import ERM

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture
def source(photos) -> Source:
    images = (photos(32, 24) * 255).round().byte()
    part = Images(images, torch.arange(24) % 5, tuple("abcde"))
    return Source(Splits("photos", part, None, part, MEAN, STD), ERM(), torch.device("cpu"), batch_size=7)


def accuracy(network: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        return float((network.eval()((pixels - mean) / std).argmax(1) == labels).double().mean())


def test_its_accuracies_are_those_of_corrupted_images(source):
    network = toy.images()
    network.train()
    chosen = CorruptionSettings(corruptions=("fog", "gaussian_noise"), severities=(5, 2), seed=3)
    monitor = Kept()
    found = dict(Corruption.of(source, chosen)(network, monitor))
    assert network.training
    pixels = torch.cat([images for images, _ in source.pixels(source.test())])
    labels = source.splits.test.labels
    expected = {"clean/accuracy": accuracy(network, pixels, labels)}
    for name in ("fog", "gaussian_noise"):
        for severity in (5, 2):
            corrupted = corrupt(pixels, name, severity, examples=range(24), seed=3)
            expected[f"{name}/{severity}/accuracy"] = accuracy(network, corrupted, labels)
        expected[f"{name}/accuracy"] = (expected[f"{name}/5/accuracy"] + expected[f"{name}/2/accuracy"]) / 2
    expected["mean/accuracy"] = (expected["fog/accuracy"] + expected["gaussian_noise/accuracy"]) / 2
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=1e-12)
    assert monitor.passes == ["clean", "fog 5", "fog 2", "gaussian_noise 5", "gaussian_noise 2"]
    figure = monitor.figures["corruption"]
    assert json.loads(json.dumps(figure)) == figure
    assert figure == {
        "corruptions": ["fog", "gaussian_noise"],
        "severities": [5, 2],
        "accuracy": [[found[f"{name}/{s}/accuracy"] for s in (5, 2)] for name in ("fog", "gaussian_noise")],
        "clean": found["clean/accuracy"],
        "examples": 24,
    }


@pytest.mark.parametrize("batch", [1, 24])
def test_the_size_of_the_batches_does_not_matter(source, batch):
    chosen = CorruptionSettings(severities=(3,))
    other = Source(source.splits, source.method, source.device, batch_size=batch)
    network = toy.images(seed=2)
    assert dict(Corruption.of(other, chosen)(network)) == dict(Corruption.of(source, chosen)(network))


def test_it_measures_all_fifteen_at_five_severities(source):
    chosen = CorruptionSettings(examples=5)
    found = dict(Corruption.of(source, chosen)(toy.images()))
    assert len(found) == 1 + 15 * 6 + 1
    assert {name.split("/")[0] for name in found} == {"clean", "mean", *CORRUPTIONS}
    assert all(0 <= value <= 1 for value in found.values())


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"corruptions": ("rain",)}, "unknown corruption rain; known are gaussian_noise"),
        ({"corruptions": ()}, "corruptions must be at least one, each once, got"),
        ({"corruptions": ("fog", "fog")}, "corruptions must be at least one, each once, got"),
        ({"severities": ()}, "severities must be at least one, each once, got"),
        ({"severities": (1, 6)}, "severities must hold values that each must be one of 1, 2, 3, 4, 5"),
        ({"examples": 0}, "examples must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CorruptionSettings(**settings)
