"""Out-of-distribution detection: scores of single images, exact metrics, and sets of images from elsewhere."""

from multimix.lab.evaluate.ood.scores import METRICS, SCORES, auroc, fpr95
from multimix.lab.evaluate.ood.suite import OOD, OODSettings

__all__ = ["METRICS", "OOD", "SCORES", "OODSettings", "auroc", "fpr95"]
