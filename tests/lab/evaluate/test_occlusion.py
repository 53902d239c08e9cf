"""Occlusion: what is hidden, and the accuracies, by hand."""

import json

import pytest
import torch
from torch import Tensor

import toy
from listening import Kept
from multimix.lab.data import Images, Splits
from multimix.lab.evaluate import Source
from multimix.lab.evaluate.occlusion import Occlusion, OcclusionSettings, hidden
from multimix.methods import ERM


def masks(fraction: float, *, size: int = 32, grid: int = 8, count: int = 50, seed: int = 0) -> Tensor:
    return hidden(fraction, size, size, grid=grid, examples=range(count), seed=seed)


@pytest.mark.parametrize("fraction", [0.0, 0.125, 0.5, 0.75])
@pytest.mark.parametrize(("size", "grid"), [(32, 8), (32, 4), (8, 8), (224, 14)])
def test_whole_patches_of_the_wanted_fraction_are_hidden(size, grid, fraction):
    mask = masks(fraction, size=size, grid=grid, count=20)
    side = size // grid
    cells = mask.view(20, grid, side, grid, side).movedim(3, 2).flatten(3)
    assert torch.equal(cells.all(-1), cells.any(-1))
    share = cells.all(-1).double().mean((1, 2))
    assert torch.equal(share, torch.full((20,), round(fraction * grid**2) / grid**2, dtype=torch.float64))


def test_sides_that_do_not_divide_are_cut_as_evenly_as_can_be():
    mask = hidden(0.5, 28, 33, grid=8, examples=range(400))
    assert mask.shape == (400, 28, 33)
    assert float(mask.double().mean()) == pytest.approx(0.5, abs=0.01)
    one = hidden(1 / 64, 28, 33, grid=8, examples=range(60))
    sizes = {(int(m.any(1).sum()), int(m.any(0).sum())) for m in one}
    assert sizes <= {(3, 4), (4, 4), (3, 5), (4, 5)}


def test_what_is_hidden_stays_hidden():
    less = masks(0.0)
    for fraction in (0.125, 0.3, 0.31, 0.75):
        more = masks(fraction)
        assert (less <= more).all()
        less = more


def test_every_place_is_hidden_as_often_and_every_image_in_its_own_way():
    mask = masks(0.25, count=2000)
    assert float((mask.double().mean(0) - 0.25).abs().max()) < 0.05
    assert len({tuple(m.flatten().tolist()) for m in mask[:50]}) == 50
    assert not torch.equal(mask, masks(0.25, count=2000, seed=1))
    assert torch.equal(hidden(0.25, 32, 32, grid=8, examples=[7, 3]), mask[[7, 3]])


@pytest.fixture
def source() -> Source:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 3, 8, 8), generator=generator, dtype=torch.uint8)
    part = Images(images, torch.arange(40) % 5, tuple("abcde"))
    splits = Splits("random", part, None, part, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    return Source(splits, ERM(), torch.device("cpu"), batch_size=7)


def test_its_accuracies_are_those_of_images_with_mean_colour_in_patches(source):
    network, monitor = toy.images(), Kept()
    chosen = OcclusionSettings(fractions=(0.0, 0.125, 0.5), grid=4, seed=3)
    found = dict(Occlusion.of(source, chosen)(network, monitor))
    splits = source.splits
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (splits.mean, splits.std))
    curve = []
    for fraction in (0.0, 0.125, 0.5):
        pixels = splits.test.images.float() / 255
        mask = hidden(fraction, 8, 8, grid=4, examples=range(40), seed=3)
        pixels = torch.where(mask[:, None], mean, pixels)
        with torch.no_grad():
            predicted = network.eval()((pixels - mean) / std).argmax(1)
        curve.append(float((predicted == splits.test.labels).double().mean()))
    assert list(found) == ["0/accuracy", "12.5/accuracy", "50/accuracy", "area/accuracy"]
    area = (0.125 * (curve[0] + curve[1]) / 2 + 0.375 * (curve[1] + curve[2]) / 2) / 0.5
    assert list(found.values()) == pytest.approx([*curve, area], abs=1e-12)
    assert monitor.passes == ["0 % hidden", "12.5 % hidden", "50 % hidden"]
    assert json.loads(json.dumps(monitor.figures)) == monitor.figures
    assert monitor.figures == {"occlusion": {"fraction": [0.0, 0.125, 0.5], "accuracy": curve, "examples": 40}}


@pytest.mark.parametrize("batch", [1, 40])
def test_the_size_of_the_batches_does_not_matter(source, batch):
    other = Source(source.splits, source.method, source.device, batch_size=batch)
    network, chosen = toy.images(seed=1), OcclusionSettings()
    found = dict(Occlusion.of(source, chosen)(network))
    assert found == dict(Occlusion.of(other, chosen)(network))
    assert list(found) == [f"{p}/accuracy" for p in ("0", "12.5", "25", "37.5", "50", "62.5", "75", "area")]


def test_inputs_are_left_as_they_were():
    inputs, labels = torch.ones(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)
    dict(Occlusion([(inputs, labels)])(toy.images()))
    assert torch.equal(inputs, torch.ones(4, 3, 8, 8))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": 0}, "grid must be at least 1, got 0"),
        ({"fractions": (0.5,)}, "fractions must hold at least 2"),
        ({"fractions": (0.5, 0.25)}, "fractions must ascend"),
        ({"fractions": (0.0, 1.0)}, r"lie in \[0, 1\), got"),
        ({"fractions": (0.0, 0.01), "grid": 4}, "fractions must differ by a patch of 4 x 4"),
        ({"examples": -3}, "examples must be at least 1, got -3"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OcclusionSettings(**settings)


@pytest.mark.bad_input
def test_a_grid_finer_than_the_image_is_refused(source):
    with pytest.raises(ValueError, match="grid must be at most the images' 8 pixels a side, got 9"):
        Occlusion.of(source, OcclusionSettings(grid=9))
