"""The objective of a run: which one it is, what its weights are, and that it is what is minimised."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from multimix import ops
from multimix.distill import SelfDistilled
from multimix.lab.data import Images, Splits
from multimix.lab.report import read_run
from multimix.lab.train import BinaryCrossEntropy, CrossEntropy, Engine, load_network, resume, train
from multimix.lab.train.objective import objective_for
from multimix.methods import ERM, Alternate, AutoMix, Mixup, Until
from train.tiny import events, splits_of, stopped_after, tiny


def made(labels: torch.Tensor) -> Splits:
    """Images of noise with these labels, of three classes or labels."""
    pixels = torch.randint(256, (len(labels), 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    images = Images(pixels, labels, ("ant", "bee", "cat"))
    return Splits("made", images, images.subset(range(8)), images.subset(range(8)), (0.5,), (0.3,))


CLASSES = torch.tensor([0, 0, 1, 2, 0, 0, 1, 0] * 4)
SEVERAL = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1]] * 8)


def of_every_class_and_label() -> list[tuple[torch.Tensor, object, object]]:
    """Labels, the settings of an objective, and torch's own loss of logits and labels."""
    weights, positive = torch.tensor([0.5, 2.0, 3.0]), torch.tensor([1.0, 2.0, 0.0])
    by_class = torch.from_numpy(compute_class_weight("balanced", classes=np.arange(3), y=CLASSES.numpy())).float()
    by_label = (SEVERAL == 0).sum(0) / SEVERAL.sum(0)
    given = tuple(weights.tolist())
    return [
        (CLASSES, None, F.cross_entropy),
        (CLASSES, CrossEntropy(label_smoothing=0.2), lambda x, y: F.cross_entropy(x, y, label_smoothing=0.2)),
        (CLASSES, CrossEntropy(class_weights="balanced"), lambda x, y: F.cross_entropy(x, y, by_class)),
        (CLASSES, CrossEntropy(given, 0.1), lambda x, y: F.cross_entropy(x, y, weights, label_smoothing=0.1)),
        (CLASSES, ops.CrossEntropy(given), lambda x, y: F.cross_entropy(x, y, weights)),
        (CLASSES, CrossEntropy(ignore_index=0), lambda x, y: F.cross_entropy(x, y)),
        (SEVERAL, None, F.binary_cross_entropy_with_logits),
        (SEVERAL, BinaryCrossEntropy(), F.binary_cross_entropy_with_logits),
        (SEVERAL, BinaryCrossEntropy((1, 2, 0)),
         lambda x, y: F.binary_cross_entropy_with_logits(x, y, pos_weight=positive)),
        (SEVERAL, BinaryCrossEntropy("balanced", 0.2),
         lambda x, y: F.binary_cross_entropy_with_logits(x, 0.8 * y + 0.1, pos_weight=by_label)),
    ]  # fmt: skip


@pytest.mark.parametrize(("labels", "settings", "loss"), of_every_class_and_label())
def test_what_is_minimised_is_the_loss_of_torch(labels, settings, loss):
    splits = made(labels)
    if isinstance(settings, CrossEntropy) and settings.ignore_index is not None:
        splits = made(labels.masked_fill(labels == settings.ignore_index, -100))
    engine = Engine(tiny(objective=settings, train_size=None, image_size=None), splits)
    inputs, targets = next(iter(engine.epoch()))
    state = {name: value.clone() for name, value in engine.network.state_dict().items()}
    with torch.no_grad():
        expected = loss(engine.network(inputs), targets)
    engine.network.load_state_dict(state)  # as running statistics have moved
    assert float(engine.step(inputs, targets)[0]) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("labels", [CLASSES, SEVERAL])
def test_by_default_it_is_the_plain_one_of_the_data(labels):
    plain = ops.CrossEntropy() if labels is CLASSES else ops.BinaryCrossEntropy()
    assert objective_for(None, made(labels)) == plain
    assert Engine(tiny(), made(labels)).network.objective == plain


@pytest.mark.parametrize(("labels", "objective"), [(CLASSES, CrossEntropy("balanced", 0.1)), (SEVERAL, None)])
def test_a_run_keeps_it_in_numbers_and_ends_alike_when_resumed(tmp_path, monkeypatch, labels, objective):
    config, splits = tiny(objective=objective, method=SelfDistilled(Mixup()), checkpoint_steps=1), made(labels)
    monkeypatch.setattr("multimix.lab.train.network.load_data", lambda _: splits)
    whole = train(config, tmp_path / "whole", quiet=True, splits=splits)
    with stopped_after(1):
        train(config, tmp_path / "parts", quiet=True, splits=splits)
    resume(tmp_path / "parts", quiet=True)
    (theirs, *_), (ours, *_) = (events(tmp_path / name, "test") for name in ("whole", "parts"))
    judge = "accuracy" if labels is CLASSES else "mean_average_precision"
    assert ours[judge] == theirs[judge]
    assert ours["weights"] == theirs["weights"]
    wanted = objective_for(objective, splits)
    assert load_network(whole.path, splits)[0].objective == wanted
    written = json.loads((whole.path / "config.json").read_text())["objective"]
    numbers = wanted.class_weights if labels is CLASSES else wanted.positive_weights
    assert written[("class" if labels is CLASSES else "positive") + "_weights"] == (numbers and list(numbers))
    with pytest.raises(ValueError, match=r"objective must be .* for data made, whose images have"):
        load_network(whole.path, made(SEVERAL if labels is CLASSES else CLASSES))


def test_a_run_from_before_it_was_a_setting_is_read_and_is_no_other_experiment(tmp_path):
    run = train(tiny(), tmp_path / "run", quiet=True)
    known, file = read_run(run.path).settings_hash, run.config_file
    whole = json.loads(file.read_text())
    del whole["objective"], whole["config"]["objective"]
    file.write_text(json.dumps(whole))
    assert run.read_config() == tiny(label="erm")
    assert load_network(run.path)[0].objective == ops.CrossEntropy()
    assert read_run(run.path).settings_hash == known


def test_a_method_of_ones_own_is_told_to_ask_for_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("multimix.lab.train.engine.code_of", lambda *_: {"mine.py": b""})
    train(tiny(objective=CrossEntropy("balanced")), tmp_path / "run")
    assert "method erm is your own code, which has to ask for network.objective to follow it" in capsys.readouterr().err


def three(**changes):
    return {"labels": CLASSES, "objective": None, "method": ERM(), **changes}


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (three(objective=BinaryCrossEntropy()), "objective must be CrossEntropy for data made, whose images have one"),
        (three(objective=CrossEntropy(), labels=SEVERAL), "must be BinaryCrossEntropy for .* have several labels each"),
        (three(objective=CrossEntropy((1, 2))), "class_weights must be one number for each of 3 classes, got 2"),
        (three(objective=BinaryCrossEntropy((1,)), labels=SEVERAL), "positive_weights .* each of 3 labels, got 1"),
        (three(objective=CrossEntropy("balanced"), labels=CLASSES % 2), "need a training image .* and cat has none"),
        (three(labels=CLASSES.masked_fill(CLASSES == 2, -100)), "images without a class .* need .* ignore_index"),
        *((three(labels=SEVERAL, method=method), "objective must be CrossEntropy for AutoMix")
          for method in (AutoMix(), SelfDistilled(Until(AutoMix())), Alternate((ERM(), AutoMix())))),
    ],
)  # fmt: skip
def test_what_does_not_go_with_the_data_is_refused_before_there_is_a_run(tmp_path, given, message):
    config = tiny(objective=given["objective"], method=given["method"])
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / "run", quiet=True, splits=made(given["labels"]))
    assert not (tmp_path / "run").exists()


@pytest.mark.bad_input
@pytest.mark.parametrize("objective", [ops.SquaredError(), "balanced", CrossEntropy, torch.nn.CrossEntropyLoss()])
def test_other_objectives_are_refused(objective):
    with pytest.raises(TypeError, match="objective must be CrossEntropy, BinaryCrossEntropy or None, as data of runs"):
        tiny(objective=objective)


def test_splits_are_left_as_they_are_where_nothing_is_ignored():
    splits = splits_of(tiny())
    assert Engine(tiny(), splits).splits is splits
