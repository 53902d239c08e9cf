"""Objectives against torch's own losses, and their interpolated form against plain loops in double precision."""

import itertools

import pytest
import torch

from multimix import ops
from multimix.ops import BinaryCrossEntropy, CrossEntropy, LossOptions, SquaredError, mixed_losses

WEIGHTS = (0.5, 2.0, 1.0, 0.0, 3.0)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows(*shape, seed=0):
    weights = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 6
    return weights / weights.sum(-1, keepdim=True)


def indices(*shape, classes=5, seed=0):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def loop(objective, outputs, wanted, weights, attention, mask):
    """The mean over positions and tuples of the loss of every single one, as it stands in the equations."""
    known = objective.known(wanted)
    total, mass = torch.zeros((), dtype=outputs.dtype), 0.0
    for j, i in itertools.product(range(outputs.shape[1]), range(weights.shape[-2])):
        counts = torch.ones(len(outputs), dtype=outputs.dtype) if mask is None else mask[:, j].double()
        if known is not None:
            counts = counts * (known if known.ndim == 1 else known[:, j])
        w = counts * (weights[i] if weights.ndim == 2 else weights[j, i])
        if w.sum() == 0:
            continue
        confident = w * attention[:, j]
        w = confident if confident.sum() > 0 else w
        w = w / w.sum()
        labels = wanted if wanted.ndim == 2 else wanted[:, j]
        one, share = objective.terms((w @ outputs[:, j])[None], (w @ labels)[None])
        total, mass = total + one[0], mass + share[0]
    return total / mass


MAPS = indices(4, 6)
IGNORED = MAPS.index_fill(1, torch.tensor([1]), 255)
IGNORED[0, 3] = IGNORED[2, 0] = 255
CASES = {
    "classes": (CrossEntropy(class_weights=WEIGHTS), indices(4)),
    "maps": (CrossEntropy(), MAPS),
    "maps-ignored": (CrossEntropy(class_weights=WEIGHTS, ignore_index=255), IGNORED),
    "labels": (BinaryCrossEntropy(positive_weights=WEIGHTS), indices(4, 5, classes=2).double()),
    "label-maps": (BinaryCrossEntropy(), draw(4, 6, 5, seed=3).sigmoid()),
    "values": (SquaredError(), draw(4, 5, seed=4)),
}


@pytest.mark.parametrize("sets", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_interpolated_loss_and_gradient_at_every_position(name, masked, sets):
    objective, targets = CASES[name]
    outputs = draw(4, 6, 5).requires_grad_()
    weights = rows(6, 7, 4) if sets else rows(7, 4)
    weights[..., 0, :] = torch.tensor([1.0, 0, 0, 0])  # a tuple of one example, missing wherever that one is
    attention = draw(4, 6, seed=5).relu() + 0
    attention[:, 2] = 0
    mask = torch.arange(6) < torch.tensor([[2], [6], [4], [3]]) if masked else None
    wanted = objective.targets(targets, 5, dtype=torch.float64)
    theirs = loop(objective, outputs, wanted, weights, attention, mask)
    upstream = draw(1)[0]
    (expected,) = torch.autograd.grad(theirs, outputs, upstream)
    ours = mixed_losses(
        outputs, targets, weights, LossOptions(objective=objective, attention=attention, mask=mask)
    ).total
    (gradient,) = torch.autograd.grad(ours, outputs, upstream)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient, expected)
    if masked:
        assert torch.equal(gradient[~mask], torch.zeros_like(gradient[~mask]))


def test_balance_restores_the_gradient_of_the_squared_error():
    """Its gradient is linear in the outputs: many tuples give plain training's centred part m / (m - 1) times."""
    outputs, targets = draw(16, 3).requires_grad_(), draw(16, 3, seed=1)
    weights = ops.dirichlet(200_000, 16, 1.0, generator=torch.Generator().manual_seed(0)).double()
    (plain,) = torch.autograd.grad(SquaredError()(outputs, targets), outputs)
    loss = mixed_losses(outputs, targets, weights, LossOptions(objective=SquaredError(), balanced=True)).total
    (ours,) = torch.autograd.grad(loss, outputs)
    centred, expected = ours - ours.mean(0), 16 / 15 * (plain - plain.mean(0))
    assert (centred - expected).norm() < 0.02 * expected.norm()
