"""Runs from a backbone to measured detections, stopped and resumed, and what is refused."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detect.small import LEARNS, coco_squares, small, stopped_after
from multimix.lab.data.boxes import BoxBatches, load_boxes
from multimix.lab.detect import DetectConfig, DetectFolder, detect, detect_boxes, load_detector, resume_detect
from multimix.lab.detect.engine import DetectEngine, load_backbone, load_splits
from multimix.lab.evaluate.detection import coco_metrics
from multimix.lab.runs.checkpoint import load_newest
from multimix.lab.runs.environment import Terminated
from multimix.lab.train import TrainingError
from train.tiny import before_step, events, files, steady, weights


@pytest.fixture(scope="module")
def whole(backbone, coco, tmp_path_factory) -> Path:
    """A finished run; leave it as it is."""
    config = small(backbone, coco, checkpoint_steps=2)
    return detect(config, tmp_path_factory.mktemp("whole") / "run", quiet=True).path


def test_a_run_leaves_what_a_training_run_leaves(whole, backbone):
    expected = {"config.json", "environment.json", "last.ckpt", "metrics.jsonl", "model.safetensors"}
    assert {file.name for file in whole.iterdir()} == expected
    kinds = [(event["event"], event.get("when")) for event in events(whole)]
    assert kinds == [("detection", "before"), ("epoch", None), ("epoch", None), ("detection", "after"), ("end", None)]
    config, origin, classes = DetectFolder(whole).read_detection()
    assert classes == ("red", "blue")
    assert config.backbone == str(backbone)
    assert origin.facts.shape[0] == 1
    assert json.loads((whole / "environment.json").read_text())["device"] == "cpu"
    epoch = events(whole, "epoch")[-1]
    assert (epoch["epoch"], epoch["step"]) == (2, 6)
    terms = [epoch[f"train_{name}_loss"] for name in ("classifier", "box_reg", "objectness", "rpn_box_reg")]
    assert epoch["train_loss"] == pytest.approx(sum(terms))


def test_a_record_says_what_it_depends_on(whole):
    record = events(whole, "detection")[1]
    assert record["split"] == "test"
    assert (record["rule"], record["examples"], record["objects"], record["ignored"]) == ("coco", 3, 3, 0)
    assert (record["seed"], record["device"], record["step"]) == (0, "cpu", 6)
    assert set(record["classes"]) == {"red", "blue"}
    assert {"ap", "ap50", "ap75", "ar1", "ar10", "ar100", "torch", "commit", "date", "weights"} <= set(record)
    assert all(0 <= record[name] <= 1 for name in ("ap", "ap50", "ap75", "ar100"))


def test_the_saved_detector_is_the_measured_one(whole, coco):
    detector, classes = load_detector(whole)
    assert not detector.training
    found, truths = detect_boxes(detector, BoxBatches(load_boxes(coco, "val"), batch_size=2, channels=1))
    metrics, _ = coco_metrics(found, truths, classes)
    record = events(whole, "detection")[1]
    assert sum(len(image.scores) for image in found) == record["detections"]
    assert {name: record[name] for name in metrics} == metrics


def test_another_seed_ends_elsewhere(whole, backbone, coco, tmp_path):
    detect(small(backbone, coco, seed=1, evaluate_before=False), tmp_path / "other", quiet=True)
    assert weights(tmp_path / "other") != weights(whole)
    assert [event["when"] for event in events(tmp_path / "other", "detection")] == ["after"]


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5])
def test_a_stopped_run_ends_as_if_it_had_not_been_stopped(whole, backbone, coco, tmp_path, steps):
    """Before the first checkpoint, between two, at one amid an epoch, at the end of an epoch, after it."""
    shutil.copytree(backbone, tmp_path / "backbone")
    config = small(tmp_path / "backbone", coco, checkpoint_steps=2, label="run")
    with stopped_after(steps):
        detect(config, tmp_path / "run", quiet=True)
    assert (tmp_path / "run/last.ckpt").exists() == (steps >= 2)
    if steps >= 2:
        shutil.rmtree(tmp_path / "backbone")  # all that is needed is in the run
    torch.rand(7)
    resume_detect(tmp_path / "run", quiet=True)
    assert weights(tmp_path / "run") == weights(whole)
    assert steady(tmp_path / "run") == steady(whole)
    before = files(tmp_path / "run")
    resume_detect(tmp_path / "run", quiet=True)
    assert files(tmp_path / "run") == before


def test_squares_are_learned(backbone, coco, tmp_path, capsys):
    """The loss falls, and the detector finds its training images' squares, of which it found none before."""
    detect(small(backbone, coco, **LEARNS), tmp_path / "run")
    found = {(event["when"], event["split"]): event for event in events(tmp_path / "run", "detection")}
    assert list(found) == [("before", "test"), ("before", "train"), ("after", "test"), ("after", "train")]
    assert found["before", "train"]["ap50"] < 0.1
    assert found["after", "train"]["ap50"] > 0.5
    losses = [event["train_loss"] for event in events(tmp_path / "run", "epoch")]
    assert losses[-1] < 0.7 * losses[0]
    out = capsys.readouterr().out.splitlines()
    assert sum("epoch " in line for line in out) == LEARNS["epochs"]


def test_a_run_on_voc_is_measured_by_vocs_rules(backbone, voc, tmp_path):
    run = detect(small(backbone, voc, epochs=1), tmp_path / "run", quiet=True)
    record = events(run.path, "detection")[-1]
    assert record["rule"] == "voc"
    assert {"ap", "ap50", "ap75", "11_point/ap50"} <= set(record)
    assert set(record["classes"]) == {"blue", "red"}
    assert set(record["classes"]["red"]) == {"ap", "ap50", "ap75", "11_point/ap50"}
    assert "ar100" not in record


def test_random_weights_are_others_than_the_runs(backbone, coco, tmp_path):
    config = small(backbone, coco, trainable_stages=None)
    network, origin = load_backbone(config)
    stem = network.stem.weight.clone()
    splits = load_splits(config)
    kept = DetectEngine(config, origin, splits, network).detector.backbone.body["stem"].weight
    assert torch.equal(kept, stem)
    drawn = DetectEngine(replace(config, init="random"), origin, splits, network).detector.backbone.body["stem"].weight
    assert not torch.equal(drawn, stem)
    assert drawn.requires_grad
    assert not kept.requires_grad


def test_sigterm_stops_behind_a_checkpoint_and_of_two_processes_one_is_refused(whole, backbone, coco, tmp_path):
    told = before_step(2, lambda _: os.kill(os.getpid(), signal.SIGTERM), DetectEngine)
    with pytest.raises(Terminated, match="143"), told:
        detect(small(backbone, coco), tmp_path / "run", quiet=True)
    assert load_newest(tmp_path / "run/last.ckpt")["at"] == [0, 2, 2]
    with DetectFolder(tmp_path / "run").writing(), pytest.raises(BlockingIOError, match="by another process"):
        resume_detect(tmp_path / "run", quiet=True)
    resume_detect(tmp_path / "run", quiet=True)
    assert weights(tmp_path / "run") == weights(whole)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), r"^out of memory at mini-batch 3 of run; the last good checkpoint is .* smaller images"),
        (None, r"^the (weights|loss) of run turned (non-finite|nan|inf) at mini-batch 4; the last good checkpoint is"),
    ],
)
def test_what_stops_a_training_run_stops_this_one(error, said, backbone, coco, tmp_path):
    def ruin(engine):
        if error is not None:
            raise error
        engine.detector.state_dict()["rpn.head.cls_logits.bias"].fill_(float("inf"))

    with pytest.raises(TrainingError, match=said), before_step(4, ruin, DetectEngine):
        detect(small(backbone, coco, checkpoint_steps=1, label="run"), tmp_path / "run", quiet=True)
    assert load_newest(tmp_path / "run/last.ckpt")["at"][2] == 3


@pytest.mark.bad_input
def test_a_missing_package_is_named_before_anything_is_trained(backbone, coco, tmp_path, monkeypatch):
    monkeypatch.setattr("multimix.lab.evaluate.detection.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install faster-coco-eval"):
        detect(small(backbone, coco), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": ""}, "backbone must be the folder of a finished training run"),
        ({"backbone": "nowhere"}, "there is no run folder nowhere"),
        ({"data": "coco:nowhere"}, "there is no file nowhere/annotations"),
        ({"test_split": "other"}, "there is no file"),
        ({"device": "tpu"}, "device must be auto, cpu, cuda or cuda:N"),
        ({"finest": 32}, "finest must be at most 8"),
        ({"trainable_stages": 9}, "trainable_stages must be at most 4"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_written(backbone, coco, tmp_path, changes, said):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        detect(replace(small(backbone, coco), **changes), tmp_path / "run", quiet=True)
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.bad_input
def test_damaged_and_foreign_folders_are_refused(whole, backbone, coco, tmp_path):
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        detect(small(backbone, coco), whole, quiet=True)
    with pytest.raises(ValueError, match=r"config\.json holds a TrainConfig, not a DetectConfig"):
        resume_detect(backbone, quiet=True)
    shutil.copytree(whole, tmp_path / "run")
    text = (whole / "config.json").read_text()
    (tmp_path / "run/config.json").write_text(text.replace('"epochs"', '"epochz"', 1))
    with pytest.raises(ValueError, match="has no field epochz"):
        resume_detect(tmp_path / "run", quiet=True)
    (tmp_path / "run/config.json").write_text(text)
    (tmp_path / "run/model.safetensors").write_bytes(b"12345678")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load_detector(tmp_path / "run")
    (tmp_path / "run/model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="finish it with: multimix detect --resume"):
        load_detector(tmp_path / "run")


@pytest.mark.bad_input
def test_other_boxes_in_their_place_are_noticed(backbone, tmp_path):
    for seed, split in enumerate(("train", "val")):
        coco_squares(tmp_path, split, seed)
    with stopped_after(1):
        detect(small(backbone, f"coco:{tmp_path}"), tmp_path / "run", quiet=True)
    coco_squares(tmp_path, "val", 1, images=5)
    with pytest.raises(ValueError, match=r"that run .* began with: test had 6 images and has 5"):
        resume_detect(tmp_path / "run", quiet=True)
    coco_squares(tmp_path, "val", 7)
    with pytest.raises(ValueError, match="test has 6 images as before, but others"):
        resume_detect(tmp_path / "run", quiet=True)


@pytest.mark.bad_input
def test_images_are_looked_at_before_anything_is_trained(backbone, tmp_path):
    for seed, split in enumerate(("train", "val", "none")):
        coco_squares(tmp_path, split, seed)
    file = tmp_path / "annotations/instances_none.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    config = small(backbone, f"coco:{tmp_path}")
    with pytest.raises(ValueError, match="none has no object to measure on"):
        detect(replace(config, test_split="none"), tmp_path / "run", quiet=True)
    assert load_splits(replace(config, test_split="train"))["test"].notes == (
        "6 of the 6 images to measure on are trained on, too",
    )
    (tmp_path / "val" / "3.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1 of 6 files cannot be read .*val/3\.png"):
        detect(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.bad_input
def test_another_backbone_in_its_place_is_noticed(backbone, coco, tmp_path):
    shutil.copytree(backbone, tmp_path / "backbone")
    with stopped_after(0):
        detect(small(tmp_path / "backbone", coco), tmp_path / "run", quiet=True)
    file = tmp_path / "backbone/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="holds other weights than when the run began"):
        resume_detect(tmp_path / "run", quiet=True)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_size": 700}, "max_size must be at least min_size, got 700 and 800"),
        ({"init": "random", "trainable_stages": 3}, "trainable_stages does not go with init='random'"),
        ({"optimizer": 0.1}, "optimizer must be SGD or AdamW, got 0.1"),
    ],
)
def test_impossible_settings(changes, said):
    with pytest.raises((ValueError, TypeError), match=said):
        DetectConfig(**changes)
