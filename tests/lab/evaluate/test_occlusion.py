"""Occlusion: what is hidden, and the accuracies, by hand."""

import pytest
import torch
from torch import Tensor

import toy
from evaluate.made import MEAN, accuracy, source
from listening import Kept
from multimix.lab.evaluate.occlusion import Occlusion, OcclusionSettings, hidden


def masks(fraction: float, *, size: int = 32, grid: int = 8, count: int = 50, seed: int = 0) -> Tensor:
    return hidden(fraction, size, size, grid=grid, examples=range(count), seed=seed)


@pytest.mark.parametrize("fraction", [0.0, 0.125, 0.75])
@pytest.mark.parametrize(("size", "grid"), [(32, 4), (224, 14)])
def test_whole_patches_of_the_wanted_fraction_are_hidden(size, grid, fraction):
    mask, side = masks(fraction, size=size, grid=grid, count=20), size // grid
    cells = mask.view(20, grid, side, grid, side).movedim(3, 2).flatten(3)
    assert torch.equal(cells.all(-1), cells.any(-1))
    assert (cells.all(-1).sum((1, 2)) == round(fraction * grid**2)).all()


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


def test_its_accuracies_are_those_of_images_with_mean_colour_in_patches():
    run, network, monitor = source(), toy.images(), Kept()
    fractions = (0.0, 0.125, 0.5)
    found = dict(Occlusion.of(run, OcclusionSettings(fractions=fractions, grid=4, seed=3))(network, monitor))
    pixels, labels = run.splits.test.images / 255, run.splits.test.labels
    curve = []
    for fraction in fractions:
        mask = hidden(fraction, 8, 8, grid=4, examples=range(40), seed=3)
        occluded = torch.where(mask[:, None], torch.tensor(MEAN).view(3, 1, 1), pixels)
        curve.append(accuracy(network, occluded, labels))
    assert list(found) == ["0/accuracy", "12.5/accuracy", "50/accuracy", "area/accuracy"]
    area = (0.125 * (curve[0] + curve[1]) / 2 + 0.375 * (curve[1] + curve[2]) / 2) / 0.5
    assert list(found.values()) == pytest.approx([*curve, area], abs=1e-12)
    assert monitor.passes == ["0 % hidden", "12.5 % hidden", "50 % hidden"]
    assert monitor.figures == {"occlusion": {"fraction": list(fractions), "accuracy": curve, "examples": 40}}


@pytest.mark.bad_input
def test_a_grid_finer_than_the_image_is_refused():
    with pytest.raises(ValueError, match="grid=9 must be from 1 to 8, as the images have only 8 pixels a side"):
        Occlusion.of(source(), OcclusionSettings(grid=9))
