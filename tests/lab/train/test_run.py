"""A run from its configuration to its folder: which files, which records, what is shown and what is refused."""

import json
import os
import platform
import shutil
from datetime import datetime

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, log_loss

from multimix.lab.data import Batches
from multimix.lab.report import read_run
from multimix.lab.train import Engine, evaluate_run, from_json, load_network, to_json, train
from multimix.methods import Alternate, CutMix, DenseMultiMix, Mixup, MultiMix
from train.tiny import BATCHES, events, files, splits_of, tiny, train_all


def test_the_folder_holds_what_the_design_lists(finished):
    assert {path.name for path in finished.iterdir()} == {
        "config.json", "metrics.jsonl", "environment.json", "last.ckpt", "model.safetensors", "ema.safetensors",
        "pictures", "evaluation",
    }  # fmt: skip


def test_config_json_is_the_configuration_with_the_label_of_tables(finished):
    written = json.loads((finished / "config.json").read_text())
    config = from_json(written["config"])
    assert (written["recipe"], config.recipe) == ("test", "test")
    assert config.label == "self-distilled"
    assert to_json(config) == written["config"]
    assert (config.seed, config.ema, config.epochs, config.method.method.tuples) == (4, 0.5, 2, 20)


def test_every_epoch_has_a_record(finished):
    first, second = events(finished, "epoch")
    fields = [
        "event", "epoch", "step", "learning_rate", "train_loss", "train_labels_loss", "train_teacher_loss",
        "images_per_second", "seconds", "validation_accuracy", "validation_nll", "validation_ece",
    ]  # fmt: skip
    assert list(first) == list(second) == fields
    assert (first["epoch"], first["step"], second["epoch"], second["step"]) == (1, BATCHES, 2, 2 * BATCHES)
    assert first["learning_rate"] == pytest.approx(0.025)
    for record in (first, second):
        assert record["train_loss"] == pytest.approx((record["train_labels_loss"] + record["train_teacher_loss"]) / 2)
        assert record["images_per_second"] == pytest.approx(100 / record["seconds"])
        assert 0 <= record["validation_accuracy"] <= 1


def test_the_record_of_an_epoch_is_the_mean_of_its_losses(tmp_path):
    config = tiny(method=MultiMix(tuples=20))
    run = train(config, tmp_path / "run", quiet=True)
    losses = train_all(Engine(config, splits_of(config)))
    recorded = [event["train_loss"] for event in events(run.path, "epoch")]
    assert recorded == pytest.approx([sum(losses[:4]) / 4, sum(losses[4:]) / 4], rel=1e-12)


def test_a_test_record_says_all_that_the_number_depends_on(finished):
    records = events(finished, "test")
    assert [record.get("network") for record in records] == [None, "ema", "teacher"]
    fields = [
        "event", "suite", "split", "epoch", "accuracy", "nll", "ece", "settings", "weights", "examples", "seed",
        "seconds", "device", "torch", "commit", "date",
    ]  # fmt: skip
    for record in records:
        assert [name for name in record if name != "network"] == fields
        about = [record[name] for name in ("suite", "split", "epoch", "examples", "seed", "device", "torch")]
        assert about == ["accuracy", "test", 2, 359, 4, "cpu", torch.__version__]
        assert datetime.fromisoformat(record["date"]).tzinfo is not None
    assert len({record["nll"] for record in records}) == 3


def test_the_test_records_are_what_the_saved_weights_predict(finished):
    """Those of the network, its moving average and its teacher, loaded by hand and measured with scikit-learn."""
    network, splits = load_network(finished, device="cpu")
    (method,) = torch.load(finished / "last.ckpt", weights_only=True)["method"]
    start = "ema.network."
    states = {
        None: load_file(finished / "model.safetensors"),
        "ema": load_file(finished / "ema.safetensors"),
        "teacher": {name.removeprefix(start): value for name, value in method.items() if name.startswith(start)},
    }
    for record in events(finished, "test"):
        network.load_state_dict(states[record.get("network")])
        batches = Batches(splits.test, batch_size=100, mean=splits.mean, std=splits.std, shuffle=False)
        with torch.no_grad():
            pairs = [(network.eval()(images), labels) for images, labels in batches]
        logits, labels = (torch.cat(each) for each in zip(*pairs, strict=True))
        assert record["accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(1)))
        probabilities = logits.double().softmax(1).numpy()
        assert record["nll"] == pytest.approx(log_loss(labels, probabilities, labels=range(10)), rel=1e-5)


def test_the_last_record_says_how_long_it_took(finished):
    last = events(finished)[-1]
    assert list(last) == ["event", "seconds", "step_seconds", "peak_mib"]
    assert last["event"] == "end"
    assert last["seconds"] == pytest.approx(sum(event["seconds"] for event in events(finished, "epoch")))
    assert last["step_seconds"] == pytest.approx(last["seconds"] / (2 * BATCHES))
    assert last["peak_mib"] > 10


def test_the_environment_is_described(finished):
    found = json.loads((finished / "environment.json").read_text())
    assert (found["python"], found["torch"]) == (platform.python_version(), torch.__version__)
    assert (found["device"], found["threads"], found["cpus"]) == ("cpu", torch.get_num_threads(), os.cpu_count())
    assert {"commit", "date", "command", "platform", "device_name", "multimix", "numpy", "timm"} <= set(found)


def test_a_quiet_run_prints_nothing(tmp_path, capfd):
    train(tiny(precision="bf16-mixed"), tmp_path / "run", quiet=True)
    assert capfd.readouterr() == ("", "")


def test_away_from_a_terminal_an_epoch_is_a_line(tmp_path, capfd):
    train(tiny(epochs=3), tmp_path / "run")
    said = capfd.readouterr()
    lines = said.out.splitlines()
    records = events(tmp_path / "run", "epoch")
    assert said.err == ""
    assert len(lines) == len(records) == 3
    for number, (line, record) in enumerate(zip(lines, records, strict=True), 1):
        assert line.startswith("erm")
        assert f": epoch {number}/3  loss {record['train_loss']:.4f}  validation accuracy " in line
        assert f"{100 * record['validation_accuracy']:.2f} %" in line
        assert line.endswith(f"{record['images_per_second']:,.0f} images/s  {record['seconds']:.1f} s")


def test_on_a_terminal_there_is_a_bar_that_goes_away(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    train(tiny(label="[red]x[/red]"), tmp_path / "run")
    said = capfd.readouterr().out
    assert "[red]x[/red]" in said  # a label is text, not markup
    assert "\x1b[" in said
    assert "8/8" in said or "/8" in said


def test_pictures_show_what_methods_that_mix_inputs_feed_the_network(tmp_path):
    method = Alternate((Mixup(), MultiMix(tuples=5), DenseMultiMix(tuples=5), CutMix()))
    # A map of 2 x 2 positions is left of 8 x 8 pixels by one stride less.
    run = train(tiny(method=method, epochs=1, strides=(1, 1, 2, 2)), tmp_path / "run", quiet=True)
    captions = json.loads((run.figures / "captions.json").read_text())
    shown = {path.name for path in run.figures.glob("*.png")}
    assert set(captions) == shown
    assert {"mixup.png", "cutmix.png", "attention.png"} <= shown
    assert not {"multimix.png", "dense-multimix.png"} & shown
    for name in shown:
        pixels = np.asarray(Image.open(run.figures / name))
        assert pixels.shape == (2 * 128 + 4, 5 * 128 + 4 * 4, 4)  # two rows of five, gaps between them
        assert pixels[..., :3].std() > 10
        assert not np.array_equal(pixels[:128], pixels[-128:])
        assert [pixels[place].tolist() for place in ((0, 130, 3), (130, 0, 3), (0, 0, 3))] == [0, 0, 255]


def test_what_became_of_each_class_is_kept_for_the_report(finished, tmp_path):
    kept = read_run(finished)  # whose warnings are errors here
    (test,) = [event for event in kept.tests if event.get("network") is None]
    figures = kept.evaluations["accuracy"].figures
    pairs = [figures["confusion"][key] for key in ("true", "predicted", "count")]
    right = sum(count for true, predicted, count in zip(*pairs, strict=True) if true == predicted)
    assert (right / 359, sum(pairs[2])) == (pytest.approx(test["accuracy"]), 359)
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "evaluation")
    evaluate_run(tmp_path / "run", again=True)
    assert read_run(tmp_path / "run").evaluations["accuracy"].figures == figures


def test_of_a_run_killed_while_its_configuration_was_written_the_same_command_begins_anew(finished, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json.part").write_bytes((finished / "config.json").read_bytes()[:100])
    run = train(tiny(epochs=1), folder, quiet=True)
    assert run.finished
    assert not (folder / "config.json.part").exists()


@pytest.mark.bad_input
def test_a_folder_that_holds_anything_is_left_as_it_is(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (tmp_path / "file").write_text("a file")
    before = files(tmp_path)
    for path in (folder, tmp_path, tmp_path / "file"):
        with pytest.raises(FileExistsError, match=r"run folder .* exists and is not empty; continue it with --resume"):
            train(tiny(), path, quiet=True)
    assert files(tmp_path) == before


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "digitz"}, "unknown data set 'digitz'; did you mean digits"),
        ({"model": "resnet"}, "name must be a known model, got 'resnet'"),
    ],
)
def test_nothing_is_written_when_something_does_not_fit(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(tiny(**changes), tmp_path / "runs/run", quiet=True)
    assert list(tmp_path.iterdir()) == []
