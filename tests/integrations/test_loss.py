"""MultiMixLoss: torch's cross-entropy in eval mode, the equations in training mode, and a module like any other."""

import copy
import inspect
import itertools
import pickle
from dataclasses import dataclass, fields
from typing import get_type_hints

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import multimix as mm
from integrations.drawn import begun_and_resumed
from multimix.integrations.loss import Settings
from parallel.together import together

K = 4
SHAPES = [(), (3,), (2, 3)]
CLASS_WEIGHTS = torch.tensor([0.2, 1.0, 2.5, 0.7])
BALANCED = {"clean": 0.5, "balanced": True, "confidence": 0.9}


@dataclass(frozen=True)
class Drawn(mm.MultiMix):
    """MultiMix whose weights are given, (n, b), and not drawn."""

    rows: object = None

    def draw_weights(self, b, rows=None, *, like, generator=None):
        return self.rows[: len(self.rows) if rows is None else rows]


def criterion(rows, weight=None, *, balanced=True, **settings):
    return mm.MultiMixLoss(weight, method=Drawn(tuples=len(rows), balanced=balanced, rows=rows), **settings)


def settings(shape):
    """All that torch's loss can be told: class weights, smoothing, ignored labels, probabilities; and a sample."""
    for weighted, smoothing, ignored, soft in itertools.product((0, 1), (0.0, 0.2, 1.0), (-100, 255, 1), (0, 1)):
        if not (soft and ignored >= 0):  # which torch refuses, too
            weight = torch.tensor([0.2, 1.0, 2.5, 0.7], dtype=torch.float64) if weighted else None
            yield weight, {"label_smoothing": smoothing, "ignore_index": ignored}, *sample(shape, soft, ignored)


def sample(shape, soft, ignored, b=7):
    generator = torch.Generator().manual_seed(b)
    logits = torch.randn(b, K, *shape, generator=generator, dtype=torch.float64)
    if soft:
        return logits, torch.randn(b, K, *shape, generator=generator, dtype=torch.float64).softmax(1)
    targets = torch.randint(0, K, (b, *shape), generator=generator)
    targets.view(-1)[::3] = ignored
    return logits, targets


def by_hand(logits, targets, rows, weight, smoothing, ignored):
    """The definition, a tuple, a class and a position at a time: logits (b, k, r), targets (b, r) or (b, k, r)."""
    b, k, r = logits.shape
    weight = torch.ones(k) if weight is None else weight
    soft = targets.is_floating_point()
    dense = r > 1
    total, mass = 0.0, 0.0
    for tuple_, j in itertools.product(rows.double(), range(r)):
        says = [1.0 if soft or targets[i, j] != ignored else 0.0 for i in range(b)]
        share = [float(tuple_[i]) * (says[i] if dense else 1.0) for i in range(b)]
        if not sum(share):
            continue
        share = [s / sum(share) for s in share]
        mixed = sum(share[i] * logits[i, :, j] for i in range(b))
        log_probability = mixed - mixed.exp().sum().log()
        for i in range(b):
            label = [float(targets[i, c, j]) if soft else float(targets[i, j] == c) * says[i] for c in range(k)]
            for c in range(k):
                wanted = (1 - smoothing) * label[c] + smoothing / k * sum(label)
                total -= share[i] * float(weight[c]) * wanted * float(log_probability[c])
            mass += share[i] * sum(label[c] * (1 if soft else float(weight[c])) for c in range(k))
    return total / mass


@pytest.mark.parametrize("shape", SHAPES)
def test_eval_mode_is_torchs_loss(shape):
    for weight, given, logits, targets in settings(shape):
        ours = mm.MultiMixLoss(weight, **given).eval()(logits, targets)
        torch.testing.assert_close(ours, F.cross_entropy(logits, targets, weight, **given), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_tuples_of_one_example_have_torchs_loss(shape):
    drawn = torch.tensor([5, 1, 1, 2, 6, 4])  # with ignored labels and without
    for weight, given, logits, targets in settings(shape):
        logits.requires_grad_()
        ours = criterion(F.one_hot(drawn, 7).float(), weight, balanced=False, **given)(logits, targets)
        expected = F.cross_entropy(logits[drawn], targets[drawn], weight, **given)
        torch.testing.assert_close(ours, expected)
        torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, expected)))


@pytest.mark.parametrize("shape", SHAPES)
def test_training_mode_is_the_definition(shape):
    rows = mm.ops.dirichlet(5, 7, 0.4, dtype=torch.float64)
    for weight, given, logits, targets in settings(shape):
        ours = criterion(rows, weight, **given)(logits, targets)
        flat = targets.reshape(7, K, -1) if targets.is_floating_point() else targets.reshape(7, -1)
        expected = by_hand(logits.reshape(7, K, -1), flat, rows, weight, *given.values())
        assert ours.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ignored", [-100, 2])
def test_clean_share_is_torchs_loss(shape, ignored):
    logits, targets = sample(shape, soft=False, ignored=ignored)
    weight = torch.rand(K, dtype=torch.float64) + 0.1
    expected = F.cross_entropy(logits, targets, weight, label_smoothing=0.1)
    for share in (0.5, 1.0):  # tuples of one example each, every one of them once, have it too
        method = Drawn(clean=share, tuples=7, rows=torch.eye(7))
        loss_of = mm.MultiMixLoss(weight, method=method, label_smoothing=0.1)
        torch.testing.assert_close(loss_of(logits, targets), expected)


@pytest.mark.parametrize("given", [{"tuples": 32}, {"alpha": (0.5, 2.0), "tuples": 64, "balanced": True}])
def test_a_loop_with_it_is_the_loop_with_the_method(toy, given):
    losses = toy.train(toy.model, toy.batches * 2, mm.MultiMixLoss(**given, seed=3))
    expected = toy.own_loop(toy.adapt(toy.twin), mm.MultiMix(**given), toy.batches * 2)
    assert losses == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(toy.model.state_dict(), toy.twin.state_dict(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weight", [None, torch.ones(K)])
def test_a_batch_without_labels_has_loss_and_gradient_zero(shape, weight):
    logits = torch.randn(5, K, *shape, requires_grad=True)
    loss = mm.MultiMixLoss(weight, tuples=20)(logits, torch.full((5, *shape), -100))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("b", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["multimix", "multimix-balanced", "multimix-recommended"])
def test_any_batch_in_any_precision(b, dtype, method, device):
    logits = torch.randn(b, K, device=device).to(dtype).requires_grad_()
    labels = torch.arange(b, device=device) % K
    loss = mm.MultiMixLoss(method=method, seed=0)(logits, labels)
    loss.backward()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert logits.grad.dtype == dtype
    assert logits.grad.isfinite().all()
    again = mm.MultiMixLoss(method=method, seed=0)(logits.detach().double(), labels.int())
    assert loss.item() == pytest.approx(again.item(), rel=1e-5)


def test_under_autocast_the_loss_is_computed_in_full_precision(device):
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    layer, inputs = nn.Linear(6, K).to(device), torch.randn(9, 6, device=device)
    labels = torch.arange(9, device=device) % K
    for loss_of in (mm.MultiMixLoss(seed=1, balanced=True), mm.MultiMixLoss(torch.rand(K, device=device), seed=1)):
        twin = copy.deepcopy(loss_of)
        with torch.autocast(device.type, dtype):
            logits = layer(inputs)
            assert logits.dtype == dtype
            inside = loss_of(logits, labels)
        outside = twin(logits.float(), labels)
        torch.testing.assert_close(inside, outside, rtol=1e-6, atol=1e-6)


@pytest.mark.compiles
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch 2.4's own tracing
@pytest.mark.parametrize(
    ("weight", "shape", "form"),
    [(None, (), {}), (CLASS_WEIGHTS, (3,), {}), (None, (3,), BALANCED), (CLASS_WEIGHTS, (), BALANCED)],
)
def test_a_compiled_step_is_the_step(weight, shape, form):
    torch.compiler.reset()
    logits, targets = sample(shape, soft=False, ignored=-100)
    method = Drawn(tuples=20, rows=mm.ops.dirichlet(20, 7, 0.4), **form)
    loss_of = mm.MultiMixLoss(weight, method=method, label_smoothing=0.1)
    logits = logits.float().requires_grad_()
    compiled = torch.compile(lambda logits, targets: loss_of(logits * 2, targets), fullgraph=True, backend="aot_eager")
    ours, expected = compiled(logits, targets), loss_of(logits * 2, targets)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, expected)))


@pytest.mark.compiles
def test_a_compiled_step_draws_anew_from_the_same_distribution():
    torch.compiler.reset()
    step, logits, labels = mm.MultiMixLoss(tuples=50), 3 * torch.randn(9, K), torch.arange(9) % K
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    ours, expected = (torch.stack([f(logits, labels) for _ in range(200)]) for f in (compiled, step))
    assert ours.std() == pytest.approx(expected.std().item(), rel=0.3)
    assert abs(ours.mean() - expected.mean()) < 5 * expected.std() * (2 / 200) ** 0.5


def test_it_is_a_cross_entropy_loss_with_its_state():
    torchs = nn.CrossEntropyLoss(torch.tensor([0.2, 1.0, 2.5, 0.7], dtype=torch.float64))
    loss_of = criterion(torch.eye(7), torch.ones(K))
    assert isinstance(loss_of, nn.CrossEntropyLoss)
    assert (list(mm.MultiMixLoss().state_dict()), list(loss_of.state_dict())) == ([], ["weight"])
    loss_of.load_state_dict(torchs.state_dict())
    logits, labels = torch.randn(7, K, dtype=torch.float64), torch.arange(7) % K
    expected = torchs(logits, labels)
    torch.testing.assert_close(loss_of(logits, labels), expected)
    torch.testing.assert_close(loss_of.double().eval()(logits, labels), expected)
    assert loss_of.weight.dtype == torch.float64


def test_random_numbers_are_torchs_own_without_a_seed():
    logits, labels = torch.randn(8, K), torch.arange(8) % K
    loss_of = mm.MultiMixLoss()
    torch.manual_seed(5)
    first, second = loss_of(logits, labels), loss_of(logits, labels)
    assert first != second
    torch.manual_seed(5)
    assert loss_of(logits, labels) == first
    state = torch.get_rng_state()
    mm.MultiMixLoss(seed=5)(logits, labels)
    mm.MultiMixLoss().eval()(logits, labels)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.filterwarnings("ignore:You are using `torch.load`:FutureWarning")  # torch 2.4 unpickling any tensor
@pytest.mark.parametrize("way", ["state_dict", "pickle", "deepcopy"])
@pytest.mark.parametrize("begun", [False, True])
def test_a_seeded_stream_goes_on_where_it_was(way, begun, tmp_path):
    logits, labels = torch.randn(8, K), torch.arange(8) % K
    loss_of = mm.MultiMixLoss(seed=5, tuples=20)
    if begun:
        loss_of(logits, labels)
    if way == "state_dict":
        torch.save(loss_of.state_dict(), tmp_path / "loss.pt")
        other = mm.MultiMixLoss(seed=77, tuples=20)
        other(logits, labels)
        other.load_state_dict(torch.load(tmp_path / "loss.pt", weights_only=True))
    else:
        other = copy.deepcopy(loss_of) if way == "deepcopy" else pickle.loads(pickle.dumps(loss_of))  # noqa: S301
    if way != "state_dict" or begun:
        assert [other(logits, labels).item() for _ in range(2)] == [loss_of(logits, labels).item() for _ in range(2)]


def test_each_process_draws_its_own():
    one, two = together(2, begun_and_resumed)
    for name in one:
        assert len({*one[name].tolist(), *two[name].tolist()}) == 4


def test_settings_are_multimixs_own():
    parameters = inspect.signature(mm.MultiMixLoss).parameters
    for f in fields(mm.MultiMix):
        assert parameters[f.name].default == f.default
    hints = get_type_hints(mm.MultiMix)
    assert get_type_hints(Settings) == {f.name: hints[f.name] for f in fields(mm.MultiMix)}
    assert list(parameters)[:1] == ["weight"]  # as torch has it
    assert mm.MultiMixLoss(tuples=5, effective=3.0).method == mm.MultiMix(tuples=5, effective=3.0)
    assert mm.MultiMixLoss(method="multimix-recommended").method == mm.method_named("multimix-recommended")


def test_prints_what_differs_from_the_defaults():
    assert repr(mm.MultiMixLoss()) == "MultiMixLoss()"
    made = mm.MultiMixLoss(torch.ones(3), tuples=5, alpha=(0.5, 2.0), label_smoothing=0.1, ignore_index=0, seed=1)
    shown = "tuples=5, alpha=(0.5, 2.0), weight=(3,), ignore_index=0, label_smoothing=0.1, seed=1"
    assert repr(made) == f"MultiMixLoss({shown})"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"reduction": "none"}, ValueError, "reduction must be 'mean', got 'none': tuples mix examples"),
        ({"method": mm.MultiMix(), "tuples": 5}, TypeError, "give method or settings, not both, got method=MultiMix"),
        ({"method": mm.CutMix()}, TypeError, "method must be MultiMix, .* got CutMix.*call any other on multimix.ad"),
        ({"method": "multimux"}, ValueError, "unknown method 'multimux'; did you mean multimix"),
        ({"size_average": True}, TypeError, "MultiMixLoss has no setting 'size_average'; .* tuples, tuple_length"),
        ({"tuples": 0}, ValueError, "tuples must be at least 1, got 0"),
        ({"label_smoothing": -1}, ValueError, r"label_smoothing must lie in \[0, 1\], got -1"),
        ({"ignore_index": None}, TypeError, "ignore_index must be an integer, got None"),
        ({"seed": 0.5}, TypeError, "seed must be an integer or None, got 0.5"),
        ({"weight": mm.MultiMix()}, TypeError, "weight must be a tensor .* got MultiMix"),
        ({"weight": torch.tensor([1.0, -1.0])}, ValueError, "weight must be a floating-point tensor .* not negative"),
        ({"weight": torch.zeros(2)}, ValueError, "weight must be .* not all 0"),
        ({"weight": torch.ones(2, 2)}, ValueError, r"weight must be a floating-point tensor \(k,\)"),
    ],
)
def test_bad_settings_are_named(given, error, message):
    with pytest.raises(error, match=message):
        mm.MultiMixLoss(**given)


LOGITS, LABELS = torch.randn(6, 4), torch.arange(6) % 4


@pytest.mark.bad_input
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("input", "target", "error", "message"),
    [
        (LOGITS, torch.eye(4)[LABELS].long(), ValueError, r"target must be class indices \(6,\) or"),
        (LOGITS, LABELS[:5], ValueError, r"got torch.int64 \(5,\)"),
        (LOGITS, LABELS.float(), ValueError, r"or floating-point probabilities \(6, 4\), got torch.float32"),
        (LOGITS.view(6, 4, 1, 1), LABELS, ValueError, r"class indices \(6, 1, 1\)"),
        (LOGITS, LABELS.bool(), TypeError, "target must be a tensor of class indices or probabilities, got torch.bool"),
        (LOGITS, [0] * 6, TypeError, "target must be a tensor of class indices or probabilities, got list"),
        (LOGITS[0], LABELS[0], ValueError, r"input must have shape \(b, k\) or \(b, k, d1, ...\), got \(4,\)"),
        (LOGITS.long(), LABELS, TypeError, "input must be logits, a floating-point tensor, got torch.int64"),
        (LOGITS, LABELS, ValueError, "weight must hold one number a class, 4, got 3"),
        (LOGITS, LOGITS.softmax(1), ValueError, "ignore_index must be left out for probabilities, as in torch, got 2"),
    ],
)
def test_bad_arguments_are_named(input, target, error, message, training):
    weight, ignore_index = torch.ones(3) if "weight" in message else None, 2 if "ignore" in message else -100
    with pytest.raises(error, match=message):
        mm.MultiMixLoss(weight, ignore_index=ignore_index).train(training)(input, target)


@pytest.mark.bad_input
@pytest.mark.parametrize("weight", [None, torch.ones(4)])
def test_labels_out_of_range_are_refused(weight):
    with pytest.raises(ValueError, match=r"targets must lie in 0\.\.3 for 4 classes, got 4"):
        mm.MultiMixLoss(weight)(LOGITS, torch.tensor([0, 4, 1, -100, 2, 3]))
