"""Labels on grids against every labelling there is, and blocks that move against the largest gain first."""

import itertools
import math

import pytest
import torch
from hypothesis import strategies as st

from fuzz.strategies import laid, law
from multimix import ops


def problem(b, labels, h, w, *, seed=0, pull=0.6):
    """Return convex unary costs and weights in float64."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(b, labels - 1, h, w, generator=generator, dtype=torch.float64).sort(dim=1).values
    unary = torch.cat([torch.zeros(b, 1, h, w, dtype=torch.float64), steps.cumsum(1)], 1)
    vertical = torch.rand(b, h - 1, w, generator=generator, dtype=torch.float64) * pull
    horizontal = torch.rand(b, h, w - 1, generator=generator, dtype=torch.float64) * pull
    return unary, vertical, horizontal


def energy(unary, vertical, horizontal, labels):
    """Return the energy of labellings (n, h, w) of one grid."""
    h, w = labels.shape[1:]
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    pairs = (vertical * labels.double().diff(dim=1) ** 2).sum((1, 2))
    return unary[labels, y, x].sum((1, 2)) + pairs + (horizontal * labels.double().diff(dim=2) ** 2).sum((1, 2))


@law(
    "solve_ordered_labels",
    examples=40,
    sizes=st.sampled_from([(2, 3, 3), (3, 3, 3), (4, 2, 3), (5, 2, 2), (3, 1, 5), (3, 4, 1), (3, 1, 1), (1, 2, 2)]),
    pull=st.sampled_from([0.0, 0.05, 0.3, 1.5]),
)
def test_no_labelling_has_less_energy(sizes, pull, seed, layout):
    count, h, w = sizes
    terms = problem(2, count, h, w, seed=seed, pull=pull)
    solved = ops.solve_ordered_labels(*(laid(term, layout) for term in terms))
    for *one, found in zip(*terms, solved, strict=True):
        every = torch.tensor(list(itertools.product(range(count), repeat=h * w))).view(-1, h, w)
        assert float(energy(*one, found[None])) == pytest.approx(float(energy(*one, every).min()), abs=1e-6)


def test_a_strong_pull_gives_all_cells_the_label_that_is_best_in_sum():
    unary, vertical, horizontal = problem(4, 3, 5, 6)
    solved = ops.solve_ordered_labels(unary, vertical + 100, horizontal + 100)
    assert torch.equal(solved, unary.sum((2, 3)).argmin(1).view(-1, 1, 1).expand_as(solved))


def greedy(saliency, seen, eps):
    """Take the largest gain over all blocks and places that are left, until there is none; in loops, one image."""
    h, w = saliency.shape
    price = eps / max(h - 1, w - 1, 1) ** 2
    cells = list(itertools.product(range(h), range(w)))
    pairs = [
        (float(saliency[cells[i]]) - price * math.dist(cells[i], cells[j]) ** 2, i, j)
        for i, j in itertools.product(range(h * w), repeat=2)
        if seen[cells[j]]
    ]
    result, moved, filled = list(range(h * w)), set(), set()
    for gain, i, j in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:])):
        if gain > 0 and i not in moved and j not in filled:
            moved.add(i)
            filled.add(j)
            result[j] = i
    return torch.tensor(result).view(h, w)


@pytest.mark.parametrize(("h", "w"), [(2, 2), (4, 4), (3, 6), (7, 2), (1, 5), (5, 5)])
@pytest.mark.parametrize("eps", [0.05, 0.8, 20.0])
def test_the_largest_gain_comes_first(h, w, eps):
    generator = torch.Generator().manual_seed(h)
    saliency = torch.rand(6, h, w, generator=generator).pow(3)
    saliency /= saliency.sum((1, 2), keepdim=True)
    seen = torch.rand(6, h, w, generator=generator) < torch.linspace(0, 1, 6).view(-1, 1, 1)
    moved = ops.transport_blocks(saliency, seen, eps)
    for i in range(6):
        assert torch.equal(moved[i], greedy(saliency[i], seen[i], eps)), i


def test_nothing_salient_moves_nothing():
    seen = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(ops.transport_blocks(torch.zeros(3, 4, 4), seen, 0.8)[1], torch.arange(16).view(4, 4))
