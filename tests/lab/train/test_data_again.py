"""A run meets its data again: the same, changed, moved or others; and is taken to more epochs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from multimix.lab.data import Images, Splits, difference, identity, load
from multimix.lab.report import read_run
from multimix.lab.train import Engine, evaluate_run, load_network, resume, train
from multimix.lab.train.folder import RunFolder
from multimix.lab.train.launch import Launch, run_all
from train.tiny import events, parameters, splits_of, stopped_after, tiny, train_all, weights


@pytest.fixture
def noise(tmp_path, monkeypatch) -> Path:
    """A folder of noise in two classes, named from where the process is."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in "ab":
        folder = tmp_path / "pics" / name
        folder.mkdir(parents=True)
        for i in range(30):
            Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "pics"


def small(**changes):
    return tiny(**{"data": "folder:pics", "train_size": None, "epochs": 1, **changes})


@pytest.fixture
def run(noise) -> Path:
    return train(small(), noise.parent / "run", quiet=True).path


def add_one(noise: Path) -> None:
    (noise / "a" / "new.png").write_bytes((noise / "a" / "0.png").read_bytes())


def sets(**changes):
    images = torch.arange(4 * 12).view(4, 3, 2, 2).to(torch.uint8)
    plain = Images(images, torch.tensor([0, 1, 0, 1]), ("a", "b"))
    parts = {"train": plain, "validation": plain, "test": plain, **changes}
    return Splits("x", parts["train"], parts["validation"], parts["test"], (), ())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda images, labels: (images, labels), None),
        (lambda images, labels: (images[:3], labels[:3]), "test had 4 images and has 3"),
        (lambda images, labels: (images.flip(0), labels), "test has 4 images as before, but others"),
        (lambda images, labels: (images, labels.flip(0)), "test has 4 images as before, but others"),
        (lambda images, labels: (images.view(4, 3, 4, 1), labels), "test has 4 images as before, but others"),
    ],
)
def test_pixels_labels_order_and_shape_are_told_apart(change, said):
    whole = sets()
    test = Images(*change(whole.test.images, whole.test.labels), whole.classes)
    assert difference(identity(whole), identity(sets(test=test))) == said


def test_a_split_that_goes_is_said():
    assert difference(identity(sets()), identity(sets(validation=None))) == "validation had 4 images and has 0"


@pytest.mark.parametrize("size", [None, 100])
def test_a_file_that_changes_is_noticed_in_memory_and_of_another_size_on_the_disk(noise, size):
    def known():
        return identity(load("folder:pics", image_size=size))

    before = known()
    first = noise / "a" / "0.png"
    first.write_bytes(first.read_bytes() + (b"" if size is None else b"more"))
    if size is None:
        Image.new("RGB", (12, 12)).save(first)
    assert "as before, but others" in difference(before, known())


def test_a_file_that_is_added_moves_no_other_image(noise):
    before = load("folder:pics")
    add_one(noise)
    after = load("folder:pics")
    held = {name: {image.numpy().tobytes() for image in getattr(before, name).images} for name in ("train", "test")}
    assert not held["train"] & {image.numpy().tobytes() for image in after.test.images}
    assert held["test"] <= {image.numpy().tobytes() for image in after.test.images}


@pytest.mark.bad_input
def test_changed_data_are_refused_by_all_that_read_the_run(noise, run):
    add_one(noise)
    said = r"data folder:pics are not those that run .*run was trained on: (train|validation|test) had \d+ images"
    with pytest.raises(ValueError, match=said + ".*--data folder:pics"):
        evaluate_run(run, again=True)
    with pytest.raises(ValueError, match=said):
        load_network(run)
    with pytest.raises(ValueError, match=said + ".*--init"):
        resume(run, epochs=2, quiet=True)
    before = weights(run)
    assert not list(run.glob("after-*"))
    assert weights(run) == before


@pytest.mark.bad_input
def test_an_unfinished_run_does_not_go_on_with_changed_data(noise):
    with stopped_after(1):
        train(small(checkpoint_steps=1), noise.parent / "run", quiet=True)
    add_one(noise)
    with pytest.raises(ValueError, match="are not those that run"):
        resume(noise.parent / "run", quiet=True)


def test_results_on_data_that_are_named_are_kept_apart(noise, run):
    own = events(run, "test")
    add_one(noise)
    [found] = evaluate_run(run, data="folder:pics")
    assert found["other_data"]["name"] == "folder:pics"
    assert events(run, "test") == own
    assert [event["other_data"] for event in events(run, "other_test")] == [found["other_data"]]
    assert evaluate_run(run, data="folder:pics") == [found]  # kept
    assert len(events(run, "other_test")) == 1
    (noise / "a" / "new.png").unlink()
    assert "other_data" not in evaluate_run(run)[0]
    assert [test["suite"] for test in read_run(run).tests] == ["accuracy"]


def test_data_are_found_from_elsewhere_and_where_they_moved(noise, run, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    [own] = evaluate_run(run, again=True)
    assert "other_data" not in own
    noise.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"folder:pics is not a folder; where .* --data"):
        evaluate_run(run, again=True)
    [moved] = evaluate_run(run, again=True, data=f"folder:{tmp_path / 'moved'}")
    assert "other_data" not in moved
    assert moved["nll"] == own["nll"]


def test_a_run_that_is_resumed_keeps_where_its_data_went(noise, tmp_path):
    with stopped_after(1):
        train(small(checkpoint_steps=1), tmp_path / "run", quiet=True)
    noise.rename(tmp_path / "moved")
    resume(tmp_path / "run", data=f"folder:{tmp_path / 'moved'}", quiet=True)
    whole = train(small(data=f"folder:{tmp_path / 'moved'}", checkpoint_steps=1), tmp_path / "whole", quiet=True)
    assert weights(tmp_path / "run") == weights(whole.path)
    assert evaluate_run(tmp_path / "run", again=True)


def test_runs_of_before_know_no_data_and_had_other_images_held_out(run, tmp_path):
    digits = train(tiny(epochs=1), tmp_path / "digits", quiet=True).path
    for folder in (run, digits):
        config = json.loads((folder / "config.json").read_text())
        del config["data"]
        (folder / "config.json").write_text(json.dumps(config))
    assert evaluate_run(digits, again=True)
    for use in (evaluate_run, lambda folder: resume(folder, epochs=2, quiet=True)):
        with pytest.raises(ValueError, match="held out by their places, now by their names; "):
            use(run)
    assert "other_data" in evaluate_run(run, data="folder:pics")[0]


def test_what_reading_found_is_said_and_kept(noise, capfd):
    (noise / "a" / "notes.txt").write_text("no image")
    run = train(small(), noise.parent / "run")
    said = capfd.readouterr().err
    assert "left out, no image by its name: 1: a/notes.txt" in said
    assert "folder:pics: " + run.read_data()["notes"][0] in said


def test_other_data_than_those_of_init_are_said(noise, run, capfd):
    train(small(init=str(run)), noise.parent / "same")
    assert "init" not in capfd.readouterr().err
    train(small(init=str(run), split_seed=1), noise.parent / "other")
    assert "may have seen images that are the test set here" in capfd.readouterr().err


def test_more_epochs_follow_the_schedule_of_all_of_them(tmp_path, capsys):
    first = tiny(epochs=2)
    run = train(first, tmp_path / "run", quiet=True)
    before, records = weights(run.path), events(run.path, "test")
    resume(run.path, epochs=4)
    assert "2 epochs become 4" in capsys.readouterr().err

    engine = Engine(first, splits_of(first))
    train_all(engine)
    longer = Engine(tiny(epochs=4), splits_of(first))
    longer.load(engine.state())
    train_all(longer)
    found = load_file(run.path / "model.safetensors")
    assert all(torch.equal(found[name], value) for name, value in parameters(longer.network).items())
    # half a cosine over 4 epochs, after 2 of them, against the end of one over 2
    rates = [event["learning_rate"] for event in events(run.path, "epoch")]
    assert rates == pytest.approx([0.025, 0.0, 0.05 * (1 + np.cos(0.75 * np.pi)) / 2, 0.0], abs=1e-12)

    kept = run.path / "after-2-epochs"
    assert weights(kept) == before
    assert events(kept, "test") == records
    assert [test["epoch"] for test in events(run.path, "test")] == [4]
    assert json.loads((run.path / "config.json").read_text())["extended"] == [2]
    assert read_run(kept).finished


@pytest.mark.bad_input
def test_epochs_that_are_no_more_and_runs_without_a_checkpoint_are_refused(run):
    with pytest.raises(ValueError, match="epochs must be above the run's 1 to take it further, got 1"):
        resume(run, epochs=1)
    (run / "last.ckpt").unlink()
    with pytest.raises(ValueError, match="keeps no checkpoint to go on from"):
        resume(run, epochs=2, quiet=True)


def test_many_runs_are_taken_further_if_asked_to_and_find_moved_data(noise, tmp_path):
    def compare(epochs, data="folder:pics", **settings):
        run_all({tmp_path / "out": small(epochs=epochs, data=data)}, Launch(quiet=True, **settings))
        return [event["epoch"] for event in events(tmp_path / "out", "epoch")]

    assert compare(1) == [1]
    with pytest.raises(ValueError, match=r"another epochs \(1, not 2\); give another --out, or .* --extend"):
        compare(2)
    assert compare(2, extend=True) == [1, 2]
    noise.rename(tmp_path / "moved")
    moved = f"folder:{tmp_path / 'moved'}"
    assert compare(3, moved, extend=True) == [1, 2, 3]
    assert RunFolder(tmp_path / "out").read_config().data == moved
    both = {tmp_path / name: small(epochs=3, data=moved, seed=i) for i, name in enumerate(("out", "more"))}
    add_one(tmp_path / "moved")
    run_all({tmp_path / "out": both[tmp_path / "out"]}, Launch(quiet=True))  # there is nothing to train
    with pytest.raises(ValueError, match=r"are not those that run .*out was trained on"):
        run_all(both, Launch(quiet=True))
    assert not (tmp_path / "more").exists()
    (tmp_path / "moved").rename(tmp_path / "again")
    with pytest.raises(ValueError, match="are not those that run"):
        compare(3, f"folder:{tmp_path / 'again'}")


def test_runs_whose_data_moved_stand_in_one_table_with_new_ones(noise, tmp_path):
    run_all({tmp_path / "first": small()}, Launch(quiet=True))
    noise.rename(tmp_path / "moved")
    both = {tmp_path / name: small(seed=i, data="folder:moved") for i, name in enumerate(("first", "second"))}
    run_all(both, Launch(quiet=True))
    [one] = {read_run(folder).setting for folder in both}
    assert "folder:moved" in str(one)


def test_runs_that_were_taken_further_are_a_kind_of_their_own(tmp_path):
    train(tiny(epochs=1), tmp_path / "long", quiet=True)
    resume(tmp_path / "long", epochs=2, quiet=True)
    train(tiny(epochs=2, seed=1), tmp_path / "plain", quiet=True)
    assert read_run(tmp_path / "long").kind != read_run(tmp_path / "plain").kind
