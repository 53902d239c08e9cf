"""Labels on grids against every labelling there is."""

import itertools

import pytest
import torch

from multimix.ops._graph_cut import solve_ordered_labels


def problem(b, labels, h, w, *, seed=0, pull=0.6):
    """Return convex unary costs and weights in float64."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(b, labels - 1, h, w, generator=generator, dtype=torch.float64).sort(dim=1).values
    unary = torch.cat([torch.zeros(b, 1, h, w, dtype=torch.float64), steps.cumsum(1)], 1)
    vertical = torch.rand(b, h - 1, w, generator=generator, dtype=torch.float64) * pull
    horizontal = torch.rand(b, h, w - 1, generator=generator, dtype=torch.float64) * pull
    return unary, vertical, horizontal


def energy(unary, vertical, horizontal, labels):
    """Return the energy of one labelling (h, w) of one grid, in loops."""
    h, w = labels.shape
    total = 0.0
    for y, x in itertools.product(range(h), range(w)):
        a = int(labels[y, x])
        total += float(unary[a, y, x])
        if y + 1 < h:
            total += float(vertical[y, x]) * (a - int(labels[y + 1, x])) ** 2
        if x + 1 < w:
            total += float(horizontal[y, x]) * (a - int(labels[y, x + 1])) ** 2
    return total


def least(unary, vertical, horizontal):
    """Return the least energy over all labellings of one grid."""
    labels, h, w = unary.shape
    every = torch.tensor(list(itertools.product(range(labels), repeat=h * w))).view(-1, h, w)
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    total = unary[every, y, x].sum((1, 2)) + (vertical * every.double().diff(dim=1) ** 2).sum((1, 2))
    return float((total + (horizontal * every.double().diff(dim=2) ** 2).sum((1, 2))).min())


@pytest.mark.parametrize(("labels", "h", "w"), [(2, 3, 3), (3, 3, 3), (4, 2, 3), (5, 2, 2), (3, 1, 5), (3, 4, 1)])
@pytest.mark.parametrize("pull", [0.05, 0.3, 1.5])
def test_no_labelling_has_less_energy(labels, h, w, pull):
    terms = problem(2, labels, h, w, seed=h, pull=pull)
    solved = solve_ordered_labels(*terms)
    for *one, found in zip(*terms, solved, strict=True):
        assert energy(*one, found) == pytest.approx(least(*one), abs=1e-6)


def test_cells_that_are_free_of_each_other_take_their_own_best():
    unary, vertical, horizontal = problem(4, 3, 5, 6)
    solved = solve_ordered_labels(unary, 0 * vertical, 0 * horizontal)
    assert torch.equal(solved, unary.argmin(1))


def test_a_strong_pull_gives_all_cells_the_label_that_is_best_in_sum():
    unary, vertical, horizontal = problem(4, 3, 5, 6)
    solved = solve_ordered_labels(unary, vertical + 100, horizontal + 100)
    assert torch.equal(solved, unary.sum((2, 3)).argmin(1).view(-1, 1, 1).expand_as(solved))


def test_grids_of_a_batch_do_not_know_each_other():
    terms = problem(6, 3, 6, 5, pull=0.9)
    together = solve_ordered_labels(*terms)
    alone = torch.cat([solve_ordered_labels(*(t[i : i + 1] for t in terms)) for i in range(6)])
    assert torch.equal(together, alone)


def test_a_grid_of_a_single_cell_and_a_single_label():
    unary, vertical, horizontal = problem(3, 3, 1, 1)
    assert torch.equal(solve_ordered_labels(unary, vertical, horizontal), unary.argmin(1))
    unary, vertical, horizontal = problem(3, 3, 4, 4)
    assert not solve_ordered_labels(unary[:, :1], vertical, horizontal).any()


@pytest.mark.bad_input
def test_what_no_cut_can_solve_is_refused():
    unary, vertical, horizontal = problem(2, 3, 3, 3)
    with pytest.raises(ValueError, match=r"vertical must have shape \(2, 2, 3\)"):
        solve_ordered_labels(unary, vertical[:, 1:], horizontal)
    with pytest.raises(ValueError, match="horizontal must be finite and not negative"):
        solve_ordered_labels(unary, vertical, horizontal - 5)
    with pytest.raises(ValueError, match="unary must be convex in the label"):
        solve_ordered_labels(-unary, vertical, horizontal)
    with pytest.raises(ValueError, match="unary must be finite"):
        solve_ordered_labels(unary / 0, vertical, horizontal)
