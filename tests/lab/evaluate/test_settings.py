"""Settings that do not fit each other, and the default of every setting; ranges have a table in tests/fuzz."""

from dataclasses import fields

import pytest

from multimix.lab.evaluate import (
    SUITES,
    AdversarialSettings,
    CalibrationSettings,
    CorruptionSettings,
    EmbeddingSettings,
    IntrusionSettings,
    LocalisationSettings,
    OcclusionSettings,
    OODSettings,
    SuiteSettings,
)
from multimix.lab.evaluate.corruption import CORRUPTIONS

TOGETHER = [
    (AdversarialSettings, {"norms": ()}, "norms must be at least one, each once, got none"),
    (AdversarialSettings, {"norms": ("linf", "linf")}, "norms must be at least one, each once, got linf, linf"),
    (AdversarialSettings, {"norms": ("l2",), "autoattack": True}, "autoattack needs linf among norms"),
    (AdversarialSettings, {"restarts": 2, "random_start": False}, "restarts must be 1 where no start is random, got 2"),
    (AdversarialSettings, {"fgsm_epsilon": 8}, r"fgsm_epsilon must lie in \(0, 1\], got 8"),
    (AdversarialSettings, {"curve": (0.0, 4.0)}, r"curve must hold values that each must lie in \[0, 1\], got"),
    (CalibrationSettings, {"bins": 100_000}, r"bins must lie in \[1, 1000\], got 100000"),
    (CorruptionSettings, {"corruptions": ("rain",)}, "unknown corruption rain; known are gaussian_noise"),
    (CorruptionSettings, {"severities": ()}, "severities must be at least one"),
    (OcclusionSettings, {"fractions": (0.5, 0.25)}, "fractions must ascend"),
    (OcclusionSettings, {"fractions": (0.0, 0.01), "grid": 4}, "fractions must differ by a patch of 4 x 4"),
    (OODSettings, {"sets": ()}, "sets must be at least one, each once, got none"),
    (OODSettings, {"scores": ("msp", "msp")}, "scores must be at least one, each once"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize(("settings", "given", "message"), TOGETHER)
def test_settings_that_do_not_fit_each_other_are_refused(settings, given, message):
    with pytest.raises(ValueError, match=message):
        settings(**given)


DEFAULTS = {
    SuiteSettings: (),
    CalibrationSettings: (15, True, None),
    AdversarialSettings: (
        *(("linf", "l2"), 8 / 255, 4 / 255, 2 / 255, 0.5, 0.05, 20, 1, True, 0),
        *((0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255), 500, False, 1000, 100),
    ),
    CorruptionSettings: (tuple(CORRUPTIONS), (1, 2, 3, 4, 5), 0),
    EmbeddingSettings: (20, "test", "tsne", 1000, 0),
    IntrusionSettings: (32, 128, 0.01, 8, 0),
    LocalisationSettings: (None, "gap", 0.2, 20),
    OcclusionSettings: ((0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75), 8, 0),
    OODSettings: (
        *(None, ("msp", "max_logit", "energy", "odin", "knn", "mahalanobis"), 10_000, 10_000),
        *(1.0, 1000.0, 0.0014, 50, 0.0, 0, False),
    ),
}


@pytest.mark.parametrize("settings", DEFAULTS)
def test_the_defaults_are_those_of_the_papers(settings):
    assert tuple(getattr(settings(), field.name) for field in fields(settings)) == (None, *DEFAULTS[settings])


def test_every_suite_has_a_name_and_settings_of_its_own():
    assert len({suite.name for suite in SUITES}) == len(SUITES)
    assert all(issubclass(suite.Settings, SuiteSettings) for suite in SUITES)
