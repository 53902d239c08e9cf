import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import multimix as mm
from multimix.lab.data import Batches, UnreadableError
from multimix.lab.evaluate.passes import predict
from multimix.lab.hub import save_pretrained
from multimix.lab.inference import Transform
from multimix.lab.train import load_network, train
from photos import several_labels
from train.tiny import tiny


def evaluated(run, size=7):
    """Probabilities of the test images by the batches of evaluation, and where these images lie."""
    network, splits = load_network(run, device="cpu")
    logits, _ = predict(network, Batches(splits.test, batch_size=size, mean=splits.mean, std=splits.std, shuffle=False))
    return logits.softmax(1), splits


def test_files_get_the_probabilities_of_evaluation(run, colours):
    """Where a folder is decoded into memory before training."""
    expected, splits = evaluated(run)
    model = mm.load(run, device="cpu")
    files = sorted(colours.rglob("*.*"))
    rows = {model.transform.pixels(file).numpy().tobytes(): model(file) for file in files}
    found = torch.stack([rows[image.numpy().tobytes()] for image in splits.test.images])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert model.classes == splits.classes == ("blue", "green", "red")


def test_files_that_stay_on_the_disk_are_cut_as_in_evaluation(tmp_path, colours):
    config = tiny(data=f"folder:{colours}", train_size=None, image_size=112, epochs=1, batch_size=8, width=8)
    run = train(config, tmp_path / "run", quiet=True).path
    expected, splits = evaluated(run)
    model = mm.load(run, device="cpu")
    assert model.transform.ratio == 256 / 224
    found = model([str(path) for path in splits.test.paths])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_images_of_any_kind_are_one_image(run, colours):
    model = mm.load(str(run), device="cpu")
    path = colours / "red" / "0.png"
    image = Image.open(path)
    array = np.asarray(image)
    same = [path, str(path), image, image.convert("RGBA"), array, torch.from_numpy(array.copy()).permute(2, 0, 1)]
    rows = model([*same, model.transform(path)])
    assert rows.shape == (7, 3)
    assert torch.equal(rows, rows[:1].expand(7, 3))
    assert model(path).shape == (3,)
    torch.testing.assert_close(rows.sum(1), torch.ones(7))
    batch = torch.stack([model.transform.pixels(path)] * 2)
    torch.testing.assert_close(model(batch), rows[:2])
    torch.testing.assert_close(model(torch.stack([model.transform(path)] * 2)), rows[:2])
    with torch.no_grad():
        logits = model.network(model.transform(path)[None])
    torch.testing.assert_close(logits.softmax(1), rows[:1])


def test_transform_is_the_steps_from_their_definitions():
    """A picture of one colour is that colour, scaled by mean and standard deviation, wherever it is cut."""
    transform = Transform((3, 8, 8), (0.5, 0.4, 0.3), (0.2, 0.1, 0.3), 256 / 224)
    made = transform(Image.new("RGB", (30, 11), (51, 102, 255)))
    expected = torch.tensor([(0.2 - 0.5) / 0.2, (0.4 - 0.4) / 0.1, (1 - 0.3) / 0.3])
    torch.testing.assert_close(made, expected.view(3, 1, 1).expand(3, 8, 8), atol=1e-5, rtol=1e-5)
    tall = Transform((1, 4, 8), (0.0,), (1.0,))
    assert tall(np.full((6, 6), 255, np.uint8)).eq(1).all()
    as_it_is = np.arange(32, dtype=np.uint8).reshape(4, 8)
    assert torch.equal(tall.pixels(as_it_is), torch.from_numpy(as_it_is)[None])
    assert pickle.loads(pickle.dumps(transform)) == transform  # noqa: S301


def test_predictions_name_the_classes_in_order(run, colours):
    model = mm.load(run, device="cpu")
    files = [colours / name / f"{number}.jpg" for name in model.classes for number in (1, 2)]
    said = model.predict(files, top=2, batch_size=4)
    for file, one in zip(files, said, strict=True):
        row = model(file)
        assert one.label == model.classes[row.argmax()]
        assert one.labels == (one.label,)
        assert [p for _, p in one.top] == pytest.approx(sorted(row.tolist(), reverse=True)[:2], rel=1e-5)
        assert one.probability == one.top[0][1]
    assert sum(one.label == file.parent.name for file, one in zip(files, said, strict=True)) >= 5


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_files_are_passed_by(run, colours, tmp_path, workers):
    model = mm.load(run, device="cpu")
    (tmp_path / "bad.png").write_bytes(b"no image")
    files = [colours / "red" / "1.jpg", tmp_path / "bad.png", colours / "blue" / "0.png", tmp_path / "gone.jpg"]
    found = list(model.predict_files(files, batch_size=3, workers=workers))
    assert [path for path, _ in found] == [str(file) for file in files]
    assert [isinstance(said, UnreadableError) for _, said in found] == [False, True, False, True]
    expected = model.predict([files[0], files[2]])
    assert [found[i][1].label for i in (0, 2)] == [one.label for one in expected]
    assert "bad.png cannot be read as an image" in str(found[1][1])


def test_several_labels_have_probabilities_of_their_own(tmp_path):
    parts = several_labels(tmp_path)
    run = train(tiny(data=f"npz:{tmp_path / 'set.npz'}", train_size=None, epochs=1), tmp_path / "run", quiet=True).path
    model = mm.load(run, device="cpu")
    image = parts["test_images"][0]
    with torch.no_grad():
        expected = model.network(model.transform(image)[None])[0].sigmoid()
    assert torch.equal(model(image), expected)
    middle = float(expected.sort().values[1])
    [said] = model.predict(image, threshold=middle)
    assert set(said.labels) == {model.classes[i] for i in range(3) if expected[i] >= middle}
    assert len(said.labels) == 2
    assert model.predict(image, threshold=1.0)[0].labels == ()


def test_loads_what_was_saved_for_the_hub(run, tmp_path, colours):
    folder = save_pretrained(run, tmp_path / "out")
    path = colours / "green" / "2.jpg"
    assert torch.equal(mm.load(folder, device="cpu")(path), mm.load(run, device="cpu")(path))
    snippet = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert 'mm.load(".")' in snippet
    values = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(snippet, values)  # noqa: S102
    assert values["tensor"].shape == values["model"].transform.shape


@pytest.mark.bad_input
def test_what_cannot_be_loaded_is_said(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        mm.load("nowhere")
    stopped = shutil.copytree(run, tmp_path / "stopped")
    (stopped / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="finish it with: multimix train --resume"):
        mm.load(stopped)
    bare = save_pretrained(mm.models.build("preact_resnet18", num_classes=2, width=2), tmp_path / "bare")
    with pytest.raises(ValueError, match="network must be given"):
        mm.load(bare)
    with pytest.raises(ValueError, match=r"holds weights and not what they are of"):
        mm.load(run / "model.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match="is damaged or no safetensors"):
        mm.load(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="device must be auto, cpu"):
        mm.load(run, device="tpu")


@pytest.mark.bad_input
def test_what_is_no_image_is_said(run, tmp_path):
    model = mm.load(run, device="cpu")
    refused = {
        "images must be one image or more, got none": [],
        "image must be a path, a PIL image, or pixels": 3,
        r"image must be uint8 pixels \(c, h, w\)": torch.zeros(4, 4, dtype=torch.uint8),
        "got an array of float64": np.zeros((4, 4, 3)),
        r"as model.transform makes them, \(c, h, w\) = \(3, 16, 16\), got \(3, 8, 8\)": torch.zeros(3, 8, 8),
        "cannot be read as an image": tmp_path / "gone.png",
    }
    for said, given in refused.items():
        with pytest.raises((TypeError, ValueError), match=said):
            model(given)
    with pytest.warns(UserWarning, match=r"float tensors in \[0, 1\]"):
        model(torch.rand(3, 16, 16))
    with pytest.raises(ValueError, match="top must be at least 1"):
        model.predict([Image.new("RGB", (4, 4))], top=0)
    with pytest.raises(ValueError, match="threshold must"):
        model.predict([Image.new("RGB", (4, 4))], threshold=2.0)
