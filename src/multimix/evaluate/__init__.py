"""Evaluation suites: each one an object that holds its data and yields (metric, value) for a network."""

from multimix.evaluate.accuracy import Accuracy
from multimix.evaluate.predict import predict

SUITES = (Accuracy,)
"""Every suite: command line and report take them from here."""

__all__ = ["SUITES", "Accuracy", "predict"]
