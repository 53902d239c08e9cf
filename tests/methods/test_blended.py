"""SmoothMix and GridMix, pixel by pixel, and what they draw."""

import itertools
import math

import pytest
import torch
from scipy import stats

import toy
from methods.shared import labels_of
from multimix.methods import GridMix, SmoothMix
from toy import seeded

SHAPES = pytest.mark.parametrize("shape", [(6, 6), (5, 9), (3, 2)])


def check_by_pixel(drawn, mask, inputs, targets):
    """Assert that images and targets are mixed by a mask, that is given as a function of row and column."""
    labels = labels_of(targets, soft=False)
    every = list(itertools.product(*map(range, inputs.shape[-2:])))
    lam = sum(mask(y, x) for y, x in every) / len(every)
    mixed, rows = drawn.mix(inputs), drawn.mix_targets(labels)
    for i, partner in enumerate(drawn.partners.tolist()):
        for y, x in every:
            expected = mask(y, x) * inputs[i, :, y, x] + (1 - mask(y, x)) * inputs[partner, :, y, x]
            torch.testing.assert_close(mixed[i, :, y, x], expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(rows[i], lam * labels[i] + (1 - lam) * labels[partner], rtol=0, atol=1e-6)


@SHAPES
@pytest.mark.parametrize("drawn", [(0.1, 0.7, 0.0), (0.5, 0.5, 0.4), (0.95, 0.0, 1.0)])
def test_a_spot_is_a_gaussian(shape, drawn, monkeypatch):
    monkeypatch.setattr("multimix.methods.blended.uniform", lambda *_, **__: torch.tensor(drawn))
    inputs, targets = toy.batch(4, 3, *shape, dtype=torch.float64)
    mixing = SmoothMix((0.2, 0.6)).draw(None, inputs, targets, seeded())
    sigma = 0.2 + 0.4 * drawn[2]

    def spot(y, x):
        away = ((y + 0.5) / shape[0] - drawn[0], (x + 0.5) / shape[1] - drawn[1])
        return math.exp(-(away[0] ** 2 + away[1] ** 2) / (2 * sigma**2))

    check_by_pixel(mixing, spot, inputs, targets)


@SHAPES
@pytest.mark.parametrize("grid", [1, 2, 4])
def test_cells_are_those_of_either_image(shape, grid, monkeypatch):
    """Each cell is of one image, and as many as lambda says are the image's own."""
    inputs, targets = toy.batch(4, 3, *shape, dtype=torch.float64)
    rows, columns = (min(grid, side) for side in shape)
    for share in (0.0, 0.3, 0.8, 1.0):
        monkeypatch.setattr("multimix.methods.blended.beta", lambda *_, share=share, **__: torch.tensor([share]))
        drawn = GridMix(grid=grid).draw(None, inputs, targets, seeded())
        cells = {
            (y * rows // shape[0], x * columns // shape[1]): float(drawn.given["kept"][y, x])
            for y, x in itertools.product(*map(range, shape))
        }
        assert len(cells) == rows * columns
        assert sum(cells.values()) == round(share * rows * columns)

        def mask(y, x, cells=cells):
            return cells[y * rows // shape[0], x * columns // shape[1]]

        check_by_pixel(drawn, mask, inputs, targets)


def test_every_cell_is_as_likely():
    inputs, generator = torch.zeros(2, 1, 6, 6), seeded(1)
    drawn = [GridMix(grid=3).draw(None, inputs, None, generator) for _ in range(600)]
    own = torch.stack([each.given["kept"][::2, ::2].flatten() for each in drawn]).sum(0)
    assert stats.chisquare(own.numpy()).pvalue > 1e-3
    shares = torch.bincount((9 * torch.stack([each.lam for each in drawn])).round().long(), minlength=10)
    expected = [
        sum(stats.beta(1, 1).cdf(min((n + e) / 9, 1)) * s for e, s in ((0.5, 1), (-0.5, -1))) for n in range(10)
    ]
    assert stats.chisquare(shares.numpy(), 600 * torch.tensor(expected).numpy()).pvalue > 1e-3


def test_spots_are_anywhere():
    inputs, generator = torch.zeros(2, 1, 20, 20), seeded(2)
    peaks = [SmoothMix().draw(None, inputs, None, generator).given["kept"].argmax() for _ in range(600)]
    for places in (torch.stack(peaks) // 20, torch.stack(peaks) % 20):
        assert stats.chisquare(torch.bincount(places, minlength=20).numpy()).pvalue > 1e-3


@pytest.mark.bad_input
def test_sigmas_out_of_order_are_refused():
    with pytest.raises(ValueError, match=r"^sigmas must be \(low, high\) with low <= high, got \(0.5, 0.25\)"):
        SmoothMix((0.5, 0.25))
