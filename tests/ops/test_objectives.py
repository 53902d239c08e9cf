"""Objectives against torch's own losses, and their interpolated form against plain loops in double precision."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from multimix import ops
from multimix.ops import BinaryCrossEntropy, CrossEntropy, LossOptions, Objective, SquaredError, mixed_losses

WEIGHTS = (0.5, 2.0, 1.0, 0.0, 3.0)


def mixed(outputs, targets, weights, objective: Objective, **options):
    """Return the losses of an objective."""
    return mixed_losses(outputs, targets, weights, LossOptions(objective=objective, **options))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows(*shape, seed=0):
    weights = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 6
    return weights / weights.sum(-1, keepdim=True)


def indices(*shape, classes=5, seed=0):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("ignored", [None, 2, -100])
def test_cross_entropy_is_torchs(weights, ignored):
    logits, targets = draw(23, 5), indices(23)
    if ignored == -100:
        targets[::3] = -100
    objective = CrossEntropy(class_weights=weights, ignore_index=ignored)
    ours = objective(logits, objective.targets(targets, 5, dtype=torch.float64))
    options = {} if ignored is None else {"ignore_index": ignored}
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    torch.testing.assert_close(ours, F.cross_entropy(logits, targets, weight=weight, **options))


def test_label_smoothing_is_torchs():
    logits, targets = draw(23, 5), indices(23)
    objective = CrossEntropy(label_smoothing=0.2)
    ours = objective(logits, objective.targets(targets, 5, dtype=torch.float64))
    torch.testing.assert_close(ours, F.cross_entropy(logits, targets, label_smoothing=0.2))


def test_label_maps_are_torchs():
    logits, maps = draw(3, 12, 5), indices(3, 3, 4)
    maps[0, 0] = 255
    objective = CrossEntropy(class_weights=WEIGHTS, ignore_index=255)
    ours = objective(logits, objective.targets(maps, 5, dtype=torch.float64))
    theirs = F.cross_entropy(
        logits.mT, maps.flatten(1), weight=torch.tensor(WEIGHTS, dtype=torch.float64), ignore_index=255
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_binary_cross_entropy_is_torchs(weights):
    logits, targets = draw(9, 5), indices(9, 5, classes=2)
    objective = BinaryCrossEntropy(positive_weights=weights)
    ours = objective(logits, objective.targets(targets, 5, dtype=torch.float64))
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    theirs = nn.BCEWithLogitsLoss(pos_weight=weight)(logits, targets.double())
    torch.testing.assert_close(ours, theirs)
    smooth = BinaryCrossEntropy(label_smoothing=0.2).targets(targets, 5)
    torch.testing.assert_close(smooth, 0.8 * targets + 0.1)


def test_a_mean_over_nothing_is_zero():
    objective = CrossEntropy(ignore_index=0)
    logits = draw(4, 5).requires_grad_()
    loss = objective(logits, objective.targets(torch.zeros(4, dtype=torch.long), 5))
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros(4, 5, dtype=torch.float64))


def loop(objective, outputs, wanted, weights, attention, mask):
    """The mean over positions and tuples of the loss of every single one, as it stands in the equations."""
    (b, r, _), n = outputs.shape, weights.shape[-2]
    known = objective.known(wanted)
    total, mass = torch.zeros((), dtype=outputs.dtype), 0.0
    for j in range(r):
        for i in range(n):
            w = weights[i] if weights.ndim == 2 else weights[j, i]
            counts = torch.ones(b, dtype=outputs.dtype)
            for example in range(b):
                if mask is not None and not mask[example, j]:
                    counts[example] = 0
                if known is not None and not (known[example] if known.ndim == 1 else known[example, j]):
                    counts[example] = 0
            if (w * counts).sum() == 0:
                continue
            w = w * counts
            confident = w * attention[:, j]
            w = (confident if confident.sum() > 0 else w) / (confident if confident.sum() > 0 else w).sum()
            labels = wanted if wanted.ndim == 2 else wanted[:, j]
            one, share = objective.terms((w @ outputs[:, j])[None], (w @ labels)[None])
            total, mass = total + one[0], mass + share[0]
    return total / mass


def cases():
    maps = indices(4, 6)
    maps[:, 1] = 255
    maps[0, 3] = maps[2, 0] = 255
    labels = indices(4, 5, classes=2).double()
    return {
        "classes": (CrossEntropy(class_weights=WEIGHTS), indices(4)),
        "maps": (CrossEntropy(), indices(4, 6)),
        "maps-ignored": (CrossEntropy(class_weights=WEIGHTS, ignore_index=255), maps),
        "labels": (BinaryCrossEntropy(positive_weights=WEIGHTS), labels),
        "label-maps": (BinaryCrossEntropy(), draw(4, 6, 5, seed=3).sigmoid()),
        "values": (SquaredError(), draw(4, 5, seed=4)),
    }


@pytest.mark.parametrize("sets", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", cases())
def test_interpolated_loss_and_gradient_at_every_position(name, masked, sets):
    objective, targets = cases()[name]
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
    ours = mixed(outputs, targets, weights, objective, attention=attention, mask=mask).total
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
    loss = mixed(outputs, targets, weights, SquaredError(), balanced=True).total
    (ours,) = torch.autograd.grad(loss, outputs)
    centred, expected = ours - ours.mean(0), 16 / 15 * (plain - plain.mean(0))
    assert (centred - expected).norm() < 0.02 * expected.norm()


def test_attention_under_a_mask_ignores_padding():
    features = draw(3, 6, 4)
    mask = torch.arange(6) < torch.tensor([[2], [6], [3]])
    for query in ("gap", "uniform", "cam"):
        for activation in ("relu", "softmax"):
            given = {"query": query, "activation": activation}
            given |= {"class_weights": draw(3, 4, seed=1)} if query == "cam" else {}
            whole = ops.attention(features, mask=mask, **given)
            spoilt = ops.attention(torch.where(mask.unsqueeze(-1), features, torch.nan), mask=mask, **given)
            torch.testing.assert_close(whole, spoilt)
            torch.testing.assert_close(whole.sum(1), torch.ones(3, dtype=torch.float64))
            assert torch.equal(whole[~mask], torch.zeros_like(whole[~mask]))
            for i, length in enumerate((2, 6, 3)):
                alone = {name: value[i : i + 1] if name == "class_weights" else value for name, value in given.items()}
                expected = ops.attention(features[i : i + 1, :length], **alone)
                torch.testing.assert_close(whole[i : i + 1, :length], expected)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: CrossEntropy(class_weights=(-1.0, 2.0)),
            "class_weights must hold values that each must be at least 0 and finite, got (-1.0, 2.0)",
        ),
        (lambda: CrossEntropy(label_smoothing=1.0), "label_smoothing must lie in [0, 1), got 1.0"),
        (lambda: CrossEntropy(class_weights=(1.0,))(draw(3, 5), draw(3, 5)), "class_weights must hold one number an"),
        (lambda: BinaryCrossEntropy().targets(draw(3, 5) + 9, 5), "targets must lie in [0, 1] for binary"),
        (lambda: BinaryCrossEntropy().targets(draw(3, 4), 5), "targets must have one number an output, (b, 5), got"),
        (lambda: SquaredError().targets(draw(3), 2), "targets must have one number an output, (b, 2), got (3,)"),
        (lambda: SquaredError()(draw(3, 2), draw(3, 1)), "targets must have the shape of the outputs, (3, 2), got"),
        (
            lambda: mixed(draw(3, 5), indices(4), rows(2, 3), CrossEntropy()),
            "targets has 4 rows for a mini-batch of 3",
        ),
        (
            lambda: mixed(draw(3, 5), indices(3), rows(2, 3), CrossEntropy(), mask=torch.ones(3, 4).bool()),
            "mask must have shape (3, 5), got (3, 4)",
        ),
        (
            lambda: mixed(draw(3, 5), indices(3), rows(2, 3), CrossEntropy(), gamma=2.0),
            "gamma must lie in [0, 1], got 2.0",
        ),
    ],
)
def test_wrong_arguments_are_named(make, said):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make()
    assert said in str(caught.value)


@pytest.mark.bad_input
def test_an_objective_must_be_one():
    network = nn.Linear(2, 2)
    assert ops.objective_of(network) == CrossEntropy()
    network.objective = "mse"
    with pytest.raises(TypeError, match="objective of the network must be an Objective such as CrossEntropy"):
        ops.objective_of(network)
