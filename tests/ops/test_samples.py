"""Examples that count more or less: torch's weighted mean, and its interpolated form against the definition."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F

import cases
import toy
from multimix.distill import SelfDistilled
from multimix.methods import METHODS, StyleCutMix
from multimix.ops import BinaryCrossEntropy, CrossEntropy, LossOptions, SampleWeighted, SquaredError, mixed_losses
from toy import seeded

CLASS_WEIGHTS = (0.5, 2.0, 1.0, 0.0, 3.0)
LABELS = torch.tensor([0, 1, 2, 4, 4, 1, 3])
WEIGHTS = torch.tensor([1.0, 0.0, 2.5, 0.3, 1.0, 4.0, 2.0], dtype=torch.float64)
SOFT = toy.soft_targets(7, 5, dtype=torch.float64)


def outputs(*shape):
    return torch.randn(*shape, generator=seeded(1), dtype=torch.float64).requires_grad_()


def every_loss(objective, logits, targets):
    """Torch's own loss of every example, and the class weight that it counts with."""
    if isinstance(objective, CrossEntropy):
        weight = None if objective.class_weights is None else torch.tensor(objective.class_weights).double()
        options = {"weight": weight, "label_smoothing": objective.label_smoothing}
        ones = torch.ones(targets.shape[: targets.ndim - (targets.is_floating_point())], dtype=torch.float64)
        mass = ones if weight is None or targets.is_floating_point() else weight[targets]
        channels = (logits.mT, targets.mT) if targets.is_floating_point() else (logits.mT, targets)
        pair = channels if logits.ndim > 2 else (logits, targets)
        return F.cross_entropy(*pair, **options, reduction="none"), mass
    loss = F.mse_loss if isinstance(objective, SquaredError) else F.binary_cross_entropy_with_logits
    return loss(logits, targets, reduction="none").mean(-1), torch.ones(targets.shape[:-1])


CASES = [
    *(
        (CrossEntropy(class_weights=weights, label_smoothing=share), targets)
        for weights, share, targets in itertools.product((None, CLASS_WEIGHTS), (0.0, 0.1), (LABELS, SOFT))
    ),
    (CrossEntropy(class_weights=CLASS_WEIGHTS), LABELS.repeat(3, 1).T),
    (BinaryCrossEntropy(), (SOFT > 0.2).double()),
    (SquaredError(), outputs(7, 5).detach()),
]


@pytest.mark.parametrize("b", [1, 7])
@pytest.mark.parametrize(("objective", "targets"), CASES)
def test_without_mixing_it_is_torchs_weighted_mean(objective, targets, b):
    targets, weights = targets[-b:], WEIGHTS[-b:]
    logits = outputs(*((b, 3, 5) if targets.ndim == 2 and not targets.is_floating_point() else (b, 5)))
    weighted = SampleWeighted(objective)
    rows = weighted.join(targets, weights, 5, dtype=torch.float64)
    theirs, mass = every_loss(objective, logits, targets)
    weights = weights.unsqueeze(1) if theirs.ndim == 2 else weights
    whole = (weights * mass).sum()
    expected = (weights * theirs).sum() / whole if whole > 0 else logits.sum() * 0
    for ours in (
        weighted(logits, rows),
        mixed_losses(logits, rows, torch.eye(b), LossOptions(objective=weighted)).total,
    ):
        torch.testing.assert_close(ours, expected)
        torch.testing.assert_close(*(torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (ours, expected)))


@pytest.mark.parametrize(("objective", "targets"), [case for case in CASES if case[1].shape != (7, 3)])
def test_a_mixed_row_weighs_its_loss_with_its_mixed_weight(objective, targets):
    weighted, logits, mixing = SampleWeighted(objective), outputs(7, 5), outputs(4, 7).softmax(1).detach()
    inner = objective.targets(targets, 5, dtype=torch.float64)
    total = mass = torch.zeros((), dtype=torch.float64)
    for w in mixing:
        loss, share = objective.terms((w @ logits)[None], (w @ inner)[None])
        total, mass = total + (w @ WEIGHTS) * loss[0], mass + (w @ WEIGHTS) * share[0]
    rows = weighted.join(targets, WEIGHTS, 5, dtype=torch.float64)
    ours = mixed_losses(logits, rows, mixing, LossOptions(objective=weighted)).total
    torch.testing.assert_close(ours, total / mass)


@pytest.mark.parametrize("taught", [None, "predict", "mix"])
@pytest.mark.parametrize(
    "inner", [CrossEntropy(label_smoothing=0.1), CrossEntropy(CLASS_WEIGHTS), SquaredError()], ids=str
)
@pytest.mark.parametrize("method", [cls for cls in METHODS if cls.name not in ("augmix", "automix", "decoupled-mixup")])
def test_every_method_takes_them_and_equal_weights_change_nothing(method, inner, taught):
    compares_classes = method is StyleCutMix and isinstance(inner, CrossEntropy)
    method = method(**cases.settings_of(method), **({"gamma": "auto"} if compares_classes else {}))
    inputs, labels = toy.batch(7, 3, 6, 6)
    targets = toy.one_hot(labels) if isinstance(inner, SquaredError) else labels
    totals = []
    for objective in (inner, SampleWeighted(inner)):
        twin = toy.images()
        twin.objective, given = objective, targets
        if objective is not inner:
            given = objective.join(targets, torch.full((7,), 2.0), 5)
        step = copy.deepcopy(method) if taught is None else SelfDistilled(copy.deepcopy(method), teacher=taught)
        totals.append(step(twin, inputs, given, generator=seeded()).total)
    torch.testing.assert_close(*totals)
