"""What small sets do to suites: a default gives way and says so, what is given does not, and the rest is measured."""

from dataclasses import asdict, replace

import pytest
import torch

import toy
from evaluate.made import images, source
from multimix.lab.data import Images
from multimix.lab.evaluate import OOD, SUITES, Adversarial, Embedding, Intrusion, Localisation, Occlusion
from multimix.lab.evaluate.suite import adjusted, heard

QUICK = {
    "adversarial": {"steps": 1, "curve": ()},
    "ood": {"ood_examples": 10, "sets": ("uniform-noise",)},
    "corruption": {"severities": (3,)},
    "intrusion": {"mixing_batches": 2},
}


def one_class(count: int) -> Images:
    return replace(images(count), labels=torch.zeros(count, dtype=torch.int64))


def one_each(count: int) -> Images:
    """One image of each of so many classes."""
    made = images(count)
    return Images(made.images, torch.arange(count), tuple(map(str, range(count))))


@pytest.mark.parametrize(
    ("suite", "run", "setting", "usual", "taken", "why"),
    [
        (Embedding, {"test": 12}, "neighbours", 20, 2, "as there are only 11 images to look for them in"),
        (
            Embedding,
            {"test": one_each(1003), "train": one_each(1003)},
            "picture_examples",
            1000,
            1003,
            "one for each class",
        ),
        (OOD, {"train": images(49)}, "knn_neighbours", 50, 9, "as there are only 49 training images to look in"),
        (Intrusion, {"test": 12}, "mixing_batch", 128, 12, "as there are only 12 test images"),
        (Occlusion, {"test": images(9, side=6), "train": images(9, side=6)}, "grid", 8, 6, "as the images have only 6"),
        (
            Adversarial,
            {"test": one_each(503), "train": one_each(503)},
            "curve_examples",
            500,
            503,
            "one for each class",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_default_gives_way_and_what_is_given_does_not(suite, run, setting, usual, taken, why):
    notes: list[str] = []
    with heard(notes):
        settings = suite.of(source(**run), suite.Settings()).settings
    assert notes[0].startswith(f"{setting} is {taken} in place of {usual}, {why}")
    assert asdict(settings) == asdict(suite.Settings()) | {setting: taken}
    with pytest.raises(ValueError, match=rf"^{setting}={usual} must be (from \d to \d+|at least \d+), {why}"):
        suite.of(source(**run), suite.Settings(**{setting: usual}))


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_defaults_that_fit_stay_as_they_are(suite):
    settings, run = suite.Settings(), source(130, train=images(60))
    assert adjusted(suite.name, settings, run) is settings


LEFT_OUT = {
    ("embedding", "one class"): {"intra_distance", "inter_distance", "min_inter_distance", "separation"},
    ("embedding", "one each"): {"alignment", "knn_accuracy", "separation"},
    **{("ood", kind): {"mahalanobis"} for kind in ("one class", "one each")},
}
"""What needs two classes, two test images of a class, or two training images of a class."""


@pytest.mark.parametrize("suite", [s for s in SUITES if s is not Localisation], ids=lambda suite: suite.name)
@pytest.mark.parametrize(("kind", "test"), [("one class", one_class(4)), ("one each", images(2))])
def test_the_rest_is_measured_of_very_few_images(suite, kind, test):
    def measured(run) -> set[str]:
        found = dict(suite.of(run, suite.Settings(**QUICK.get(suite.name, {})))(toy.images()))
        return {name.split("/")[1] if suite is OOD else name for name in found}

    notes: list[str] = []
    with heard(notes):
        few = measured(source(test, train=images(5, seed=2), validation=images(5, seed=3)))
        whole = measured(source(130, train=images(60), validation=images(30, seed=3)))
    wanted = LEFT_OUT.get((suite.name, kind), set())
    assert whole - few == wanted
    assert any("left out" in note for note in notes) == bool(wanted)
