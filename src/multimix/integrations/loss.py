"""MultiMix in a loop of one's own, as the loss in place of cross-entropy."""

import inspect
from dataclasses import fields
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from typing_extensions import TypedDict, Unpack

from multimix._declared import Fraction, check
from multimix.integrations._training import as_method
from multimix.methods import MultiMix
from multimix.methods.multimix import Spread, TuplesOver
from multimix.ops import CrossEntropy, Impl, accurate


class Settings(TypedDict, total=False):
    """The settings of :class:`multimix.MultiMix` as keywords, for type checkers and completion."""

    tuples: int
    tuple_length: int | None
    alpha: float | tuple[float, float] | None
    effective: float | tuple[float, float] | None
    balanced: bool
    balance_power: float
    confidence: float | None
    spread: Spread
    clean: float
    impl: Impl
    tuples_over: TuplesOver


class MultiMixLoss(nn.CrossEntropyLoss):
    """MultiMix in place of ``nn.CrossEntropyLoss``: ``loss = criterion(model(images), targets)``, as before.

    In training mode it is the cross-entropy of interpolated examples, in eval mode torch's own, with the same class
    weights, smoothing and ignored labels. As with dropout, the mode is that of ``train()`` and ``eval()``, of the loss
    itself or of the module that holds it. Interpolating embeddings and interpolating logits are the same wherever the
    classifier is affine (``nn.Linear``, a 1 x 1 convolution), as nearly every one is; the loss cannot see whether it
    is. With any other classifier (a cosine, say, or dropout after it), and for every other method, call the method on
    ``multimix.adapt(model)`` instead.

    By default the gradient is rescaled, so that short training is not slowed down (``balanced``, of
    :class:`multimix.MultiMix`); where plain training over-fits, ``MultiMixLoss(balanced=False)`` regularises more.

    Weights, smoothing and ignored labels mean what they mean in torch: with tuples of one example each, the loss is
    torch's of these examples. An ignored label says nothing in the tuples that hold it, and these count less by as much
    as they hold of it. In training, a mini-batch without any label has the loss 0, where torch has NaN.

    Logits at every position (b, k, d1, ...), with label maps (b, d1, ...), are interpolated with those of the same
    position in other images, every position of a tuple with the same weights; there, an example whose label is ignored
    is in no tuple. Interpolated logits are then held in memory for each tuple and position: use few tuples.

    Randomness is torch's global generator's, as dropout's is, or that of a generator of its own if there is a ``seed``,
    which then goes on from where a checkpoint or a copy left it.

    Args:
        weight: How much each class counts, (k,); a buffer, as in torch.
        method: In place of ``settings``, a ``MultiMix`` or the name of one, such as ``"multimix-balanced"``.
        ignore_index: Class index of examples, or positions, that have no label.
        label_smoothing: Share of a label that is spread over all classes, of probabilities too.
        reduction: ``mean``, the only one there is.
        seed: Of a generator of its own, different in each process of distributed training; None for torch's own.
        **settings: Those of :class:`multimix.MultiMix`, by its names and with its defaults.

    Raises:
        TypeError: If a setting is unknown or of another kind, ``method`` is no MultiMix, or both are given.
        ValueError: If a setting is out of range.

    Reference:
        Venkataramanan et al., "Teach me how to interpolate a myriad of embeddings", arXiv 2206.14868, equations (6) to
        (9).
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        method: MultiMix | str | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        seed: int | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        _check_weight(weight)
        check(int, ignore_index=ignore_index)
        check(Fraction, label_smoothing=label_smoothing)
        check(int | None, seed=seed)
        if reduction != "mean":
            raise ValueError(f"reduction must be 'mean', got {reduction!r}: tuples mix examples; none has its own loss")
        known = [f.name for f in fields(MultiMix)]
        if unknown := [name for name in settings if name not in known]:
            raise TypeError(f"MultiMixLoss has no setting {unknown[0]!r}; beside torch's it has {', '.join(known)}")
        if method is not None and settings:
            raise TypeError(f"give method or settings, not both, got method={method!r} and {', '.join(settings)}")
        chosen = as_method(method) if method is not None else MultiMix(**settings)
        if not isinstance(chosen, MultiMix):
            raise TypeError(
                f"method must be MultiMix, the only one whose loss is one of logits, got {method!r};"
                " call any other on multimix.adapt(model)"
            )
        super().__init__(weight, ignore_index=ignore_index, label_smoothing=label_smoothing)
        self.method, self.seed = chosen, seed
        self.stream = None if seed is None else _Stream(seed)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss, a number in float32, or in float64 for logits in float64.

        Args:
            input: Logits (b, k), or (b, k, d1, ...) at every position.
            target: Class indices, (b,) or (b, d1, ...); or class probabilities in the shape of ``input``.

        Raises:
            TypeError: If either is of another kind.
            ValueError: If shapes do not fit, or labels are out of range.
        """
        _check(input, target, self.weight, self.ignore_index)
        logits = accurate(input)
        target = target.to(logits.dtype) if target.is_floating_point() else target.long()
        weight = None if self.weight is None else self.weight.to(logits.dtype)
        if not self.training:
            return F.cross_entropy(
                logits, target, weight, ignore_index=self.ignore_index, label_smoothing=self.label_smoothing
            )
        generator = None if self.stream is None else self.stream.on(logits.device)
        ignored = self.ignore_index if self._may_ignore(target) else None
        network: Any = _Logits(_Objective(weight, self.label_smoothing, ignored), dense=logits.ndim > 2)
        target = _rows(target) if target.is_floating_point() else target
        return self.method(network, _rows(logits), target, generator=generator).total

    def _may_ignore(self, target: Tensor) -> bool:
        """Return whether some label may be one to ignore; the loss is cheaper where none is."""
        if target.is_floating_point():
            return False
        # Looking for ignored labels is free on the CPU only; elsewhere it would wait for the device.
        free = target.device.type == "cpu" and not torch.compiler.is_compiling()
        return not free or bool((target == self.ignore_index).any())

    def extra_repr(self) -> str:
        """Return the settings that are not the defaults."""
        values = {f: getattr(self.method, f.name) for f in fields(MultiMix)}
        shown = {f.name: value for f, value in values.items() if value != f.default}
        if self.weight is not None:
            shown["weight"] = f"({len(self.weight)},)"
        torchs = {"ignore_index": -100, "label_smoothing": 0.0, "seed": None}
        shown |= {name: getattr(self, name) for name, plain in torchs.items() if getattr(self, name) != plain}
        return ", ".join(f"{name}={value}" for name, value in shown.items())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


# The signature with MultiMix's settings spelt out, for help and notebooks.
_own = [*inspect.signature(MultiMixLoss.__init__).parameters.values()][:-1]
_settings = [p.replace(kind=p.KEYWORD_ONLY) for p in inspect.signature(MultiMix).parameters.values()]
MultiMixLoss.__init__.__signature__ = inspect.Signature([*_own, *_settings])  # type: ignore[attr-defined]


class _Stream(nn.Module):
    """Generators from a seed, one for each device; their state is saved, copied and pickled with the module."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.generators: dict[torch.device, Generator] = {}
        self.saved: dict[str, Any] = {}

    def on(self, device: torch.device) -> Generator:
        if device in self.generators:
            return self.generators[device]
        generator = self.generators[device] = Generator(device)
        saved, rank = self.saved.get(device.type), _rank()
        if saved is None:
            return generator.manual_seed((self.seed + rank) % 2**63)
        generator.set_state(saved.cpu())
        if rank != self.saved["rank"]:
            # one process has written the checkpoint for all, which are not to draw alike from now on
            drawn = torch.randint(2**62, (), generator=generator, device=device)
            generator.manual_seed(int(drawn) + rank)
        return generator

    def get_extra_state(self) -> dict[str, Any]:
        states = {device.type: generator.get_state() for device, generator in self.generators.items()}
        return {"rank": _rank(), **states} if states else self.saved

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.generators, self.saved = {}, state

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "generators": {}, "saved": self.get_extra_state()}


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _Objective(CrossEntropy):
    """Cross-entropy whose class weights are a tensor, which may lie on a GPU and be loaded anew."""

    __setattr__ = object.__setattr__  # of a frozen class, whose own checks would stop a compiler

    def __init__(self, weight: Tensor | None, label_smoothing: float, ignore_index: int | None) -> None:
        self.class_weights = weight  # type: ignore[misc, assignment]  # which the setter above allows
        self.label_smoothing, self.ignore_index = label_smoothing, ignore_index  # type: ignore[misc]

    def weights(self, like: Tensor) -> Tensor | None:
        return self.class_weights  # type: ignore[return-value]


_IDENTITY = nn.Identity()


class _Logits:
    """A network whose embeddings are its logits already: the affine head has been applied, and it is the identity."""

    def __init__(self, objective: _Objective, *, dense: bool) -> None:
        self.objective, self.dense, self.head = objective, dense, _IDENTITY

    def __call__(self, inputs: Tensor) -> Tensor:
        return inputs

    embed = pool = classify = __call__


def _rows(values: Tensor) -> Tensor:
    """Return (b, k) as it is, and (b, k, d1, ...) as (b, r, k)."""
    return values if values.ndim == 2 else values.flatten(2).transpose(1, 2)


def _check_weight(weight: object) -> None:
    if weight is None:
        return
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight must be a tensor (k,) of one number a class, got {weight!r}")
    usable = weight.ndim == 1 and weight.is_floating_point() and (weight.isfinite() & (weight >= 0)).all()
    if not (usable and weight.any()):
        raise ValueError(
            f"weight must be a floating-point tensor (k,), finite and not negative, not all 0, got {weight}"
        )


def _check(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> None:
    if not (isinstance(input, Tensor) and input.is_floating_point()):
        raise TypeError(f"input must be logits, a floating-point tensor, got {_kind(input)}")
    if not isinstance(target, Tensor) or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"target must be a tensor of class indices or probabilities, got {_kind(target)}")
    if input.ndim < 2:
        raise ValueError(f"input must have shape (b, k) or (b, k, d1, ...), got {tuple(input.shape)}")
    soft, labels = target.is_floating_point(), (input.shape[0], *input.shape[2:])
    if tuple(target.shape) != (tuple(input.shape) if soft else labels):
        raise ValueError(
            f"target must be class indices {labels} or floating-point probabilities {tuple(input.shape)},"
            f" got {_kind(target)} {tuple(target.shape)}"
        )
    if soft and ignore_index >= 0:
        raise ValueError(f"ignore_index must be left out for probabilities, as in torch, got {ignore_index}")
    if weight is not None and len(weight) != input.shape[1]:
        raise ValueError(f"weight must hold one number a class, {input.shape[1]}, got {len(weight)}")


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
