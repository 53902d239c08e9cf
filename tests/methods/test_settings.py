"""Settings that no method can have, one for each field that is checked."""

import dataclasses
import math

import pytest

from multimix import methods

POSITIVE, WEIGHT, FRACTION, COUNT = (
    (0.0, r"must be above 0 and finite, got 0\.0"),
    (math.inf, "must be at least 0 and finite, got inf"),
    (1.5, r"must lie in \[0, 1\], got 1\.5"),
    (0, "must be at least 1, got 0"),
)
MODE = ("example", "must be one of batch, pair, elem, got 'example'")
TUPLES = {
    "tuples": COUNT,
    "tuple_length": COUNT,
    "alpha": POSITIVE,
    "effective": (1.0, r"must be above 1\.0 and finite, got 1\.0"),
    **dict.fromkeys(("balance_power", "clean"), FRACTION),
    "confidence": (1.0, r"must lie in \(0, 1\), got 1\.0"),
    "spread": ("log", "must be one of uniform, log-uniform, got 'log'"),
    "impl": ("fast", "must be one of auto, plain, commuted, fused, got 'fast'"),
}
RANGES = {
    methods.Mixup: {"alpha": POSITIVE, "mode": MODE},
    methods.CutMix: {"alpha": POSITIVE, "prob": FRACTION, "mode": MODE},
    methods.ManifoldMixup: {"alpha": POSITIVE, "stages": ((), r"must hold at least 1, got \(\)")},
    methods.MultiMix: TUPLES,
    methods.DenseMultiMix: {
        **TUPLES,
        "query": ("max", "must be one of gap, cam, uniform, got 'max'"),
        "activation": ("tanh", "must be one of relu, softmax, got 'tanh'"),
    },
    methods.AdaMixUp: {"held_out": (1.0, r"must lie in \[0, 1\), got 1\.0"), "width": COUNT},
    methods.AlignMix: {
        "alpha": POSITIVE,
        "prob": FRACTION,
        "epsilon": POSITIVE,
        "iterations": COUNT,
        "tolerance": (-0.1, r"must be at least 0, got -0\.1"),
    },
    methods.AutoMix: {
        "alpha": POSITIVE,
        "distance_weight": WEIGHT,
        "share": (0.0, r"must lie in \(0, 1\], got 0\.0"),
        "width": COUNT,
        "channels": COUNT,
    },
    methods.CoMixup: {
        "alpha": POSITIVE,
        **dict.fromkeys(("beta", "gamma", "tau", "eta", "clean"), WEIGHT),
        "omega": FRACTION,
        **dict.fromkeys(("grid", "part", "iterations"), COUNT),
    },
    methods.FMix: {"alpha": POSITIVE, "decay": WEIGHT},
    methods.OptTransMix: {"alpha": POSITIVE, "epsilon": POSITIVE, "iterations": COUNT},
    methods.PuzzleMix: {
        "alpha": POSITIVE,
        "labels": (1, "must be at least 2, got 1"),
        **dict.fromkeys(("beta", "gamma", "eta", "transport_eps", "adversarial_eps", "clean"), WEIGHT),
        "grids": ((), r"must hold at least 1, got \(\)"),
        "patch": COUNT,
        "transport_size": COUNT,
        "adversarial": FRACTION,
    },
    methods.ResizeMix: {
        "scales": ((0.8, 0.1), r"must be \(low, high\) with low <= high, got"),
        "interpolation": ("cubic", "must be one of nearest, bilinear, got 'cubic'"),
    },
    methods.SaliencyMix: {
        "alpha": POSITIVE,
        "prob": FRACTION,
        "levels": ((1.0, 0.0), r"must be None or \(black, white\) with black < white"),
    },
    methods.StyleMix: {
        "alpha1": POSITIVE,
        "prob": FRACTION,
        "r": FRACTION,
        "encoder": ("vgg.pth", "and decoder must be given together"),
        "size": COUNT,
        "learning_rate": WEIGHT,
        "warmup": (-1, "must be at least 0, got -1"),
    },
    methods.StyleCutMix: {
        "alpha1": POSITIVE,
        "alpha2": POSITIVE,
        "prob": FRACTION,
        "delta": POSITIVE,
        "gamma": ("fixed", "must be one of beta, auto, got 'fixed'"),
    },
    methods.SuperMix: {
        "images": (1, "must be at least 2, got 1"),
        "alpha": POSITIVE,
        **dict.fromkeys(("side", "iterations"), COUNT),
        **dict.fromkeys(("sparsity", "sigma"), WEIGHT),
        "tolerance": FRACTION,
    },
    methods.ZetaMixup: {"gamma": POSITIVE},
}
CASES = [(cls, name, *case) for cls, fields in RANGES.items() for name, case in fields.items()]
FURTHER = [
    (methods.ManifoldMixup, "stages", (-1, 0), "must hold values that each must be at least 0"),
    (methods.MultiMix, "alpha", (2.0, 0.5), "must be a range .* with low <= high"),
    (methods.ResizeMix, "scales", (-0.1, 0.5), r"must hold values that each must lie in \[0, 1\]"),
    (methods.ResizeMix, "scales", (0.5,), "must hold 2 values"),
    (methods.SaliencyMix, "levels", (0.0,), "must hold 2 values"),
    (methods.SaliencyMix, "levels", (0.0, math.inf), "must be None or"),
    (methods.FMix, "decay", -1.0, r"must be at least 0 and finite, got -1\.0"),
    (methods.PuzzleMix, "grids", (0, 2), "must hold values that each must be at least 1"),
    (methods.StyleCutMix, "gamma", 1.1, r"must lie in \[0, 1\], got 1\.1"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize(("cls", "name", "value", "message"), CASES + FURTHER)
def test_impossible_settings_are_refused(cls, name, value, message):
    with pytest.raises(ValueError, match=f"^{name} {message}"):
        cls(**{name: value})


@pytest.mark.bad_input
def test_settings_that_rule_one_another_out_are_refused():
    with pytest.raises(ValueError, match="size must be at least 16 with files of weights, got 8"):
        methods.StyleMix(size=8, encoder="a", decoder="b")
    with pytest.raises(ValueError, match="give alpha or effective, not both, got alpha="):
        methods.MultiMix(alpha=1.0, effective=2.0)
    with pytest.raises(TypeError, match="tuples must be an integer, got 10"):
        methods.MultiMix(10.5)


DEFAULTS = {
    methods.Mixup: (1.0, "batch"),
    methods.CutMix: (1.0, 1.0, "batch"),
    methods.ManifoldMixup: (2.0, (0, 1, 2)),
    methods.MultiMix: (1000, None, None, None, False, 1.0, None, "uniform", 0.0, "auto"),
    methods.AdaMixUp: (0.5, None),
    methods.AlignMix: (2.0, 0.5, 0.1, 100, 0.1),
    methods.AutoMix: (1.0, 1.5, 0.5, 16, None),
    methods.CoMixup: (2.0, 0.32, 1.0, 0.83, 0.05, 0.001, 4, 20, 4, False, 1.0),
    methods.FMix: (1.0, 3.0),
    methods.OptTransMix: (1.0, 0.004, 50),
    methods.PuzzleMix: (1.0, 3, 1.2, 0.5, 0.2, (2, 4, 8, 16), 4, True, 0.8, 4, 0.0, 10.0, 0.0),
    methods.ResizeMix: ((0.1, 0.8), "nearest"),
    methods.SaliencyMix: (1.0, 1.0, None),
    methods.StyleMix: (0.2, 0.7, 0.5, None, None, None, 0.005, 50),
    methods.StyleCutMix: (0.5, 0.7, 1.0, None, None, None, 0.005, 50, 0.8, "beta", 3.0),
    methods.SuperMix: (None, 2, 3.0, 8, 25.0, 1.0, 50, 0.3),
    methods.ZetaMixup: (2.8,),
}
"""Those of the papers and their code, in the order of the fields."""


@pytest.mark.parametrize("cls", DEFAULTS, ids=lambda cls: cls.name)
def test_defaults_are_those_of_the_authors(cls):
    assert tuple(getattr(cls(), field.name) for field in dataclasses.fields(cls)) == DEFAULTS[cls]
