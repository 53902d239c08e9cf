"""Evaluation suites: each one an object that holds its data and settings and yields (metric, value) for a network.

Every name loads on first use, so that what the suites say of themselves, in ``multimix.lab.evaluate.about``, waits for
no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from multimix.lab.evaluate import about

if TYPE_CHECKING:
    from multimix.lab.evaluate.adversarial import Adversarial, AdversarialSettings, fgsm, pgd
    from multimix.lab.evaluate.calibration import Accuracy, Calibration, CalibrationSettings
    from multimix.lab.evaluate.corruption import Corruption, CorruptionSettings, corrupt
    from multimix.lab.evaluate.embedding import Embedding, EmbeddingSettings
    from multimix.lab.evaluate.intrusion import Intrusion, IntrusionSettings
    from multimix.lab.evaluate.localisation import Localisation, LocalisationSettings
    from multimix.lab.evaluate.occlusion import Occlusion, OcclusionSettings
    from multimix.lab.evaluate.ood import OOD, OODSettings
    from multimix.lab.evaluate.passes import predict
    from multimix.lab.evaluate.suite import Normalised, Source, Suite, SuiteSettings

    SUITES: tuple[type[Suite], ...]
    """Every suite, in the order of ``about.SUITES``."""

_HOMES = {
    "adversarial": ("Adversarial", "AdversarialSettings", "fgsm", "pgd"),
    "calibration": ("Accuracy", "Calibration", "CalibrationSettings"),
    "corruption": ("Corruption", "CorruptionSettings", "corrupt"),
    "embedding": ("Embedding", "EmbeddingSettings"),
    "intrusion": ("Intrusion", "IntrusionSettings"),
    "localisation": ("Localisation", "LocalisationSettings"),
    "occlusion": ("Occlusion", "OcclusionSettings"),
    "ood": ("OOD", "OODSettings"),
    "passes": ("predict",),
    "suite": ("Normalised", "Source", "Suite", "SuiteSettings"),
}

__all__ = [
    "OOD",
    "SUITES",
    "Accuracy",
    "Adversarial",
    "AdversarialSettings",
    "Calibration",
    "CalibrationSettings",
    "Corruption",
    "CorruptionSettings",
    "Embedding",
    "EmbeddingSettings",
    "Intrusion",
    "IntrusionSettings",
    "Localisation",
    "LocalisationSettings",
    "Normalised",
    "OODSettings",
    "Occlusion",
    "OcclusionSettings",
    "Source",
    "Suite",
    "SuiteSettings",
    "corrupt",
    "fgsm",
    "pgd",
    "predict",
]


def __getattr__(name: str) -> Any:
    if name == "SUITES":
        return tuple(__getattr__(described.suite) for described in about.SUITES.values())
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"multimix.lab.evaluate.{home}"), name)
    raise AttributeError(f"module 'multimix.lab.evaluate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "about"]
