"""Calibration: how far a network's confidence is from its accuracy, and what a temperature repairs."""

from multimix.lab.evaluate.calibration.metrics import (
    Reliability,
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
)
from multimix.lab.evaluate.calibration.suite import Calibration, CalibrationSettings
from multimix.lab.evaluate.calibration.temperature import fit_temperature

__all__ = [
    "Calibration",
    "CalibrationSettings",
    "Reliability",
    "brier_score",
    "classwise_calibration_error",
    "expected_calibration_error",
    "fit_temperature",
    "negative_log_likelihood",
    "reliability",
]
