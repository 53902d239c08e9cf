"""Evaluation suites: each one an object that holds its data and settings and yields (metric, value) for a network."""

from multimix.evaluate.accuracy import Accuracy
from multimix.evaluate.pixels import Normalised
from multimix.evaluate.predict import predict
from multimix.evaluate.source import Source
from multimix.evaluate.suite import Suite, SuiteSettings

SUITES: tuple[type[Suite], ...] = (Accuracy,)
"""Every suite: command line and report take them from here."""

__all__ = ["SUITES", "Accuracy", "Normalised", "Source", "Suite", "SuiteSettings", "predict"]
