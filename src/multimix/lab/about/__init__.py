"""The suites, as they describe themselves; needs no torch. A new suite is a file here and the class that it names."""

from collections.abc import Container, Mapping
from importlib import import_module
from pkgutil import iter_modules
from sys import float_info
from typing import Any, TypeGuard

from multimix.lab.about.kinds import Description, Metric

_FIRST = "accuracy calibration adversarial ood corruption occlusion embedding intrusion localisation"
_FILES = [file.name for file in iter_modules(__path__) if file.name != "kinds"]
_NAMES = dict.fromkeys([*_FIRST.split(), *_FILES])  # a new suite comes behind these
SUITES: dict[str, Description] = {name: import_module(f"{__name__}.{name}").ABOUT for name in _NAMES}
"""Every suite by its name, in the order of the report's sections."""

NOT_METRICS = frozenset(
    {"event", "suite", "split", "network", "epoch", "epochs", "step", "examples", "seed", "n", "label", "method"}
    | {"data", "model", "config", "settings", "weights", "batch_size", "seconds", "date", "commit"}
    | {"device", "threads", "python", "torch", "multimix", "notes"}
)
"""What a record says of a measurement; every other number in it is a metric."""


_JUDGES = ("accuracy", "nll"), ("mean_average_precision", "bce")
"""How right and how costly predictions are: of one class an image, and of several labels."""


def judged_by(names: Container[str], prefix: str = "") -> tuple[Metric, ...]:
    """Return the two metrics that a network is judged by, those among names with a prefix; none if none is there."""
    pair = next((pair for pair in _JUDGES if prefix + pair[0] in names), ())
    return tuple(known for name in pair for known in SUITES["accuracy"].metrics if known.name == name)


def metrics_of(record: Mapping[str, Any], *besides: str) -> dict[str, float]:
    """Return the metrics of a record, by name; ``besides`` are metrics too."""
    return {
        name: value
        for name, value in record.items()
        if (name in besides or name not in NOT_METRICS) and is_number(value)
    }


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value of a record is a number, which no whole number beyond the largest float is here."""
    return isinstance(value, float) or (type(value) is int and abs(value) <= float_info.max)
