"""What the estimators refuse, in one line that names the setting or the data."""

import numpy as np
import pytest
import torch
from torch import nn

import multimix as mm
from integrations.rows import blobs, several
from multimix.integrations.sklearn import MultiMixClassifier, MultiMixRegressor


def network_of(outputs, objective=None, *, inputs=None, first=nn.Identity):
    def make(features, _):
        layers = nn.Linear(inputs or features, 4), nn.ReLU(), nn.Linear(4, outputs)
        return mm.adapt(nn.Sequential(first(), *layers), objective=objective)

    return {"network": make}


ONCE = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
MultiMixClassifier(network=lambda f, c: ONCE, epochs=1).fit(*blobs())
WEIGHTED = mm.CrossEntropy((1, 2, 3))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"hidden": 3}, TypeError, "hidden must be a tuple of integers, got 3"),
        ({"hidden": (0,)}, ValueError, "hidden must hold values that each must be at least 1"),
        ({"method": "mixupp"}, ValueError, "unknown method 'mixupp'; did you mean"),
        ({"method": mm.MultiMix}, TypeError, "method must be a method"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"batch_size": 1.5}, TypeError, "batch_size must be an integer, got 1.5"),
        ({"patience": 0}, ValueError, "patience must be at least 1, got 0"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate must be above 0 and finite, got nan"),
        ({"weight_decay": -1}, ValueError, "weight_decay must be at least 0, got -1"),
        ({"validation": 1.0}, ValueError, r"validation must lie in \[0, 1\), got 1.0"),
        ({"validation": 0.001}, ValueError, "validation=0.001 of 90 samples leaves none on one side"),
        ({"device": "abacus"}, ValueError, "device must be 'auto' or a torch device such as 'cpu', got 'abacus'"),
        ({"device": "cuda:1"}, ValueError, "device 'cuda:1' is not there: torch sees no CUDA device"),
        ({"learning_rate": 1e30}, ValueError, "training diverged in epoch 2, the loss is nan; lower learning_rate"),
        ({"validation": 0.3, "learning_rate": 1e30}, ValueError, "training diverged in epoch .* of held-out examples"),
        (
            {"class_weight": "balance"},
            ValueError,
            "class_weight must be None, 'balanced' or a dict of classes, got 'b",
        ),
        ({"class_weight": {0: 1, 7: 2}}, ValueError, r"class_weight must be of classes of y, \[0, 1, 2\], got \[7\]"),
        ({"class_weight": {1: 0}}, ValueError, r"class_weight\[1\] must be above 0 and finite, got 0"),
        ({"network": nn.Linear(5, 3)}, TypeError, r"network must be a function \(features, outputs\) -> torch"),
        ({"network": lambda f, c: 1}, TypeError, r"network must return a torch\.nn\.Module, got int"),
        ({"network": lambda f, c: ONCE}, ValueError, "network must return a new module at each call, got one that was"),
        (network_of(4), ValueError, r"network must return 3 outputs a row, \(90, 3\), got \(90, 4\)"),
        (network_of(3, inputs=7), ValueError, r"network must take rows \(90, 5\) in float32: mat1"),
        (network_of(3, mm.SquaredError()), ValueError, "network is trained for SquaredError.* but y is for"),
        (
            network_of(3, WEIGHTED) | {"class_weight": {0: 2}},
            ValueError,
            "class_weight must be None for a network that",
        ),
        (
            network_of(3, first=lambda: nn.BatchNorm1d(5)) | {"batch_size": 89},
            ValueError,
            "batch_size=89 of 90 samples leaves a mini-batch of a single one, of which batch normalisation",
        ),
        ({"method": mm.CutMix()}, ValueError, "inputs must be"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_settings_are_named(settings, error, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(error, match=message):
        MultiMixClassifier(**settings).fit(*blobs())


LABELS = several(blobs()[1])


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("estimator", "data", "message"),
    [
        (MultiMixClassifier(), {"y": LABELS + 1}, "y must hold 0 and 1 only where it has several columns, one a label"),
        (MultiMixClassifier(), {"y": LABELS * 0.5}, "y must hold 0 and 1 only where it has several columns"),
        (MultiMixClassifier(), {"y": LABELS.astype(str)}, "y must hold 0 and 1 only where it has several columns"),
        (MultiMixClassifier(), {"y": np.where(LABELS, np.nan, 0)}, "Input y contains NaN"),
        (MultiMixClassifier(class_weight="balanced"), {"y": LABELS}, "class_weight must be None where y has several"),
        (
            MultiMixClassifier(method=mm.MultiMix(confidence=0.9)),
            {"y": LABELS},
            "confidence must be None for BinaryCrossEn",
        ),
        (
            MultiMixRegressor(method=mm.MultiMix(confidence=0.9)),
            {"y": LABELS},
            "confidence must be None for SquaredErr",
        ),
        (MultiMixClassifier(), {"y": np.where(LABELS[:, 0], "a", None)}, "y must have all its values, got 60 that are"),
        (MultiMixClassifier(), {"y": np.array(["a", 1] * 45, object)}, "y must hold classes of one kind, got int, str"),
        (MultiMixRegressor(), {"y": ["a"] * 90}, "y must hold numbers: could not convert string to float: .*'a'"),
        (MultiMixClassifier(), {"x": 1e200 * blobs()[0]}, "X must have columns whose variance float64 can hold"),
        (MultiMixRegressor(), {"x": 1e-200 * blobs()[0]}, "X must have columns whose variance float64 can hold"),
        (MultiMixRegressor(), {"y": 1e200 * blobs()[0]}, "y must have columns whose variance float64 can hold"),
        (MultiMixClassifier(), {"weights": -np.ones(90)}, "Negative values in data passed to `sample_weight`"),
        (MultiMixClassifier(), {"weights": blobs()[1] == 1}, "y must hold at least 2 classes, got 1 class: 1"),
        (MultiMixClassifier(validation=0.5), {"x": np.eye(2), "y": [0, 1]}, "validation=0.5 of 2 samples leaves none"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_data_that_cannot_be_used_are_named(estimator, data, message):
    x, y = blobs()
    with pytest.raises(ValueError, match=message):
        estimator.fit(data.get("x", x), data.get("y", y), data.get("weights"))
