"""What a run trains its network for: objectives of ``multimix.ops`` whose weights may follow from the images."""

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from torch import Tensor

from multimix import ops
from multimix.lab.data import Splits, labelled
from multimix.lab.data._sets import UNLABELLED
from multimix.lab.runs.codec import register
from multimix.ops._objectives import Amounts

Balanced = Literal["balanced"]


@register
@dataclass(frozen=True)
class CrossEntropy(ops.CrossEntropy):
    """One class an image: :class:`multimix.ops.CrossEntropy` by the images of the training split."""

    class_weights: Amounts | Balanced | None = None  # type: ignore[assignment]  # a word is allowed, too
    """How much each class counts; balanced: n / (k images of the class), of n images of k classes."""


@register
@dataclass(frozen=True)
class BinaryCrossEntropy(ops.BinaryCrossEntropy):
    """Any number of labels an image: :class:`multimix.ops.BinaryCrossEntropy` by the images of the training split."""

    positive_weights: Amounts | Balanced | None = None  # type: ignore[assignment]
    """How much having each label counts against not having it; balanced: images without it over those with it."""


OBJECTIVES = {CrossEntropy: ops.CrossEntropy, BinaryCrossEntropy: ops.BinaryCrossEntropy}
"""Those for the data of runs, which have classes or labels, and what is made of them; values no data set has."""


def as_settings(objective: object) -> CrossEntropy | BinaryCrossEntropy | None:
    """Return the objective of a configuration as one of those above, None for what the data ask for.

    Raises:
        TypeError: If it is none of them.
    """
    if objective is None or isinstance(objective, tuple(OBJECTIVES)):
        return cast("Any", objective)
    for settings, plain in OBJECTIVES.items():
        if type(objective) is plain:
            return cast("Any", settings)(**vars(objective))
    raise TypeError(
        "objective must be CrossEntropy, BinaryCrossEntropy or None, as data of runs have classes or labels,"
        f" got {objective!r}"
    )


def objective_for(
    settings: CrossEntropy | BinaryCrossEntropy | None, splits: Splits
) -> ops.CrossEntropy | ops.BinaryCrossEntropy:
    """Return the objective of a run in numbers; by default the one that the labels ask for, with nothing to it.

    Raises:
        ValueError: If it is another than the labels ask for, or its weights are not one for each class or label.
    """
    several, k = splits.multi_label, len(splits.classes)
    wanted: Any = BinaryCrossEntropy if several else CrossEntropy
    chosen = wanted() if settings is None else settings
    if not isinstance(chosen, wanted):
        have = "several labels" if several else "one class"
        raise ValueError(
            f"objective must be {wanted.__name__} for data {splits.name}, whose images have {have} each,"
            f" got {type(chosen).__name__}"
        )
    if not several and chosen.ignore_index is None and (splits.train.labels == UNLABELLED).any():
        raise ValueError(
            f"data {splits.name}: images without a class ({UNLABELLED}) need an objective with ignore_index"
        )
    name = "positive_weights" if several else "class_weights"
    weights = getattr(chosen, name)
    if weights == "balanced":
        weights = _balanced(labelled(splits.train).labels, splits.classes)
    elif weights is not None and len(weights) != k:
        of = "labels" if several else "classes"
        raise ValueError(f"objective: {name} must be one number for each of {k} {of}, got {len(weights)}")
    if not several and chosen.ignore_index is not None:  # of data, all images without a class have this label
        chosen = replace(chosen, ignore_index=UNLABELLED)
    return in_numbers(replace(chosen, **{name: weights}))


def in_numbers(settings: CrossEntropy | BinaryCrossEntropy) -> ops.CrossEntropy | ops.BinaryCrossEntropy:
    """Return the objective that settings without words stand for."""
    return cast("Any", OBJECTIVES[type(settings)])(**vars(settings))


def _balanced(labels: Tensor, names: tuple[str, ...]) -> tuple[float, ...]:
    """Return weights by which every class, or having and not having every label, counts alike."""
    counts = labels.sum(0) if labels.ndim == 2 else labels.bincount(minlength=len(names))
    if missing := [name for name, count in zip(names, counts.tolist(), strict=True) if not count]:
        raise ValueError(f"objective: balanced weights need a training image of each class, and {missing[0]} has none")
    of_each = counts.double()
    weights = (len(labels) - of_each) / of_each if labels.ndim == 2 else len(labels) / (len(names) * of_each)
    return tuple(weights.tolist())
