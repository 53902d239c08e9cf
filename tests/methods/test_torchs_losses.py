"""Every objective with every option, in every form and method, against torch's own loss: values and gradients."""

import itertools
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import cases
import laws
import multimix as mm
import toy
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Chain, DenseMultiMix, Mixup, MultiMix
from multimix.ops import (
    BinaryCrossEntropy,
    CrossEntropy,
    LazyWeights,
    LossOptions,
    SquaredError,
    mixed_losses,
)
from multimix.protocols import EncoderOutput
from toy import seeded

B, R, K = 6, 3, 5
WEIGHTS = [None, (0.5, 2.0, 1.0, 0.25, 3.0), (0.5, 2.0, 0.0, 1.0, 3.0)]
SMOOTHING = [0.0, 0.1]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1], [1, 1, 1]]).bool()
MAPS = torch.tensor([[0, 1, 2], [4, 3, 3], [2, 0, 1], [1, 1, 4], [3, 2, 0], [0, 4, 4]])
REFUSED = {  # the only combinations that are refused, and how
    ("CrossEntropy", "one-hot", "maps"): "targets",
    ("CrossEntropy", "one-hot", "MultiMixLoss"): "target must be class indices",
    ("BinaryCrossEntropy", "indices", ""): "targets must have one number an output",
    ("SquaredError", "indices", ""): "targets must have one number an output",
}


class Logits(toy.Toy):
    """Inputs (b, k) or (b, r, k) are its logits, at every position where ``dense``; some positions may be padding."""

    def __init__(self, objective, *, dense, mask=None):
        super().__init__(width=K, classes=K)
        torch.nn.init.eye_(self.classifier.weight)
        torch.nn.init.zeros_(self.classifier.bias)
        self.objective, self.dense, self.mask = objective, dense, mask

    def embed(self, inputs):
        features = super().embed(inputs)
        return features if self.mask is None else EncoderOutput(features, self.mask)

    def pool(self, output):
        features = getattr(output, "features", output)
        return features if self.dense and features.shape[1] > 1 else features.mean(1)


def by(method, *, mask=None, gamma=1.0):
    """A method on a network of which the inputs are the logits."""
    taught = isinstance(method, dict)

    def loss(objective, logits, targets):
        step = SelfDistilled(**method, gamma=gamma) if taught else method
        network = Logits(objective, dense=targets.shape[:2] == (B, R), mask=mask).to(logits.dtype)
        return step(network, logits, targets, generator=seeded()).total

    return loss


def op(form, *, mask=None, attend=False):
    """The mixed loss with tuples of one example."""

    def loss(objective, logits, targets):
        eye = torch.eye(B)
        weights = LazyWeights(B, lambda n: eye[:n]) if form == "lazy" else eye
        impl = "fused" if form == "lazy" else form
        if attend and isinstance(objective, CrossEntropy):
            targets = mm.ops.rows_of(targets, K)
        attention = torch.ones(B, R) if attend else None
        options = LossOptions(objective=objective, impl=impl, mask=mask, attention=attention)
        return mixed_losses(logits, targets, weights, options).total

    return loss


def in_two_steps(objective, logits, targets):
    if targets.ndim == 2 and logits.ndim == 2:
        targets = mm.ops.rows_of(targets, K) if isinstance(objective, CrossEntropy) else targets
    return objective(logits, objective.targets(targets, K, dtype=mm.ops.accurate(logits).dtype))


def in_a_loop(mode):
    """MultiMixLoss, with the options by torch's names."""

    def loss(objective, logits, targets):
        weight = None if objective.class_weights is None else torch.tensor(objective.class_weights)
        ignored = -100 if objective.ignore_index is None else objective.ignore_index
        criterion = mm.MultiMixLoss(
            weight, tuples=B, balanced=False, label_smoothing=objective.label_smoothing, ignore_index=ignored
        ).train(mode == "train")
        soft = logits.ndim > 2 and targets.is_floating_point()
        return criterion(logits.mT if logits.ndim > 2 else logits, targets.mT if soft else targets)

    return loss


FORMS = ("plain", "commuted", "fused", "lazy")
ROWS = {
    "rows": in_two_steps,
    **{form: op(form) for form in FORMS},
    "ERM": by(ERM()),
    "Mixup": by(Mixup()),
    "MultiMix": by(MultiMix(B, balanced=False, clean=0.3)),
    "Chain": by(Chain(Mixup(), MultiMix(B, balanced=False))),
    "Chain of Chain": by(Chain(Mixup(), Chain(Mixup(), ERM()))),
    "taught": by({"method": MultiMix(B, balanced=False)}),
    "taught, mix": by({"method": Chain(Mixup(), MultiMix(B, balanced=False)), "teacher": "mix"}),
    "MultiMixLoss train": in_a_loop("train"),
    "MultiMixLoss eval": in_a_loop("eval"),
}
AT_POSITIONS = {
    "rows": in_two_steps,
    "plain": op("plain"),
    "masked": op("auto", mask=MASK),
    "ERM": by(ERM()),
    "Mixup": by(Mixup()),
    "Dense": by(DenseMultiMix(B)),
    "Dense masked": by(DenseMultiMix(B), mask=MASK),
    "taught": by({"method": DenseMultiMix(B)}),
    "taught, mix": by({"method": DenseMultiMix(B), "teacher": "mix"}),
    "MultiMixLoss train": in_a_loop("train"),
    "MultiMixLoss eval": in_a_loop("eval"),
}
INHERITED = {
    **{form: op(form, attend=True) for form in FORMS},
    "masked": op("auto", attend=True, mask=MASK),
    "Dense": by(DenseMultiMix(B, query="uniform")),
    "Dense masked": by(DenseMultiMix(B, query="uniform"), mask=MASK),
    "taught": by({"method": DenseMultiMix(B, query="uniform")}),
}
WAYS = [
    (shape, name, way)
    for shape, ways in {"rows": ROWS, "maps": AT_POSITIONS, "inherited": INHERITED}.items()
    for name, way in ways.items()
]


def settings():
    """Every objective with targets for it: class indices (b,) or (b, r), or rows (b, k) or (b, r, k)."""
    for maps, weights, share in itertools.product((False, True), WEIGHTS, SMOOTHING):
        indices = MAPS if maps else MAPS[:, 0]
        soft = torch.randn(*indices.shape, K, generator=seeded(1), dtype=torch.float64).mul(2).softmax(-1)
        one_hot = F.one_hot(indices, K)
        labels = (soft > 0.15).long()
        for ignored, targets in (
            (None, {"indices": indices, "soft": soft, "half": soft.bfloat16(), "one-hot": one_hot}),
            (-100, {"indices": indices.masked_fill(indices == 1, -100), "soft": soft, "one-hot": one_hot}),
            (2, {"indices": indices}),
            (255, {"indices": torch.full_like(indices, 255)}),
        ):
            for form, each in targets.items():
                yield CrossEntropy(weights, share, ignored), form, each
        for form, each in {"indices": indices, "labels": labels, "soft": soft, "float": labels.float()}.items():
            yield BinaryCrossEntropy(weights, share), form, each
            if weights is None and not share:
                yield SquaredError(), form, each * 3 - 1 if form != "indices" else each


def torchs(objective, logits, targets, nothing=0):
    """Torch's own loss of rows (n, k), or 0 where it divides by no weight at all, unless ``nothing`` is None."""
    if isinstance(objective, SquaredError):
        return F.mse_loss(logits, targets.to(logits))
    if isinstance(objective, BinaryCrossEntropy):
        weight = None if objective.positive_weights is None else torch.tensor(objective.positive_weights)
        wanted = (1 - objective.label_smoothing) * targets.to(logits) + objective.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight)
    weight = None if objective.class_weights is None else torch.tensor(objective.class_weights).to(logits)
    hard = targets.ndim == 1
    options = {} if objective.ignore_index is None or not hard else {"ignore_index": objective.ignore_index}
    wanted = targets if hard else targets.to(logits)
    loss = F.cross_entropy(logits, wanted, weight, label_smoothing=objective.label_smoothing, **options)
    return loss if loss.isfinite() or nothing is None else logits.sum() * nothing


def attempt(way, name, shape, objective, targets, dtype):
    """Compare one combination; return how it is refused, or what is wrong, or nothing."""
    logits = torch.randn(B, *((R,) * (shape != "rows")), K, generator=seeded(2), dtype=torch.float64).to(dtype)
    logits = logits.requires_grad_()
    try:
        ours = way(objective, logits, targets)
    except ValueError as error:
        return str(error)
    labels = targets
    if shape == "inherited":
        labels = targets.unsqueeze(1).expand(B, R, *targets.shape[1:])
    flat, wanted = mm.ops.accurate(logits), labels
    if shape != "rows":
        keep = MASK if "masked" in name else torch.ones_like(MASK)
        flat, wanted = flat[keep], labels[keep]
    expected = torchs(objective, flat, wanted, None if "eval" in name else 0)
    assert ours.dtype == expected.dtype
    double = dtype == torch.float64
    torch.testing.assert_close(
        ours, expected, rtol=1e-9 if double else 1e-5, atol=1e-9 if double else 1e-5, equal_nan=True
    )
    gradients = (torch.autograd.grad(loss, logits)[0] for loss in (ours, expected))
    rough = 1e-2 if dtype == torch.bfloat16 else 1e-9 if double else 1e-5
    torch.testing.assert_close(*gradients, rtol=rough, atol=rough / 10, equal_nan=True)
    return None


def refusal_of(objective, form, shape, name):
    kind = type(objective).__name__
    places = (name.split()[0], shape, "")
    return next((REFUSED[kind, form, place] for place in places if (kind, form, place) in REFUSED), None)


@pytest.fixture(autouse=True)
def _unmixed():
    with laws.unmixed():
        yield


@pytest.mark.bad_input
@pytest.mark.parametrize(("shape", "name", "way"), WAYS, ids=[f"{shape}-{name}" for shape, name, _ in WAYS])
def test_without_mixing_it_is_torchs_loss(shape, name, way):
    counted = Counter()
    for (objective, form, targets), dtype in itertools.product(settings(), DTYPES):
        of_positions = targets.ndim - (form != "indices") > 1
        if of_positions != (shape == "maps") or ("MultiMixLoss" in name and not isinstance(objective, CrossEntropy)):
            continue
        said = attempt(way, name, shape, objective, targets, dtype)
        expected = refusal_of(objective, form, shape, name)
        assert (said is None) == (expected is None), (objective, form, dtype, said)
        assert said is None or expected in said
        counted[expected] += 1
    assert counted[None] > 80


PLAIN = [
    case
    for case in cases.CASES
    if laws.applies(laws.without_mixing_it_is_plain_training, case) and not isinstance(case.make(), SelfDistilled)
]


@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_every_method_has_torchs_loss_without_mixing(case):
    """On images of a single pixel, where a dense method has a single position."""
    inputs, indices = toy.batch(7, 3, 1, 1)
    ignored = torch.where(indices == indices[0], -100, indices)
    for weights, share, targets in itertools.product(WEIGHTS, SMOOTHING, (indices, ignored, toy.soft_targets(7, K))):
        objective = CrossEntropy(weights, share, None if targets is not ignored else -100)
        network, method = toy.images(kernel=1).eval(), case.make()
        network.objective = objective
        method = replace(method, balanced=False) if case.balanced else method
        ours = cases.step(method, network, inputs, targets)
        network.zero_grad()
        expected = torchs(objective, network(inputs), targets)
        expected.backward()
        cases.close(ours, (expected.detach(), [p.grad for p in network.parameters()]))


@pytest.mark.parametrize(("weights", "share"), [*itertools.product(WEIGHTS, SMOOTHING)])
def test_a_teachers_predictions_are_weighed_as_class_indices_and_not_smoothed(weights, share):
    logits, labels, gamma = torch.randn(B, K, generator=seeded(4), dtype=torch.float64), MAPS[:, 0], 0.3
    objective, w = CrossEntropy(weights, share), torch.tensor(weights or (1.0,) * K, dtype=torch.float64)
    logs, hard = logits.log_softmax(1), F.one_hot(labels, K).double()
    wanted = (1 - share) * hard + share / K
    taught = logs.exp()
    blend = (gamma * rows + (1 - gamma) * taught for rows in (wanted, hard))
    own, theirs, blended = (
        -(w * rows * logs).sum() / (w * mass).sum() for rows, mass in ((wanted, hard), (taught, taught), blend)
    )
    for reading, expected in (("predict", gamma * own + (1 - gamma) * theirs), ("mix", blended)):
        for method in (ERM(), MultiMix(B), Chain(Mixup(), ERM())):
            loss = by({"method": method, "teacher": reading}, gamma=gamma)(objective, logits, labels)
            torch.testing.assert_close(loss, expected)
