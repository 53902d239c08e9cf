"""What the estimators for tables need beside training: a network, settings of methods, splits, scalers, objectives."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from torch import nn

from multimix.models import adapt
from multimix.ops import BinaryCrossEntropy, CrossEntropy, Objective, SquaredError
from multimix.protocols import Method, Network

T = TypeVar("T")
_KINDS = (CrossEntropy, BinaryCrossEntropy, SquaredError)
_TRAINED: WeakSet[nn.Module] = WeakSet()
"""Modules of users' own that an estimator has trained."""


def perceptron(features: int, outputs: int, hidden: Sequence[int]) -> Network:
    """Return a multi-layer perceptron that can be mixed after every layer; none looks across the mini-batch."""
    layers = [nn.Sequential(nn.Linear(i, o), nn.LayerNorm(o), nn.GELU()) for i, o in pairwise((features, *hidden))]
    head = nn.Linear(hidden[-1] if hidden else features, outputs)
    model = nn.Sequential(OrderedDict(encoder=nn.Sequential(*layers), head=head))
    return adapt(model, encoder="encoder", head="head", stages=[f"encoder.{i}" for i in range(len(layers))])


@contextmanager
def all_or_nothing(estimator: object) -> Iterator[None]:
    """Give an estimator its attributes back if something inside fails."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def settings_of(method: object) -> dict[str, Any]:
    """Return a method's settings by name, those of a method inside it as ``method__name``."""
    if not _has_settings(method):
        return {}
    own = {f.name: getattr(method, f.name) for f in fields(method) if f.init}  # type: ignore[arg-type]
    inner = {f"{name}__{key}": v for name, value in own.items() for key, v in settings_of(value).items()}
    return own | inner


def with_settings(method: Any, settings: dict[str, Any]) -> Any:
    """Return a method with other settings, named as :func:`settings_of` names them; the one given stays as it was.

    Raises:
        ValueError: If it has no setting of a name.
    """
    known = settings_of(method)
    own: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        name, _, rest = key.partition("__")
        if name not in known:
            valid = [name for name in known if "__" not in name]
            raise ValueError(f"Invalid parameter {name!r} for estimator {method!r}. Valid parameters are: {valid!r}.")
        if rest:
            inner.setdefault(name, {})[rest] = value
        else:
            own[name] = value
    for name, values in inner.items():
        own[name] = with_settings(own.get(name, known[name]), values)
    return replace(method, **own)


def as_new(method: T) -> T:
    """Return a method of the same settings, and those inside it, without what they have learned."""
    if isinstance(method, tuple):
        return tuple(map(as_new, method))  # type: ignore[return-value]
    if not _has_settings(method):
        return method
    return replace(method, **{f.name: as_new(getattr(method, f.name)) for f in fields(method) if f.init})  # type: ignore[type-var, arg-type]


def _has_settings(method: object) -> bool:
    return is_dataclass(method) and isinstance(method, Method) and not isinstance(method, type)


def require_new(module: nn.Module) -> None:
    """Raise ValueError if a part of a module has been trained by an estimator before, and note that it is now."""
    parts = {part for part in module.modules() if any(p.requires_grad for p in part.parameters(recurse=False))}
    if parts & set(_TRAINED):
        raise ValueError("network must return a new module at each call, got one that was trained before")
    _TRAINED.update(parts)


def require_variance(network: Any, samples: int, batch_size: int) -> None:
    """Raise ValueError if a single sample is left for the last mini-batch of a network that normalises over it."""
    normalises = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in network.modules())
    if normalises and (samples - 1) % batch_size == 0:
        raise ValueError(
            f"batch_size={batch_size} of {samples} samples leaves a mini-batch of a single one, of which batch"
            " normalisation knows no variance"
        )


def require_values(y: Any) -> None:
    """Raise ValueError if targets lack values: None, or what pandas marks as missing in a series or frame."""
    missing = y.isna() if hasattr(y, "isna") else [value is None for value in np.asarray(y).flat]
    if y is not None and (lacking := int(np.sum(np.asarray(missing)))):
        raise ValueError(f"y must have all its values, got {lacking} that are missing")


def suited(own: Objective, default: Objective) -> Objective:
    """Return what to train a network for: its own objective, if it says so, is to be of the kind of the default.

    Raises:
        ValueError: If it is of another kind, or both have class weights.
    """
    if own == CrossEntropy():
        return default
    if isinstance(own, _KINDS) and not isinstance(own, type(default)):
        raise ValueError(f"network is trained for {own!r}, but y is for {type(default).__name__}")
    weights = getattr(default, "class_weights", None)
    if weights is None:
        return own
    if not isinstance(own, CrossEntropy) or own.class_weights is not None:
        raise ValueError(f"class_weight must be None for a network that is trained for {own!r}")
    return replace(own, class_weights=weights)


def standardiser(name: str, values: NDArray, weights: NDArray | None) -> StandardScaler:
    """Return a scaler that is fitted to columns, whose variance float64 must be able to hold."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaler = StandardScaler().fit(values, sample_weight=weights)
        lost = ~np.isfinite(scaler.scale_) | ((scaler.var_ == 0) & (np.ptp(values, axis=0) > 0))
    if lost.any():
        column = int(lost.argmax())
        raise ValueError(
            f"{name} must have columns whose variance float64 can hold, got values from {values[:, column].min():.3g} "
            f"to {values[:, column].max():.3g} in column {column}"
        )
    return scaler


def by_class(order: NDArray, share: float, classes: NDArray) -> NDArray:
    """Return the rows to hold out, of rows in a random order: of each class its share, but never all of it.

    Args:
        order: All rows, (n,).
        share: How many of them to hold out.
        classes: The class of each row, (n,), every one of which there is.
    """
    labels = classes[order]
    _, first, counts = np.unique(labels, return_index=True, return_counts=True)
    wanted = np.minimum(share * counts, counts - 1)
    taken = wanted.astype(np.int64)
    # what rounding down leaves goes to the largest remainders, of equal ones to the class that comes first
    largest = np.lexsort((first, taken - wanted))
    taken[largest[: round(wanted.sum()) - taken.sum()]] += 1
    rank = np.arange(len(labels)) - np.repeat(counts.cumsum() - counts, counts)
    return order[labels.argsort(kind="stable")[rank < taken.repeat(counts)]]


def by_label(order: NDArray, share: float, labels: NDArray) -> NDArray:
    """Return the rows to hold out, of rows in a random order: none that first has, or lacks, a label."""
    holds = labels[order].astype(bool)
    free = np.delete(order, np.concatenate([holds.argmax(0), (~holds).argmax(0)]))
    return free[: round(share * len(order))]
