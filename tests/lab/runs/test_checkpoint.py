"""Files are written whole or not at all, and reading one never runs a program; random states and weights come back."""

import io
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from multimix.lab.runs.checkpoint import (
    FORMAT,
    digest,
    load_checkpoint,
    load_weights,
    restore_random_states,
    save_checkpoint,
    save_weights,
    seed_everything,
)
from train.tiny import same

STATE = {
    "network": {"weight": torch.arange(12.0).view(3, 4), "steps": torch.tensor(5)},
    "at": [1, 2, 3],
    "ema": None,
    "log": {"sums": {"train_loss": 0.1 + 0.2}, "batches": 3},
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, STATE)
    return path


def test_a_checkpoint_comes_back_as_it_was(checkpoint):
    found = load_checkpoint(checkpoint)
    assert found.pop("random")
    assert same(found, {"format": FORMAT, **STATE})
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


@pytest.mark.parametrize("cause", [RuntimeError("broken"), OSError("no room"), KeyboardInterrupt("by hand")])
@pytest.mark.parametrize("when", ["pickled", "written", "on its way to the disk"])
def test_what_stops_a_write_is_what_is_said_and_the_old_checkpoint_stays(cause, when, checkpoint, monkeypatch):
    """Amid a write torch goes on, and complains of bytes that are missing then."""
    old, count = checkpoint.read_bytes(), iter(range(3))

    def stop(*_: Any) -> Any:
        raise cause

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            return stop() if next(count, None) is None else super().write(data)

    if when == "written":
        monkeypatch.setattr(Path, "open", lambda path, mode: Full(path, mode))
    elif when != "pickled":
        monkeypatch.setattr(os, "fsync", stop)
    broken = {"broken": type("Broken", (), {"__reduce__": stop})()} if when == "pickled" else {}
    with pytest.raises(type(cause), match=str(cause)):
        save_checkpoint(checkpoint, {"network": torch.zeros(100_000), **broken})
    monkeypatch.undo()
    assert checkpoint.read_bytes() == old
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


@pytest.mark.bad_input
def test_a_flipped_bit_is_noticed_or_harmless(checkpoint):
    """The archive holds a sum of every record; bits between the records mean nothing."""
    whole, expected = checkpoint.read_bytes(), load_checkpoint(checkpoint)
    complaints: list[str] = []
    flips = random.Random(0).sample(range(8 * len(whole)), 200)
    for flip in flips:
        damaged = bytearray(whole)
        damaged[flip // 8] ^= 1 << flip % 8
        checkpoint.write_bytes(damaged)
        try:
            found = load_checkpoint(checkpoint)
        except ValueError as error:
            complaints.append(str(error))
        else:
            assert same(found, expected)
    assert len(complaints) > len(flips) / 2
    start = f"checkpoint {checkpoint} is damaged or not a checkpoint: "
    assert all(line.startswith(start) and "\n" not in line for line in complaints)


def hollow(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"hello")


DAMAGED, FOREIGN = r"is damaged or not a checkpoint: \S", "was not written by this version of multimix: format"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("ruin", "kind", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), ValueError, DAMAGED),
        (lambda path: path.write_bytes(b""), ValueError, DAMAGED),
        (lambda path: path.write_bytes(pickle.dumps({"format": 1})), ValueError, DAMAGED),
        (hollow, ValueError, DAMAGED),
        (lambda path: torch.save({}, path), ValueError, f"{FOREIGN} None, not 1"),
        (lambda path: torch.save({"format": 2, **STATE}, path), ValueError, f"{FOREIGN} 2, not 1"),
        (lambda path: torch.save([1, 2], path), ValueError, f"{FOREIGN} 'list', not 1"),
        (Path.unlink, FileNotFoundError, r"there is no checkpoint .*last\.ckpt"),
    ],
    ids=["a byte short", "empty", "pickle", "hollow zip", "nothing inside", "of another format", "a list", "missing"],
)
def test_what_is_no_whole_checkpoint_is_refused(ruin, kind, said, checkpoint):
    ruin(checkpoint)
    with pytest.raises(kind, match=said):
        load_checkpoint(checkpoint)


class Malicious:
    """Runs a program when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


@pytest.mark.bad_input
@pytest.mark.parametrize("zipped", [True, False])
def test_no_program_inside_a_file_is_run(zipped, tmp_path):
    proof, path = tmp_path / "proof", tmp_path / "last.ckpt"
    torch.save({"format": FORMAT, "network": Malicious(proof)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="is damaged or not a checkpoint"):
        load_checkpoint(path)
    assert not proof.exists()


def draws() -> list[float]:
    """A draw from each global generator, of normals too, of which two are made at a time."""
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),  # noqa: NPY002
        float(np.random.randn()),  # noqa: NPY002
        float(torch.rand(())),
        float(torch.randn(3).sum()),
    ]


@pytest.mark.parametrize("seed", [7, 2**64 - 1])
def test_every_random_generator_goes_on_where_it_was(seed, tmp_path):
    seed_everything(seed)
    draws()  # leaves the second normals of Python and NumPy waiting
    save_checkpoint(tmp_path / "last.ckpt", {})
    expected = [draws(), draws()]
    seed_everything(8)
    assert all(a != b for a, b in zip(draws(), expected[0], strict=True))
    restore_random_states(load_checkpoint(tmp_path / "last.ckpt")["random"])
    assert [draws(), draws()] == expected
    seed_everything(seed)
    draws()
    assert draws() == expected[0]


class Tied(nn.Module):
    """One normalisation under two names, one matrix in two layers, and a buffer with nothing in it."""

    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm1d(3)
        self.second = self.first
        self.down, self.up = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
        self.up.weight = self.down.weight
        self.register_buffer("none", torch.empty(0))
        for value in self.state_dict().values():
            value.copy_(torch.randint(1, 9, value.shape).to(value.dtype))


@pytest.fixture
def written(tmp_path):
    path, network = tmp_path / "model.safetensors", Tied()
    save_weights(path, network)
    return path, network


def test_all_weights_come_back_and_what_is_one_stays_one(written):
    path, network = written
    assert len(load_file(path)) < len(network.state_dict()), "what is one is written once"
    other = Tied()
    load_weights(path, other)
    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    assert other.up.weight is other.down.weight
    assert len(digest(path)) == 16


def test_every_tensor_of_the_file_is_needed_and_no_other(written):
    path, _ = written
    whole = load_file(path)
    assert any(name.endswith("num_batches_tracked") for name in whole)
    for name in sorted(whole):
        save_file({key: value for key, value in whole.items() if key != name}, path)
        with pytest.raises(ValueError, match=rf"model\.safetensors is damaged or of another network: .*{name}"):
            load_weights(path, Tied())
    save_file({**whole, "more": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"of another network: .*more"):
        load_weights(path, Tied())
