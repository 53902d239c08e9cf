"""What the laws are tried on: every method, alone and combined, one step of it, and wrong arguments.

``CASES`` takes the methods from the one list, ``METHODS``; ``REFUSALS`` is what every method must name and refuse.
"""

import dataclasses
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import toy
from multimix.distill import SelfDistilled
from multimix.methods import (
    ERM,
    METHODS,
    Alternate,
    CutMix,
    DenseMultiMix,
    ManifoldMixup,
    Mixup,
    MultiMix,
    Ramp,
    RecursiveMix,
    Until,
)
from multimix.protocols import Losses, Method

TUPLES = 35
"""A multiple of the mini-batch of 7 that most laws use."""


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
    wanted = {"tuples": TUPLES, "prob": 1.0, "learning_rate": 0.0}
    return {f.name: wanted[f.name] for f in dataclasses.fields(cls) if f.name in wanted}


def until(progress: float) -> Until:
    """Return mixup or, late in training, nothing."""
    method = Until(Mixup(), 0.5)
    method.at(progress)
    return method


def distilled(cls: type, teacher: str) -> SelfDistilled:
    """Return a method with its own moving average as a teacher, and a gradient that is that of the equations."""
    unbalanced = {"balanced": False} if cls is MultiMix else {}
    return SelfDistilled(cls(**settings_of(cls), **unbalanced), gamma=0.3, teacher=teacher)


def _cases() -> list[Case]:
    single = [
        Case(
            cls.name,
            lambda cls=cls: cls(**settings_of(cls)),
            cls not in (ERM, RecursiveMix),  # which begins with a plain step
            not getattr(cls, "needs_images", False),
            getattr(cls, "balanced", False),
        )
        for cls in METHODS
    ]
    taught = [
        Case(
            f"{reading}-{cls.name}",
            lambda cls=cls, reading=reading: distilled(cls, reading),
            cls is not ERM,
            not getattr(cls, "needs_images", False),
        )
        for cls in (ERM, CutMix, ManifoldMixup, MultiMix, DenseMultiMix)
        for reading in ("predict", "mix")
    ]
    nested = [
        Case("alternate", lambda: Alternate((MultiMix(TUPLES, balanced=False, alpha=(0.5, 2.0)), Mixup(alpha=2.0)))),
        Case("until-before", lambda: until(0.2)),
        Case("until-after", lambda: until(0.7), random=False),
        Case(
            "predict-alternate",
            lambda: SelfDistilled(Alternate((MultiMix(TUPLES, balanced=False), Mixup()), (0.3, 0.7)), 0.3),
        ),
        Case("ramp", lambda: Ramp(Mixup(), (0.6, 1.0), ("alpha", 0.5, 2.0))),
        Case("mix-until", lambda: SelfDistilled(until(0.2), 0.3, teacher="mix")),
    ]
    tuned = [
        Case("multimix-all", lambda: MultiMix(TUPLES, tuple_length=3, effective=(1.5, 4.0)), balanced=True),
        Case(
            "dense-all",
            lambda: DenseMultiMix(
                TUPLES, tuple_length=3, alpha=0.1, activation="softmax", shared=True, detach=False, balanced=True
            ),
            balanced=True,
        ),
        Case("cutmix-never", lambda: CutMix(prob=0.0), random=False, vectors=False),
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


def pickled(value: Any) -> Any:
    """Return what pickle makes of a value; torch 2.4 warns of itself where it loads tensors."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using `torch.load`", FutureWarning)
        return pickle.loads(pickle.dumps(value))  # noqa: S301


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
