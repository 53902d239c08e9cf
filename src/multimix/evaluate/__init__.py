"""Evaluation suites: each one an object that holds its data and settings and yields (metric, value) for a network."""

from multimix.evaluate.accuracy import Accuracy
from multimix.evaluate.adversarial import Adversarial, AdversarialSettings, fgsm, pgd
from multimix.evaluate.calibration import Calibration, CalibrationSettings
from multimix.evaluate.corruption import Corruption, CorruptionSettings, corrupt
from multimix.evaluate.embedding import Embedding, EmbeddingSettings
from multimix.evaluate.intrusion import Intrusion, IntrusionSettings
from multimix.evaluate.localisation import Localisation, LocalisationSettings
from multimix.evaluate.occlusion import Occlusion, OcclusionSettings
from multimix.evaluate.ood import OOD, OODSettings
from multimix.evaluate.pixels import Normalised
from multimix.evaluate.predict import predict
from multimix.evaluate.source import Source
from multimix.evaluate.suite import Suite, SuiteSettings

SUITES: tuple[type[Suite], ...] = (
    Accuracy,
    Calibration,
    Adversarial,
    OOD,
    Corruption,
    Occlusion,
    Embedding,
    Intrusion,
    Localisation,
)
"""Every suite: command line and report take them from here."""

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
