"""Settings: what no method can have, and what it has by default."""

import dataclasses
import math

import pytest

from multimix import methods


@pytest.mark.bad_input
@pytest.mark.parametrize("cls", methods.METHODS, ids=lambda cls: cls.name)
def test_what_is_out_of_range_is_refused_by_the_name_of_the_field(cls):
    ranges = pytest.importorskip("fuzz.ranges")  # of all configurations, those of the command line too
    for name, value in ranges.refused(cls) if cls is not methods.ERM else ():
        with pytest.raises((TypeError, ValueError), match=f"^{name} must "):
            cls(**{**ranges.CONFIGS[cls], name: value})


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (methods.ManifoldMixup, {"stages": (-1, 0)}, "stages must hold values that each must be at least 0"),
        (methods.MultiMix, {"alpha": (2.0, 0.5)}, "alpha must be a range .* with low <= high"),
        (methods.MultiMix, {"effective": 1.0}, r"effective must be above 1\.0 and finite, got 1\.0"),
        (methods.MultiMix, {"alpha": 1.0, "effective": 2.0}, "give alpha or effective, not both, got alpha="),
        (methods.ResizeMix, {"scales": (0.8, 0.1)}, r"scales must be \(low, high\) with low <= high, got"),
        (methods.SaliencyMix, {"levels": (1.0, 0.0)}, r"levels must be None or \(black, white\) with black < white"),
        (methods.SaliencyMix, {"levels": (0.0, math.inf)}, "levels must be None or"),
        (methods.StyleMix, {"encoder": "vgg.pth"}, "encoder and decoder must be given together"),
        (methods.StyleMix, {"size": 8, "encoder": "a", "decoder": "b"}, "size must be at least 16 .*, got 8"),
        (methods.StyleCutMix, {"gamma": "fixed"}, "gamma must be one of beta, auto, got 'fixed'"),
    ],
)
def test_impossible_settings_are_refused(cls, settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        cls(**settings)


DEFAULTS = {
    methods.Mixup: (1.0, "batch"),
    methods.CutMix: (1.0, 1.0, "batch"),
    methods.ManifoldMixup: (2.0, (0, 1, 2)),
    methods.MultiMix: (1000, None, None, None, True, 1.0, None, "uniform", 0.0, "auto", "all"),
    methods.AdaMixUp: (0.5, None),
    methods.AlignMix: (2.0, 0.5, 0.1, 100, 0.1),
    methods.AttentiveMix: (None, 6, None),
    methods.AutoMix: (1.0, 1.5, 0.5, 16, None),
    methods.CMixup: (2.0, 1.0),
    methods.CoMixup: (2.0, 0.32, 1.0, 0.83, 0.05, 0.001, 4, 20, 4, False, 1.0),
    methods.DecoupledMixup: (methods.Mixup(), 0.1, "soft"),
    methods.FMix: (1.0, 3.0),
    methods.GridMix: (1.0, 4),
    methods.GuidedMixup: ("spectral", 1.0, 3.0),
    methods.KernelWarpingMixup: (1.0, 0.25, "embedding"),
    methods.MixupIO: (0.2, "batch"),
    methods.MixupPath: (5, 1.0, "batch"),
    methods.OptTransMix: (1.0, 0.004, 50),
    methods.PuzzleMix: (1.0, 3, 1.2, 0.5, 0.2, (2, 4, 8, 16), 4, True, 0.8, 4, 0.0, 10.0, 0.0),
    methods.RegMixup: (20.0, "batch", 1.0),
    methods.RecursiveMix: (0.5, 0.1),
    methods.ResizeMix: ((0.1, 0.8), "nearest"),
    methods.AugMix: (3.0, 3, None, 1.0, 12.0, None, None),
    methods.SaliencyMix: (1.0, 1.0, None),
    methods.SMMix: ((0.25, 0.75), 1.0, 1.0),
    methods.SmoothMix: ((0.25, 0.5),),
    methods.SnapMix: (5.0, 1.0, True),
    methods.StyleMix: (0.2, 0.7, 0.5, None, None, None, 0.005, 50),
    methods.StyleCutMix: (0.5, 0.7, 1.0, None, None, None, 0.005, 50, 0.8, "beta", 3.0),
    methods.SuperMix: (None, 2, 3.0, 8, 25.0, 1.0, 50, 0.3),
    methods.TransMix: (1.0, 0.5, 1.0, "batch"),
    methods.ZetaMixup: (2.8,),
}
"""Those of the papers and their code, in the order of the fields."""


@pytest.mark.parametrize("cls", DEFAULTS, ids=lambda cls: cls.name)
def test_defaults_are_those_of_the_authors(cls):
    assert tuple(getattr(cls(), field.name) for field in dataclasses.fields(cls)) == DEFAULTS[cls]
