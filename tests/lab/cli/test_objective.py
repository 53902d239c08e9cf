"""Objectives from the command line, and data whose images may have several labels, from training to the report."""

import re
from pathlib import Path

import numpy as np
import pytest

from multimix.lab.cli import configured
from multimix.lab.cli._arguments import override
from multimix.lab.evaluate import SUITES
from multimix.lab.recipes import digits
from multimix.lab.recipes.detection import DETECTION_RECIPES, detection_recipe_named
from multimix.lab.train import SGD, AdamW, BinaryCrossEntropy, CrossEntropy, Step
from train.tiny import events

LINE = "train digits --data npz:set.npz --width 2 --strides 1 2 2 2 --epochs 1 --device cpu --method erm --quiet"
NAMES = ("cat", "dog", "né")


@pytest.fixture
def several(multimix):
    """A command line in a folder with 40 + 20 images of three labels, in ``set.npz``."""
    rng = np.random.default_rng(0)
    made = {}
    for part, size in (("train", 40), ("test", 20)):
        made[f"{part}_images"] = rng.integers(0, 256, (size, 8, 8), dtype=np.uint8)
        made[f"{part}_labels"] = (rng.random((size, 3)) < 0.5).astype(np.uint8)
    np.savez("set.npz", **made, label_names=np.array(NAMES))
    return multimix


@pytest.mark.parametrize(
    ("line", "field", "wanted"),
    [
        ("", "objective", None),
        ("--objective cross-entropy", "objective", CrossEntropy()),
        ("--objective=BinaryCrossEntropy", "objective", BinaryCrossEntropy()),
        ("--objective.class-weights balanced", "objective", CrossEntropy("balanced")),
        ("--objective.class_weights 1 2.5 0", "objective", CrossEntropy((1.0, 2.5, 0.0))),
        ("--objective.label-smoothing=0.1", "objective", CrossEntropy(label_smoothing=0.1)),
        ("--objective.ignore-index=-1", "objective", CrossEntropy(ignore_index=-1)),
        ("--objective.positive-weights balanced", "objective", BinaryCrossEntropy("balanced")),
        (
            "--objective.label-smoothing 0.1 --objective binary_cross_entropy",
            "objective",
            BinaryCrossEntropy(None, 0.1),
        ),
        ("--optimizer adamw --optimizer.weight-decay 0", "optimizer", AdamW(weight_decay=0.0)),
        ("--optimizer sgd", "optimizer", digits().optimizer),
        ("--schedule STEP --schedule.factor 0.5", "schedule", Step(factor=0.5)),
    ],
)
def test_a_class_is_chosen_by_its_name_or_by_a_field_of_its_own(line, field, wanted):
    assert getattr(configured("digits", "erm", line.split(), prog="multimix"), field) == wanted


def test_a_detector_has_other_optimizers_too():
    config = override(detection_recipe_named(next(iter(DETECTION_RECIPES))), ["--optimizer", "AdamW"], prog="multimix")
    assert config.optimizer == AdamW()


def test_help_says_which_classes_there_are(multimix):
    assert "--optimizer {SGD,AdamW}" in (out := multimix.succeeds("train digits --help"))
    assert "--objective {CrossEntropy,BinaryCrossEntropy}" in out
    assert "--objective.positive-weights" in multimix.succeeds("train digits --objective binary-cross-entropy --help")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--objective hinge", "--objective must be CrossEntropy or BinaryCrossEntropy, got hinge"),
        ("--objective", "--objective must be CrossEntropy or BinaryCrossEntropy, got nothing"),
        ("--optimizer adam", "--optimizer must be SGD or AdamW, got adam"),
        (
            "--objective.weights 1",
            "Unrecognized options: --objective.weights, 1; did you mean --objective.class-weights",
        ),
        (
            "--objective.class-weights balance",
            "{[FLOAT [FLOAT ...]]}|{balanced} could be instantiated from ['balance']",
        ),
        ("--objective cross-entropy --objective.positive-weights 1 1 1", "Unrecognized options: --objective.positive"),
        ("--objective.label-smoothing 1.5", "label_smoothing must lie in [0, 1]"),
        ("--objective cross-entropy", "objective must be BinaryCrossEntropy for data npz:set.npz, whose images have"),
        ("--objective.positive-weights 1 2", "positive_weights must be one number for each of 3 labels, got 2"),
        ("--method automix", "objective must be CrossEntropy for AutoMix"),
    ],
)
def test_what_does_not_fit_leaves_no_run(several, line, said):
    assert said in several.complains(f"{LINE} {line}")
    assert not Path("runs").exists()


def test_several_labels_from_training_to_the_report(several):
    out = several.succeeds(f"{LINE} --name run --objective.positive-weights balanced")
    (record,) = events(Path("runs/run"), "test")
    shown = re.match(
        r"test: mAP (\S+) %  macro F1 (\S+) %  exact match (\S+) %  BCE (\S+)  \(20 images, epoch 1\)", out
    )
    wanted = [100 * record[name] for name in ("mean_average_precision", "macro_f1", "exact_match")]
    assert list(map(float, shown.groups())) == pytest.approx([*wanted, record["bce"]], abs=0.006)
    assert {"validation_mean_average_precision", "validation_bce"} <= events(Path("runs/run"), "epoch")[0].keys()
    page = Path("runs/run/report.html").read_text()
    for words in ("mAP (%)", "Macro F1 (%)", "Validation mAP", "BCE", "positive_weights"):
        assert words in page
    again = several.succeeds("evaluate runs/run --again --quiet")
    assert re.findall(r"runs/run: (\w+): (\w+) ", again) == [("accuracy", "mean_average_precision")]


def test_suites_of_classes_are_left_out_or_refused(several):
    several.succeeds(f"{LINE} --name run")
    out = several.succeeds("evaluate runs/run --suites all")
    left_out = set(re.findall(r"(\w+): left out: \1 is measured of one class an image", out))
    assert left_out == {suite.name for suite in SUITES} - {"accuracy"}
    said = several.complains("evaluate runs/run --suites calibration --quiet")
    assert said.endswith("npz:set.npz has several labels, which --suites accuracy measures")


def test_methods_are_compared_by_several_labels(several):
    line = LINE.replace("train", "compare").replace("--method erm --quiet", "--methods erm mixup --seeds 2")
    out = several.succeeds(line)
    assert "validation mAP " in out
    assert re.search(r"Method +n +mAP \(%\) ↑ +Macro F1", out)
    assert "Δ mAP (points) ↑" in out
    assert "Dot plot: mAP (%) of every seed" in Path("runs/compare/report.html").read_text()


def test_a_data_set_is_told_of_by_label(several):
    given = np.load("set.npz")["train_labels"].sum(0)
    out = several.succeeds("data npz:set.npz --validation 0")
    assert out.startswith(
        "3 labels, of which an image may have any number; the network sees 1 channels of 8 x 8 pixels"
    )
    found = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+) +\d+$", out, re.M)}
    assert found == {"all": 40, **dict(zip(NAMES, given.tolist(), strict=True))}


def test_images_without_a_class_are_told_of(multimix):
    labels = np.array([0, 1, -1, 0, 1, 0] * 3)
    images = np.zeros((18, 4, 4), dtype=np.uint8)
    np.savez("set.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    out = multimix.succeeds("data npz:set.npz --validation 0 --ignore-index -1")
    rows = {line[:8].strip(): line.split()[-2:] for line in out.splitlines()[2:]}
    assert rows == {"all": ["18", "15"], "no class": ["3", "0"], "0": ["9", "9"], "1": ["6", "6"]}
    assert "ignore_index=-1 of the objective" in multimix.complains("data npz:set.npz")


def test_sgd_keeps_what_the_recipe_says_of_it():
    assert isinstance(digits().optimizer, SGD)
    assert digits().optimizer != SGD()
