"""Evaluation suites: each one an object that holds its data and settings and yields (metric, value) for a network."""

from pkgutil import resolve_name

from multimix.lab import about
from multimix.lab.evaluate.adversarial import Adversarial, AdversarialSettings, fgsm, pgd
from multimix.lab.evaluate.calibration import Accuracy, Calibration, CalibrationSettings
from multimix.lab.evaluate.corruption import Corruption, CorruptionSettings, corrupt
from multimix.lab.evaluate.embedding import Embedding, EmbeddingSettings
from multimix.lab.evaluate.fit import Fit, FitSettings
from multimix.lab.evaluate.intrusion import Intrusion, IntrusionSettings
from multimix.lab.evaluate.localisation import Localisation, LocalisationSettings
from multimix.lab.evaluate.occlusion import Occlusion, OcclusionSettings
from multimix.lab.evaluate.ood import OOD, OODSettings
from multimix.lab.evaluate.passes import predict
from multimix.lab.evaluate.suite import Normalised, Source, Suite, SuiteSettings

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
    "Fit",
    "FitSettings",
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

SUITES: tuple[type[Suite], ...] = tuple(resolve_name(described.measure) for described in about.SUITES.values())
"""Every suite that :mod:`multimix.lab.about` describes, in the order of the report's sections."""
