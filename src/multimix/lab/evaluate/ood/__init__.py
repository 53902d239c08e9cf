"""Out-of-distribution detection: scores of single images, exact metrics, and sets of images from elsewhere."""

from multimix.lab.evaluate.ood.metrics import METRICS, aupr_in, aupr_out, auroc, detection_accuracy, fpr95
from multimix.lab.evaluate.ood.scores import KNN, SCORES, Mahalanobis, energy, max_logit, msp, odin
from multimix.lab.evaluate.ood.suite import OOD, OODSettings

__all__ = [
    "KNN",
    "METRICS",
    "OOD",
    "SCORES",
    "Mahalanobis",
    "OODSettings",
    "aupr_in",
    "aupr_out",
    "auroc",
    "detection_accuracy",
    "energy",
    "fpr95",
    "max_logit",
    "msp",
    "odin",
]
