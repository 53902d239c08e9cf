"""Settings that do not fit each other, and the default of every setting; ranges have a table in tests/fuzz."""

import pytest

from multimix.lab import evaluate
from multimix.lab.evaluate import SUITES, Accuracy, SuiteSettings
from multimix.lab.evaluate.corruption import CORRUPTIONS

TOGETHER = [
    (evaluate.AdversarialSettings, {"norms": ()}, "norms must be at least one, each once, got none"),
    (
        evaluate.AdversarialSettings,
        {"norms": ("linf", "linf")},
        "norms must be at least one, each once, got linf, linf",
    ),
    (evaluate.AdversarialSettings, {"norms": ("l2",), "autoattack": True}, "autoattack needs linf among norms"),
    (
        evaluate.AdversarialSettings,
        {"restarts": 2, "random_start": False},
        "restarts must be 1 where no start is random, got 2",
    ),
    (evaluate.CorruptionSettings, {"corruptions": ("rain",)}, "unknown corruption rain; known are gaussian_noise"),
    (evaluate.OcclusionSettings, {"fractions": (0.5, 0.25)}, "fractions must ascend"),
    (evaluate.OcclusionSettings, {"fractions": (0.0, 0.01), "grid": 4}, "fractions must differ by a patch of 4 x 4"),
    (evaluate.OODSettings, {"sets": ()}, "sets must be at least one, each once, got none"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize(("settings", "given", "message"), TOGETHER)
def test_settings_that_do_not_fit_each_other_are_refused(settings, given, message):
    with pytest.raises(ValueError, match=message):
        settings(**given)


def test_the_list_of_suites_starts_with_accuracy_and_has_no_name_twice():
    assert SUITES[0] is Accuracy
    assert len({suite.name for suite in SUITES}) == len(SUITES) == 9
    assert all(issubclass(suite.Settings, SuiteSettings) for suite in SUITES)


DEFAULTS = {
    SuiteSettings: {},
    evaluate.CalibrationSettings: {"bins": 15, "scaling": True, "validation_examples": None},
    evaluate.AdversarialSettings: {
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
    evaluate.CorruptionSettings: {"corruptions": tuple(CORRUPTIONS), "severities": (1, 2, 3, 4, 5), "seed": 0},
    evaluate.EmbeddingSettings: {
        "neighbours": 20,
        "reference": "test",
        "picture": "tsne",
        "picture_examples": 1000,
        "seed": 0,
    },
    evaluate.IntrusionSettings: {
        "mixing_batches": 32,
        "mixing_batch": 128,
        "threshold": 0.01,
        "positions": 8,
        "seed": 0,
    },
    evaluate.LocalisationSettings: {"boxes": None, "query": "gap", "threshold": 0.2, "thresholds": 20},
    evaluate.OcclusionSettings: {"fractions": (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75), "grid": 8, "seed": 0},
    evaluate.OODSettings: {
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
