"""Checkpoints: whole or not at all, and never a program; random states come back."""

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

from multimix.lab.runs import checkpoint as checkpoints
from multimix.lab.runs.checkpoint import (
    FORMAT,
    load_checkpoint,
    random_states,
    replacing,
    restore_random_states,
    save_checkpoint,
    seed_everything,
)

STATE = {
    "network": {"weight": torch.arange(12.0).view(3, 4), "steps": torch.tensor(5)},
    "at": [1, 2, 3],
    "ema": None,
    "log": {"sums": {"train_loss": 0.1 + 0.2}, "batches": 3},
}


def without_random(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name != "random"}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, STATE)
    return path


def test_a_checkpoint_comes_back_as_it_was(checkpoint):
    found = load_checkpoint(checkpoint)
    assert same(without_random(found), {"format": FORMAT, **STATE})
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


class Unwritable:
    """Something that fails in the middle of being saved."""

    def __reduce__(self) -> Any:
        raise RuntimeError("the disk is full, say")


def test_failing_to_write_leaves_the_old_checkpoint_and_nothing_else(checkpoint):
    old = checkpoint.read_bytes()
    with pytest.raises(RuntimeError, match="the disk is full"):
        save_checkpoint(checkpoint, {"network": torch.zeros(1000), "broken": Unwritable()})
    assert checkpoint.read_bytes() == old
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


@pytest.mark.parametrize("cause", [OSError("no room"), RuntimeError("a worker died"), KeyboardInterrupt("by hand")])
def test_what_stops_a_write_is_what_is_said(cause):
    """torch goes on after it, and complains of bytes that are missing then."""
    count = iter(range(3))

    class Stopped(io.BytesIO):
        def write(self, data: Any) -> int:
            if next(count, None) is None:
                raise cause
            return super().write(data)

    with pytest.raises(type(cause), match=str(cause)):
        checkpoints._save({"network": torch.zeros(100_000)}, Stopped())


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, OSError])
def test_an_interruption_before_the_end_leaves_the_old_file(interruption, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def stop(_: int) -> None:
        raise interruption

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(interruption), replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_takes_its_place_only_once_it_is_whole(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"


def test_a_left_over_part_of_a_killed_run_is_no_obstacle(checkpoint):
    part = checkpoint.with_name("last.ckpt.part")
    part.write_bytes(b"half of")
    save_checkpoint(checkpoint, {"at": [9]})
    assert load_checkpoint(checkpoint)["at"] == [9]
    assert not part.exists()


@pytest.mark.bad_input
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.99, 0.9999])
def test_a_truncated_checkpoint_is_refused(share, checkpoint):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"is damaged or not a checkpoint: ."):
        load_checkpoint(checkpoint)


@pytest.mark.bad_input
def test_a_flipped_bit_is_noticed_or_harmless(checkpoint):
    """The archive holds a sum of every record; bits between the records mean nothing."""
    whole = checkpoint.read_bytes()
    expected = load_checkpoint(checkpoint)
    complaints: list[str] = []
    flips = random.Random(0).sample(range(8 * len(whole)), 400)
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


@pytest.mark.bad_input
@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_are_refused(seed, tmp_path):
    path = tmp_path / "last.ckpt"
    for size in (1, 10, 1000):
        path.write_bytes(random.Random(seed).randbytes(size))
        with pytest.raises(ValueError, match="is damaged or not a checkpoint"):
            load_checkpoint(path)


def archive_of(content: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return file.getvalue()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint at all\n",
        b'{"format": 1}',
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        archive_of({}),
        archive_of({"a.txt": b"hello"}),
        archive_of({"archive/data.pkl": b"hello", "archive/version": b"3\n"}),
        pickle.dumps({"format": 1}, protocol=5),
    ],
    ids=["empty", "text", "json", "picture", "empty zip", "zip", "hollow zip", "pickle"],
)
def test_foreign_files_are_refused(content, tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged or not a checkpoint|was not written by"):
        load_checkpoint(path)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("saved", "found"),
    [
        ({"state_dict": {}}, "None"),
        ({"format": 0}, "0"),
        ({"format": 2, **STATE}, "2"),
        (torch.zeros(3), "'Tensor'"),
        ([1, 2], "'list'"),
    ],
)
def test_what_torch_saved_for_others_is_refused(saved, found, tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save(saved, path)
    with pytest.raises(ValueError, match=f"was not written by this version of multimix: format {found}, not 1"):
        load_checkpoint(path)


class Malicious:
    """Runs a program when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


@pytest.mark.bad_input
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_no_program_inside_a_file_is_run(protocol, tmp_path):
    proof, path = tmp_path / "proof", tmp_path / "last.ckpt"
    content = {"format": FORMAT, "network": Malicious(proof)}
    as_archive = io.BytesIO()
    torch.save(content, as_archive, pickle_protocol=max(protocol, 2))
    as_old_archive = io.BytesIO()
    torch.save(content, as_old_archive, pickle_protocol=max(protocol, 2), _use_new_zipfile_serialization=False)
    for data in (pickle.dumps(content, protocol=protocol), as_archive.getvalue(), as_old_archive.getvalue()):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="is damaged or not a checkpoint"):
            load_checkpoint(path)
        assert not proof.exists()


@pytest.mark.bad_input
def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*last\.ckpt"):
        load_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load_checkpoint(tmp_path)


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


def test_every_random_generator_goes_on_where_it_was(tmp_path):
    seed_everything(7)
    draws()  # leaves the second normals of Python and NumPy waiting
    save_checkpoint(tmp_path / "last.ckpt", {})
    expected = [draws(), draws()]
    seed_everything(8)
    assert draws() != expected[0]
    restore_random_states(load_checkpoint(tmp_path / "last.ckpt")["random"])
    assert [draws(), draws()] == expected


def test_saving_draws_nothing(tmp_path):
    seed_everything(7)
    expected = draws()
    seed_everything(7)
    save_checkpoint(tmp_path / "last.ckpt", {})
    random_states()
    assert draws() == expected


@pytest.mark.parametrize("seed", [0, 2**32, 2**64 - 1])
def test_seeds_of_any_size(seed):
    seed_everything(seed)
    first = draws()
    seed_everything(seed)
    assert draws() == first
