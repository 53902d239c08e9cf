"""What the recipe for images of one's own chooses, and that it says so."""

from dataclasses import replace
from urllib.error import URLError

import numpy as np
import pytest
import torch

from multimix.lab.recipes import _folder
from multimix.lab.train import TrainConfig, train
from photos import photos


def arrays(folder, count, side, classes=3):
    rng = np.random.default_rng(0)
    parts = {}
    for part in ("train", "test"):
        parts[f"{part}_images"] = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        parts[f"{part}_labels"] = np.arange(count) % classes
    np.savez(folder / "set.npz", **parts)
    return f"npz:{folder / 'set.npz'}"


def test_photos_of_many_sizes_are_brought_to_one(tmp_path):
    data = f"folder:{photos(tmp_path / 'pics', side=100)}"
    chosen = _folder.for_data(TrainConfig(data=data, device="cpu"))
    config = chosen.config
    assert (config.recipe, config.data, config.image_size, config.width) == ("folder", data, 64, 16)
    assert config.strides == (2, 2, 2, 2)
    assert (config.batch_size, config.epochs) == (8, 150)
    assert any("at 64 pixels" in reason for reason in chosen.reasons)
    assert any("--pretrained fetches" in reason for reason in chosen.reasons)
    kept = _folder.for_data(TrainConfig(data=data, device="cpu", image_size=32, split_seed=3)).config
    assert (kept.image_size, kept.split_seed, kept.strides) == (32, 3, (2, 2, 2, 1))


@pytest.mark.parametrize(
    ("count", "side", "expected"),
    [
        (40, 8, {"strides": (1, 2, 1, 1), "crop_padding": 1, "batch_size": 8, "epochs": 150}),
        (2000, 32, {"strides": (2, 2, 2, 1), "crop_padding": 4, "batch_size": 128, "epochs": 33}),
    ],
)
def test_small_images_stay_as_they_are(tmp_path, count, side, expected):
    chosen = _folder.for_data(TrainConfig(data=arrays(tmp_path, count, side), device="cpu"))
    assert {name: getattr(chosen.config, name) for name in expected} == expected
    assert chosen.config.image_size is None
    assert any("images as they are" in reason for reason in chosen.reasons)


@pytest.mark.parametrize("here", [True, False])
def test_pretrained_weights_are_taken_where_they_are_or_asked_for(tmp_path, monkeypatch, here):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    if here:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").touch()
    data = f"folder:{photos(tmp_path / 'pics', each=6, side=100)}"
    config = TrainConfig(data=data, device="cpu")
    found = _folder.for_data(config).config
    assert (found.model, found.pretrained) == ((_folder.PRETRAINED, True) if here else ("preact_resnet18", False))
    asked = _folder.for_data(replace(config, pretrained=True)).config
    assert (asked.model, asked.pretrained, asked.image_size) == (_folder.PRETRAINED, True, 224)


@pytest.mark.bad_input
def test_weights_that_cannot_be_fetched_are_said(tmp_path, monkeypatch):
    def fetch(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("multimix.lab.train.network.build", fetch)
    config = TrainConfig(data=arrays(tmp_path, 40, 8), model=_folder.PRETRAINED, pretrained=True, device="cpu")
    said = (
        r"pretrained: the weights of torchvision:resnet18 are not on this machine and cannot be fetched \(.*no network"
    )
    with pytest.raises(OSError, match=said):
        train(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_uneven_classes_are_said(tmp_path):
    pics = photos(tmp_path / "pics", side=20)
    for file in sorted((pics / "red").iterdir())[:10]:
        file.unlink()
    reasons = _folder.for_data(TrainConfig(data=f"folder:{pics}", device="cpu")).reasons
    [said] = [reason for reason in reasons if "uneven" in reason]
    assert "--objective CrossEntropy --objective.class-weights balanced" in said
