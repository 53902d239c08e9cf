"""Every setting of every suite that has a range: what lies out of it is refused by its name."""

import pytest

from multimix.lab.evaluate import (
    SUITES,
    Accuracy,
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

NAN = float("nan")
REFUSED = {
    SuiteSettings: {"examples": 0},
    CalibrationSettings: {"bins": 0, "validation_examples": 0},
    AdversarialSettings: {
        "norms": ("l1",),
        "fgsm_epsilon": 0,
        "pgd_epsilon": 0,
        "pgd_step": float("inf"),
        "l2_epsilon": NAN,
        "l2_step": 0,
        "steps": 0,
        "restarts": 0,
        "curve": (0.0, -0.1),
        "curve_examples": 0,
        "autoattack_examples": 0,
        "autoattack_batch_size": 0,
    },
    CorruptionSettings: {"severities": (1, 6)},
    EmbeddingSettings: {
        "neighbours": 0,
        "reference": "validation",
        "picture": "pca",
        "picture_examples": 0,
        "seed": -1,
    },
    IntrusionSettings: {"mixing_batches": 0, "mixing_batch": 1, "threshold": 0.0, "positions": 0, "seed": -1},
    LocalisationSettings: {"query": "max", "threshold": 1.5, "thresholds": 201},
    OcclusionSettings: {"fractions": (0.5,), "grid": 0},
    OODSettings: {
        "scores": ("msp", "max-logit"),
        "ood_examples": 0,
        "train_examples": 0,
        "energy_temperature": 0.0,
        "odin_temperature": NAN,
        "odin_epsilon": -0.1,
        "knn_neighbours": 0,
        "mahalanobis_shrinkage": 1.5,
    },
}
TOGETHER = [
    (AdversarialSettings, {"norms": ()}, "norms must be at least one, each once, got none"),
    (AdversarialSettings, {"norms": ("linf", "linf")}, "norms must be at least one, each once, got linf, linf"),
    (AdversarialSettings, {"norms": ("l2",), "autoattack": True}, "autoattack needs linf among norms"),
    (AdversarialSettings, {"restarts": 2, "random_start": False}, "restarts must be 1 where no start is random, got 2"),
    (CorruptionSettings, {"corruptions": ("rain",)}, "unknown corruption rain; known are gaussian_noise"),
    (CorruptionSettings, {"corruptions": ("fog", "fog")}, "corruptions must be at least one, each once, got fog, fog"),
    (CorruptionSettings, {"severities": ()}, "severities must be at least one, each once, got none"),
    (LocalisationSettings, {"thresholds": 0}, r"thresholds must lie in \[1, 200\], got 0"),
    (OcclusionSettings, {"fractions": (0.5, 0.25)}, "fractions must ascend"),
    (OcclusionSettings, {"fractions": (0.5, 1.0)}, r"lie in \[0, 1\), got"),
    (OcclusionSettings, {"fractions": (0.0, 0.01), "grid": 4}, "fractions must differ by a patch of 4 x 4"),
    (OODSettings, {"sets": ()}, "sets must be at least one, each once, got none"),
    (OODSettings, {"scores": ()}, "scores must be at least one, each once, got none"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize(("settings", "name"), [(s, name) for s, values in REFUSED.items() for name in values])
def test_a_setting_out_of_its_range_is_refused(settings, name):
    with pytest.raises(ValueError, match=f"^{name} must "):
        settings(**{name: REFUSED[settings][name]})


@pytest.mark.bad_input
@pytest.mark.parametrize(("settings", "given", "message"), TOGETHER)
def test_settings_that_do_not_fit_each_other_are_refused(settings, given, message):
    with pytest.raises(ValueError, match=message):
        settings(**given)


def test_the_ends_of_the_ranges_are_allowed():
    IntrusionSettings(mixing_batch=2, threshold=1.0)
    LocalisationSettings(threshold=1, thresholds=200)
    OODSettings(odin_epsilon=0, mahalanobis_shrinkage=1)


def test_the_list_of_suites_starts_with_accuracy_and_has_no_name_twice():
    assert SUITES[0] is Accuracy
    assert len({suite.name for suite in SUITES}) == len(SUITES) == 9
    assert all(issubclass(suite.Settings, SuiteSettings) for suite in SUITES)


DEFAULTS = {
    SuiteSettings: {},
    CalibrationSettings: {"bins": 15, "scaling": True, "validation_examples": None},
    AdversarialSettings: {
        "norms": ("linf", "l2"),
        "fgsm_epsilon": 8 / 255,
        "pgd_epsilon": 4 / 255,
        "pgd_step": 2 / 255,
        "l2_epsilon": 0.5,
        "l2_step": 0.05,
        "steps": 20,
        "restarts": 1,
        "random_start": True,
        "seed": 0,
        "curve": (0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255),
        "curve_examples": 500,
        "autoattack": False,
        "autoattack_examples": 1000,
        "autoattack_batch_size": 100,
    },
    CorruptionSettings: {"corruptions": tuple(CORRUPTIONS), "severities": (1, 2, 3, 4, 5), "seed": 0},
    EmbeddingSettings: {
        "neighbours": 20,
        "reference": "test",
        "picture": "tsne",
        "picture_examples": 1000,
        "seed": 0,
    },
    IntrusionSettings: {"mixing_batches": 32, "mixing_batch": 128, "threshold": 0.01, "positions": 8, "seed": 0},
    LocalisationSettings: {"boxes": None, "query": "gap", "threshold": 0.2, "thresholds": 20},
    OcclusionSettings: {"fractions": (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75), "grid": 8, "seed": 0},
    OODSettings: {
        "sets": None,
        "scores": ("msp", "max_logit", "energy", "odin", "knn", "mahalanobis"),
        "ood_examples": 10_000,
        "train_examples": 10_000,
        "energy_temperature": 1.0,
        "odin_temperature": 1000.0,
        "odin_epsilon": 0.0014,
        "knn_neighbours": 50,
        "mahalanobis_shrinkage": 0.0,
        "seed": 0,
        "download": False,
    },
}


@pytest.mark.parametrize("settings", DEFAULTS)
def test_the_defaults_are_those_of_the_papers(settings):
    assert vars(settings()) == {"examples": None, **DEFAULTS[settings]}
