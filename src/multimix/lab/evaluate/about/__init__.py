"""The suites, as they describe themselves; reading it needs no torch.

A new suite is a file here, its name in the table, and the class that measures.
"""

from collections.abc import Mapping
from typing import Any

from multimix.lab.evaluate.about.accuracy import ACCURACY
from multimix.lab.evaluate.about.adversarial import ADVERSARIAL
from multimix.lab.evaluate.about.calibration import CALIBRATION
from multimix.lab.evaluate.about.corruption import CORRUPTION
from multimix.lab.evaluate.about.embedding import EMBEDDING
from multimix.lab.evaluate.about.intrusion import INTRUSION
from multimix.lab.evaluate.about.kinds import Description
from multimix.lab.evaluate.about.localisation import LOCALISATION
from multimix.lab.evaluate.about.occlusion import OCCLUSION
from multimix.lab.evaluate.about.ood import OOD

__all__ = ["NOT_METRICS", "SUITES", "metrics_of"]

_ALL = (ACCURACY, CALIBRATION, ADVERSARIAL, OOD, CORRUPTION, OCCLUSION, EMBEDDING, INTRUSION, LOCALISATION)

SUITES: dict[str, Description] = {described.name: described for described in _ALL}
"""Every suite by its name, in the order of the report's sections: command line, records and report read this table."""

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
