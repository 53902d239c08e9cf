"""What every method must do, whatever it mixes. ``CASES`` takes the methods from the one list, ``METHODS``.

A law takes a case and a device and asserts; ``REFUSALS`` are wrong arguments that every method must name.
"""

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import toy
from multimix.distill import SelfDistilled
from multimix.methods import ERM, METHODS, Alternate, CutMix, DenseMultiMix, ManifoldMixup, Mixup, MultiMix, Until
from multimix.methods._tuples import TupleSettings
from multimix.protocols import Losses, Method

TUPLES = 35
"""A multiple of the mini-batch of 7 that most laws use."""
ONLY_IMAGES = {
    "cutmix",
    "resizemix",
    "fmix",
    "saliencymix",
    "puzzlemix",
    "co-mixup",
    "supermix",
    "stylemix",
    "stylecutmix",
    "opttransmix",
    "automix",
}
"""Methods that refuse feature vectors."""
NEVER_PLAIN = {"automix", "adamixup", "stylemix", "stylecutmix", "co-mixup", "supermix"}
"""Methods whose loss has more in it than the mixed examples, so that without mixing it is not plain training."""


@dataclass(frozen=True)
class Case:
    """A method as the laws try it."""

    name: str
    make: Callable[[], Method]
    """A fresh one at each call."""
    random: bool = True
    """Whether its loss depends on the generator."""
    vectors: bool = True
    """Whether it takes inputs that are not images."""
    balanced: bool = False
    """Whether the gradient is balanced, on the logits if there is a head and on the embeddings if not."""


def settings_of(cls: type) -> dict[str, Any]:
    """Return settings that suit the laws: few tuples, mixing at every step, and no decoder that learns in between."""
    wanted = {"tuples": TUPLES, "probability": 1.0, "learning_rate": 0.0}
    return {f.name: wanted[f.name] for f in dataclasses.fields(cls) if f.name in wanted}


def until(progress: float) -> Until:
    """Return mixup or, late in training, nothing."""
    method = Until(Mixup(), 0.5)
    method.at(progress)
    return method


def distilled(cls: type, teacher: str) -> SelfDistilled:
    """Return a method with its own moving average as a teacher."""
    return SelfDistilled(cls(**settings_of(cls)), gamma=0.3, teacher=teacher)


def _cases() -> list[Case]:
    single = [
        Case(cls.name, lambda cls=cls: cls(**settings_of(cls)), cls is not ERM, cls.name not in ONLY_IMAGES)
        for cls in METHODS
    ]
    taught = [
        Case(
            f"{reading}-{cls.name}",
            lambda cls=cls, reading=reading: distilled(cls, reading),
            cls is not ERM,
            cls.name not in ONLY_IMAGES,
        )
        for cls in (ERM, CutMix, ManifoldMixup, MultiMix, DenseMultiMix)
        for reading in ("predict", "mix")
    ]
    nested = [
        Case("alternate", lambda: Alternate((MultiMix(tuples=TUPLES, alpha=(0.5, 2.0)), Mixup(alpha=2.0)))),
        Case("until-before", lambda: until(0.2)),
        Case("until-after", lambda: until(0.7), random=False),
        Case(
            "predict-alternate", lambda: SelfDistilled(Alternate((MultiMix(tuples=TUPLES), Mixup()), (0.3, 0.7)), 0.3)
        ),
        Case("mix-until", lambda: SelfDistilled(until(0.2), 0.3, teacher="mix")),
    ]
    tuned = [
        Case(
            "multimix-all", lambda: MultiMix(TUPLES, tuple_length=3, effective=(1.5, 4.0), balanced=True), balanced=True
        ),
        Case(
            "dense-all",
            lambda: DenseMultiMix(
                TUPLES, tuple_length=3, alpha=0.1, activation="softmax", shared=True, detach=False, balanced=True
            ),
            balanced=True,
        ),
        Case("cutmix-never", lambda: CutMix(probability=0.0), random=False, vectors=False),
    ]
    return single + taught + nested + tuned


CASES = _cases()


def run(method: Method, network: nn.Module, inputs: Any, targets: Tensor, seed: int = 0) -> Losses:
    """Return the losses of one step, drawn from a generator of its own."""
    return method(network, inputs, targets, generator=torch.Generator().manual_seed(seed))


def step(method: Method, network: nn.Module, inputs: Any, targets: Tensor, seed: int = 0) -> tuple[Tensor, list]:
    """Return the loss and every parameter's gradient."""
    network.zero_grad()
    total = run(method, network, inputs, targets, seed).total
    total.backward()
    return total.detach(), [p.grad.clone() for p in network.parameters()]


def close(first: tuple[Tensor, list], second: tuple[Tensor, list], rtol: float = 1e-4, atol: float = 1e-6) -> None:
    """Assert that two steps are the same but for rounding."""
    for one, other in zip([first[0], *first[1]], [second[0], *second[1]], strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol)


def hooks(method: Method, network: nn.Module) -> int:
    """Count the hooks on the network and whatever the method holds."""
    held = [network, method] if isinstance(method, nn.Module) else [network]
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for top in held for m in top.modules() for kind in kinds)


def images(b: int = 7, device: torch.device | str = "cpu", **options: Any) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network in training mode and a mini-batch of images for it."""
    network = toy.images(**options).to(device).train()
    return network, *toy.batch(b, 3, 6, 6, device=device)


# ------------------------------------------------------------------------------------------------------------- laws


def same_state_gives_the_same_step(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    first = step(case.make(), copy.deepcopy(network), inputs, targets)
    second = step(case.make(), copy.deepcopy(network), inputs, targets)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(*pair) for pair in zip(first[1], second[1], strict=True))


def another_state_gives_another_loss(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    network.eval()
    totals = {float(run(case.make(), network, inputs, targets, seed).total.detach()) for seed in range(4)}
    assert (len(totals) > 1) == case.random


def arguments_are_left_alone(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    soft = toy.one_hot(targets)
    before = [t.clone() for t in (inputs, targets, soft)]
    parameters = [p.detach().clone() for p in network.parameters()]
    versions = [t._version for t in (inputs, targets, soft)]
    for labels in (targets, soft):
        run(case.make(), network, inputs, labels).total.backward()
    assert all(torch.equal(*pair) for pair in zip(before, (inputs, targets, soft), strict=True))
    assert [t._version for t in (inputs, targets, soft)] == versions
    assert all(torch.equal(*pair) for pair in zip(parameters, network.parameters(), strict=True))
    assert network.training


def global_randomness_is_spared_given_a_generator(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    before = torch.get_rng_state()
    run(case.make(), network, inputs, targets)
    assert torch.equal(torch.get_rng_state(), before)


def global_randomness_serves_without_a_generator(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    network.eval()
    totals = []
    for _ in range(2):
        torch.manual_seed(11)
        totals.append(case.make()(network, inputs, targets).total)
    assert torch.equal(*totals)


def total_is_a_finite_scalar(case: Case, device: torch.device) -> None:
    losses = run(case.make(), *images(device=device))
    assert losses.total.shape == ()
    assert losses.total.requires_grad
    assert losses.total.isfinite()
    assert losses.total.device.type == device.type
    assert losses.terms
    for term in losses.terms.values():
        assert term.shape == ()
        assert not term.requires_grad
        assert term.isfinite()


def every_parameter_gets_a_gradient(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    run(case.make(), network, inputs, targets).total.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def inputs_get_a_gradient(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    inputs.requires_grad_()
    run(case.make(), network, inputs, targets).total.backward()
    assert inputs.grad.isfinite().all()
    assert inputs.grad.abs().sum() > 0


def without_mixing_it_is_plain_training(case: Case, device: torch.device) -> None:
    """Lambda = 1 and one-hot weights, on images of a single pixel, where a dense method has a single position."""
    network = toy.images(kernel=1).to(device).eval()
    inputs, targets = toy.batch(7, 3, 1, 1, device=device)
    method = dataclasses.replace(case.make(), balanced=False) if case.balanced else case.make()
    with pytest.MonkeyPatch.context() as patch:
        for module in ("mixup", "cutmix", "fmix", "saliencymix", "puzzlemix", "opttransmix"):
            patch.setattr(f"multimix.methods.{module}.beta", lambda n, alpha, **_: torch.ones(n, device=device))
        patch.setattr(TupleSettings, "draw_weights", _one_hot_weights)
        patch.setattr("multimix.methods.zetamixup.zeta_weights", lambda b, *_, **__: torch.eye(b, device=device))
        ours = step(method, network, inputs, targets)
    network.zero_grad()
    logits = network(inputs)
    total = nn.functional.cross_entropy(logits, targets)
    if isinstance(method, SelfDistilled):
        total = 0.3 * total + 0.7 * nn.functional.cross_entropy(logits, logits.detach().softmax(-1))
    total.backward()
    close(ours, (total.detach(), [p.grad for p in network.parameters()]))


def _one_hot_weights(
    self: TupleSettings, b: int, rows: int | None = None, *, like: Tensor, generator: Any = None
) -> Tensor:
    return torch.eye(b, device=like.device)[torch.arange(rows or self.tuples) % b]


def mixed_targets_stay_on_the_simplex(case: Case, device: torch.device) -> None:
    """Seen where every method without an affine head ends, in full precision and under autocast."""
    for dtype in (None, torch.bfloat16):
        network, inputs, targets = images(device=device, affine=False)
        for labels in (targets, toy.soft_targets(7, 5).to(device)):
            seen: list[Tensor] = []
            with pytest.MonkeyPatch.context() as patch:
                _record_targets(patch, seen)
                with torch.autocast(device.type, dtype, enabled=dtype is not None):
                    run(case.make(), network, inputs, labels)
            assert seen
            for mixed in seen:
                assert mixed.min() >= 0
                sums = mixed.double().sum(-1)
                torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)


def _record_targets(patch: pytest.MonkeyPatch, seen: list[Tensor]) -> None:
    from multimix.methods import _predict

    original = _predict.soft_cross_entropy

    def recording(logits: Tensor, targets: Tensor) -> Tensor:
        seen.append(targets.detach())
        return original(logits, targets)

    patch.setattr(_predict, "soft_cross_entropy", recording)


def hard_labels_are_one_hot_probabilities(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    twin = copy.deepcopy(network)
    close(step(case.make(), network, inputs, targets), step(case.make(), twin, inputs, toy.one_hot(targets)))


def classes_have_no_order(case: Case, device: torch.device) -> None:
    """Renaming the classes changes nothing, if the head's rows are renamed with them."""
    network, inputs, targets = images(device=device)
    renamed, names = copy.deepcopy(network), torch.tensor([3, 0, 4, 1, 2], device=device)
    with torch.no_grad():
        renamed.classifier.weight[names] = network.classifier.weight
        renamed.classifier.bias[names] = network.classifier.bias
    ours, theirs = (run(case.make(), n, inputs, t).total for n, t in ((network, targets), (renamed, names[targets])))
    torch.testing.assert_close(ours, theirs)


def any_mini_batch_will_do(case: Case, device: torch.device) -> None:
    for b in (1, 2, 7, 13):
        network, inputs, targets = images(b, device=device)
        total, gradients = step(case.make(), network, inputs, targets)
        assert total.isfinite(), b
        assert all(gradient.isfinite().all() for gradient in gradients), b


def autocast_stays_close(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    total = run(case.make(), copy.deepcopy(network), inputs, targets).total
    with torch.autocast(device.type, torch.bfloat16):
        cast = run(case.make(), network, inputs, targets).total
    cast.backward()
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, total, rtol=0.03, atol=0)
    assert all(p.grad.isfinite().all() for p in network.parameters())


def double_precision_is_kept(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    single = run(case.make(), copy.deepcopy(network), inputs, targets).total
    double = run(case.make(), network.double(), inputs.double(), targets).total
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-4, atol=1e-5)


def memory_format_does_not_matter(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    total = run(case.make(), copy.deepcopy(network), inputs, targets).total
    last = run(case.make(), network, inputs.contiguous(memory_format=torch.channels_last), targets).total
    torch.testing.assert_close(last, total, rtol=1e-4, atol=1e-6)


def no_hook_is_left_behind(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    method = case.make()
    before = hooks(method, network)
    run(method, network, inputs, targets)
    assert hooks(method, network) == before


def no_hook_is_left_behind_by_a_failure(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    method = case.make()

    def fail(embeddings: Tensor) -> Tensor:
        raise RuntimeError("on purpose")

    network.classify = fail
    for seed in range(3):
        with pytest.raises(RuntimeError, match="on purpose"):
            run(method, network, inputs, targets, seed)
    assert hooks(method, network) == 0


def an_affine_head_may_be_unknown(case: Case, device: torch.device) -> None:
    known, unknown = (images(device=device, affine=affine) for affine in (True, False))
    close(step(case.make(), *known), step(case.make(), *unknown))


def feature_vectors_will_do(case: Case, device: torch.device) -> None:
    network = toy.vectors().to(device)
    for b in (1, 7):
        total, gradients = step(case.make(), network, *toy.batch(b, 8, device=device))
        assert total.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients)


def copies_are_as_good(case: Case, device: torch.device) -> None:
    network, inputs, targets = images(device=device)
    network.eval()
    for used in (False, True):
        original = case.make()
        if used:
            run(original, network, inputs, targets)
        ways = {
            "deepcopy": copy.deepcopy,
            "pickle": lambda m: pickle.loads(pickle.dumps(m)),  # noqa: S301
            "replace": dataclasses.replace,
            "fields": lambda m: type(m)(**{f.name: getattr(m, f.name) for f in dataclasses.fields(m)}),
        }
        expected = run(original, network, inputs, targets).total
        for name, way in ways.items():
            twin = way(original)
            if isinstance(twin, Until):
                twin.at(original._progress)
            assert torch.equal(run(twin, network, inputs, targets).total, expected), (name, used)
            assert repr(twin) == repr(original)


def a_look_without_gradient_is_allowed(case: Case, device: torch.device) -> None:
    """As for pictures of what a method does."""
    network, inputs, targets = images(device=device)
    with torch.no_grad():
        assert run(case.make(), network, inputs, targets).total.isfinite()


LAWS = [
    a_look_without_gradient_is_allowed,
    same_state_gives_the_same_step,
    another_state_gives_another_loss,
    arguments_are_left_alone,
    global_randomness_is_spared_given_a_generator,
    global_randomness_serves_without_a_generator,
    total_is_a_finite_scalar,
    every_parameter_gets_a_gradient,
    inputs_get_a_gradient,
    without_mixing_it_is_plain_training,
    mixed_targets_stay_on_the_simplex,
    hard_labels_are_one_hot_probabilities,
    classes_have_no_order,
    any_mini_batch_will_do,
    autocast_stays_close,
    double_precision_is_kept,
    memory_format_does_not_matter,
    no_hook_is_left_behind,
    no_hook_is_left_behind_by_a_failure,
    an_affine_head_may_be_unknown,
    feature_vectors_will_do,
    copies_are_as_good,
]


def applies(law: Callable[[Case, torch.device], None], case: Case) -> bool:
    """Say whether a law is meant for a case."""
    if law is feature_vectors_will_do:
        return case.vectors
    if law is another_state_gives_another_loss and case.name == "co-mixup":
        return False  # the toy network looks at all pixels alike: every output is one whole image, in any order
    if law is without_mixing_it_is_plain_training:
        return case.name not in NEVER_PLAIN
    return not (case.balanced and law is an_affine_head_may_be_unknown)


# --------------------------------------------------------------------------------------------------------- refusals


@dataclass(frozen=True)
class Refusal:
    """A wrong argument, and how it is refused."""

    name: str
    spoil: Callable[[Tensor, Tensor], tuple[Any, Any]]
    """Turns good inputs and targets into bad ones."""
    error: type[Exception]
    message: str


def _relabelled(label: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return lambda x, y: (x, torch.cat([y[:-1], y.new_tensor([label])]))


def _with_pixel(value: float) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def spoil(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone()
        x[3, 1, 2, 2] = value
        return x, y

    return spoil


REFUSALS = [
    Refusal("label-too-large", _relabelled(5), ValueError, r"targets must lie in 0\.\.4 for 5 classes, got 5"),
    Refusal("label-negative", _relabelled(-1), ValueError, r"targets must lie in 0\.\.4 for 5 classes, got -1"),
    Refusal("too-few-targets", lambda x, y: (x, y[:-1]), ValueError, "targets has 6 rows for a mini-batch of 7"),
    Refusal("too-many-targets", lambda x, y: (x[:3], y), ValueError, "targets has 7 rows for a mini-batch of 3"),
    Refusal("columns", lambda x, y: (x, toy.one_hot(y, 6)), ValueError, r"targets .* must have shape \(b, 5\), got"),
    Refusal("float-labels", lambda x, y: (x, y.float()), ValueError, r"targets .* must have shape \(b, 5\), got"),
    Refusal("bool-labels", lambda x, y: (x, y > 2), TypeError, "targets must be class indices or probabilities"),
    Refusal("unnormalised", lambda x, y: (x, 2 * toy.one_hot(y)), ValueError, "targets must have rows that sum to 1"),
    Refusal("label-matrix", lambda x, y: (x, y.unsqueeze(1)), ValueError, r"targets .* must have shape \(b,\)"),
    Refusal("one-label", lambda x, y: (x, y[0]), ValueError, r"targets"),
    Refusal("label-list", lambda x, y: (x, y.tolist()), TypeError, "targets must be a tensor, got list"),
    Refusal("integer-images", lambda x, y: (x.long(), y), TypeError, "inputs must be floating-point, got torch.int64"),
    Refusal("byte-images", lambda x, y: (x.byte(), y), TypeError, "inputs must be floating-point, got torch.uint8"),
    Refusal("nan", _with_pixel(float("nan")), ValueError, "inputs must be finite"),
    Refusal("infinity", _with_pixel(float("inf")), ValueError, "inputs must be finite"),
    Refusal("empty", lambda x, y: (x[:0], y[:0]), ValueError, "inputs must hold at least one example"),
    Refusal("array", lambda x, y: (x.numpy(), y), (TypeError, ValueError), "inputs must be"),
    Refusal("three-views", lambda x, y: ((x, x, x), y), (TypeError, ValueError), "inputs must be"),
]
