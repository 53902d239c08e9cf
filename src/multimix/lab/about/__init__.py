"""The suites, as they describe themselves; needs no torch. A new suite is a file here and the class that it names."""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from multimix.lab.about.kinds import Description

_FIRST = "accuracy calibration adversarial ood corruption occlusion embedding intrusion localisation"
_FILES = [file.name for file in iter_modules(__path__) if file.name != "kinds"]
_NAMES = dict.fromkeys([*_FIRST.split(), *_FILES])  # a new suite comes behind these
SUITES: dict[str, Description] = {name: import_module(f"{__name__}.{name}").ABOUT for name in _NAMES}
"""Every suite by its name, in the order of the report's sections."""

NOT_METRICS = frozenset(
    {"event", "suite", "split", "network", "epoch", "epochs", "step", "examples", "seed", "n", "label", "method"}
    | {"data", "model", "config", "settings", "weights", "batch_size", "seconds", "date", "commit"}
    | {"device", "threads", "python", "torch", "multimix"}
)
"""What a record says of a measurement; every other number in it is a metric."""


def metrics_of(record: Mapping[str, Any], *besides: str) -> dict[str, float]:
    """Return the metrics of a record, by name; ``besides`` are metrics too."""
    return {
        name: value
        for name, value in record.items()
        if (name in besides or name not in NOT_METRICS)
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    }
