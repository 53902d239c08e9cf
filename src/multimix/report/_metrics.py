"""What is known of the metrics: titles, units, which way is better, and what each of them means."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from multimix.report._text import clean


@dataclass(frozen=True)
class Metric:
    """How a metric is shown, and what it means."""

    name: str
    """The name in the records."""
    title: str
    """The name for people."""
    meaning: str
    """One sentence."""
    unit: str = ""
    """Unit as shown, after ``factor``."""
    better: Literal["higher", "lower"] | None = None
    """Which values are better; None where nobody can say."""
    factor: float = 1.0
    """From the record's unit to the shown one."""
    digits: int | None = None
    """Decimals as shown; None chooses them by the size of the values."""

    @property
    def quantity(self) -> str:
        """Title and unit, for an axis."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def heading(self) -> str:
        """Title, unit and an arrow in the better direction, for a column."""
        arrow = {"higher": " ↑", "lower": " ↓", None: ""}[self.better]
        return self.quantity + arrow


_QUALITY = (
    Metric(
        name="accuracy",
        title="Accuracy",
        meaning="Share of examples whose most probable class is the true one.",
        unit="%",
        better="higher",
        factor=100.0,
        digits=1,
    ),
    Metric(
        name="nll",
        title="NLL",
        meaning="Negative log-likelihood (cross-entropy, in nats) of the true class, mean over examples.",
        better="lower",
        digits=3,
    ),
    Metric(
        name="ece",
        title="ECE",
        meaning="Expected calibration error: gap between confidence and accuracy, mean over bins of confidence "
        "weighted by their examples.",
        unit="%",
        better="lower",
        factor=100.0,
        digits=1,
    ),
)
_COST = (
    Metric(
        name="step_seconds",
        title="Step",
        meaning="Training time divided by the number of mini-batches.",
        unit="ms",
        better="lower",
        factor=1000.0,
    ),
    Metric(
        name="seconds",
        title="Training",
        meaning="Wall-clock time of training, without validation and test.",
        unit="s",
        better="lower",
    ),
    Metric(
        # No direction: of runs in one process, the later ones show the earlier ones' peak.
        name="peak_mib",
        title="Peak memory",
        meaning="Most memory held: the device's on a GPU, else the process's; earlier runs of the same process count.",
        unit="MiB",
        digits=0,
    ),
)
_TRAINING = (
    Metric(
        name="train_loss",
        title="Training loss",
        meaning="What the method minimises, mean over an epoch.",
        better="lower",
        digits=3,
    ),
)
KNOWN = {metric.name: metric for metric in (*_QUALITY, *_COST, *_TRAINING)}
_OF = {
    "teacher": "Of the teacher, whose weights are a running average.",
    "ema": "Of the network with the running average of the weights.",
    "validation": "On the validation split.",
}


def metric(name: str) -> Metric:
    """Return what is known of a metric.

    ``teacher_accuracy`` and the like take unit and direction from the metric they end with; a name that is wholly
    unknown is shown as it is, without a direction.
    """
    if name in KNOWN:
        return KNOWN[name]
    for base in _QUALITY:
        prefix = name.removesuffix(f"_{base.name}")
        if prefix != name:
            return _derived(name, prefix, base)
    return Metric(name, clean(name), "Not described by this version of MultiMix; shown as recorded.")


def _derived(name: str, prefix: str, base: Metric) -> Metric:
    words = clean(prefix.replace("_", " "))
    start = "EMA" if words == "ema" else words[:1].upper() + words[1:]
    title = f"{start} {base.title if base.title.isupper() else base.title.lower()}"
    return replace(base, name=name, title=title, meaning=f"{base.meaning} {_OF.get(prefix, f'Under: {words}.')}")


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return metric names as columns stand: quality first, then whatever else was measured, then cost."""
    first, last = [m.name for m in _QUALITY], [m.name for m in (*_TRAINING, *_COST)]

    def place(name: str) -> tuple[int, int, str]:
        if name in first:
            return 0, first.index(name), name
        return (2, last.index(name), name) if name in last else (1, 0, name)

    return tuple(sorted(set(names), key=place))


def decimals(shown: Metric, values: Iterable[float]) -> int:
    """Return the decimals for values in the shown unit: the metric's own, else three significant digits."""
    if shown.digits is not None:
        return shown.digits
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest == 0.0:
        return 0
    return min(max(2 - math.floor(math.log10(largest)), 0), 8)
