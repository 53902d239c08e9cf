"""An interrupted run that is resumed ends exactly as one that was not."""

import random
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from multimix.distill import SelfDistilled
from multimix.lab.runs.folder import Metrics
from multimix.lab.train import AdamW, Cosine, resume, train
from multimix.methods import ERM, Alternate, DenseMultiMix, ManifoldMixup, Mixup, MultiMix, Ramp, RecursiveMix, Until
from multimix.protocols import Losses, Network
from train.tiny import BATCHES, Stopped, files, steady, stopped_after, tiny, weights

CONFIGS = {
    "erm": tiny(width=8, channels_last=True),
    "multimix": tiny(method=MultiMix(tuples=20), checkpoint_steps=1),
    "distilled": tiny(method=SelfDistilled(MultiMix(tuples=20), warmup=True), ema=0.9, checkpoint_steps=2),
    "accumulated": tiny(accumulate=3, batch_size=16, checkpoint_steps=1, clip=0.5, optimizer=AdamW()),
    "combined": tiny(
        method=SelfDistilled(Until(Alternate((Mixup(), ManifoldMixup(), DenseMultiMix(tuples=5))), 0.5), teacher="mix"),
        schedule=Cosine(warmup_epochs=1.5),
        precision="bf16-mixed",
        checkpoint_steps=3,
    ),
    "recursive": tiny(method=RecursiveMix(), strides=(1, 1, 1, 2), checkpoint_steps=1),
    "until": tiny(method=Until(MultiMix(tuples=20), 0.3)),
    "ramp": tiny(method=Ramp(Mixup(), (0.2, 1.0), ("alpha", 0.1, 2.0), "cosine")),
}
AFTER = {
    "erm": (0, 3, BATCHES),
    "distilled": (3, BATCHES, 2 * BATCHES - 1),
    "combined": (3, 2 * BATCHES - 1),
    "recursive": (3, BATCHES),
}
"""Mini-batches before the interruption: none, amid an epoch, at its end, all but the last."""

_whole: dict[str, Path] = {}


@pytest.fixture
def whole(tmp_path_factory, request) -> Path:
    """The uninterrupted run of a configuration, trained once."""
    name = request.param
    if name not in _whole:
        _whole[name] = train(CONFIGS[name], tmp_path_factory.mktemp("whole") / name, quiet=True).path
    return _whole[name]


def assert_same_run(found: Path, expected: Path) -> None:
    assert weights(found) == weights(expected)
    assert steady(found) == steady(expected)
    assert set(files(found)) == set(files(expected))
    for name, content in files(expected / "pictures").items():
        assert (found / "pictures" / name).read_bytes() == content
    if (expected / "ema.safetensors").exists():
        assert (found / "ema.safetensors").read_bytes() == (expected / "ema.safetensors").read_bytes()


@pytest.mark.parametrize(("whole", "name"), [(name, name) for name in CONFIGS], indirect=["whole"], ids=CONFIGS)
def test_it_ends_as_if_never_interrupted(whole, name, tmp_path):
    for after in AFTER.get(name, (3,)):
        folder = tmp_path / str(after)
        with stopped_after(after):
            train(CONFIGS[name], folder, quiet=True)
        assert resume(folder, quiet=True).finished
        assert_same_run(folder, whole)


@pytest.mark.parametrize("whole", ["distilled"], indirect=True)
@pytest.mark.parametrize("written", range(5))
def test_it_may_be_interrupted_while_it_writes_records(whole, written, tmp_path, monkeypatch):
    """Records: two epochs, three networks on the test set, the end; stopped after each."""
    real, count = Metrics.write, iter(range(written))

    def write(self: Metrics, event: str, **values: Any) -> None:
        real(self, event, **values)
        if next(count, None) is None:
            raise Stopped

    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(Metrics, "write", write)
        with pytest.raises(Stopped):
            train(CONFIGS["distilled"], folder, quiet=True)
    resume(folder, quiet=True)
    assert_same_run(folder, whole)


def test_global_random_states_go_on_too(tmp_path, monkeypatch):
    real, config = ERM.__call__, tiny(checkpoint_steps=2)

    def noisy(method: ERM, network: Network, inputs: Tensor, targets: Tensor, **more: Any) -> Losses:
        noise = random.random() + float(np.random.rand()) + torch.rand(inputs.shape)  # noqa: NPY002
        return real(method, network, inputs * noise, targets, **more)

    monkeypatch.setattr(ERM, "__call__", noisy)
    whole = train(config, tmp_path / "whole", quiet=True).path
    for after in (3, BATCHES, BATCHES + 3):
        folder = tmp_path / str(after)
        with stopped_after(after):
            train(config, folder, quiet=True)
        torch.manual_seed(after)  # whatever else the process did meanwhile
        random.seed(after)
        np.random.seed(after)  # noqa: NPY002
        resume(folder, quiet=True)
        assert_same_run(folder, whole)


def test_to_resume_a_finished_run_does_nothing(finished, capfd):
    before = files(finished)
    stamps = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert resume(finished).path == finished
    assert capfd.readouterr() == ("", "")
    assert files(finished) == before
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == stamps


@pytest.mark.parametrize("whole", ["erm"], indirect=True)
@pytest.mark.parametrize("half", ['{"event": "ep', '{"event": "epoch", "epoch": 2}'])
def test_a_half_written_last_line_is_left_out(whole, half, tmp_path):
    folder = tmp_path / "run"
    with stopped_after(BATCHES + 2):
        train(CONFIGS["erm"], folder, quiet=True)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(half)
    cut = pytest.warns(UserWarning, match=r"metrics\.jsonl, line 2 is cut short and left out")
    with nullcontext() if half.endswith("}") else cut:
        resume(folder, quiet=True)
    assert_same_run(folder, whole)


def test_a_folder_with_nothing_but_its_configuration_starts_from_the_beginning(tmp_path):
    config = tiny(epochs=1)
    whole = train(config, tmp_path / "whole", quiet=True).path
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(whole / "config.json", folder)
    resume(folder, quiet=True)
    assert_same_run(folder, whole)


@pytest.fixture
def stopped(tmp_path) -> Path:
    """A run that stopped in its second epoch."""
    folder = tmp_path / "run"
    with stopped_after(BATCHES + 1):
        train(tiny(), folder, quiet=True)
    return folder


@pytest.mark.bad_input
def test_a_corrupt_checkpoint_or_one_of_another_run_is_refused_and_left(stopped):
    path = stopped / "config.json"
    path.write_text(path.read_text().replace('"width": 2', '"width": 3'))
    before = files(stopped)
    with pytest.raises(ValueError, match="the checkpoint belongs to another run: "):
        resume(stopped, quiet=True)
    assert files(stopped) == before
    (stopped / "last.ckpt").write_bytes(b"garbage")
    before = files(stopped)
    with pytest.raises(ValueError, match=r"checkpoint .*last\.ckpt is damaged or not a checkpoint: \S"):
        resume(stopped, quiet=True)
    assert files(stopped) == before


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"config\.json cannot be read: "),
        (b"\xff\xfe", r"config\.json cannot be read: "),
        (b"[]", r"config\.json cannot be read: "),
        (b"{}", r"config\.json cannot be read: 'config'"),
        (b'{"config": 3}', r"config\.json holds a int, not a TrainConfig"),
        (b'{"config": {"type": "TrainConfig", "epochs": "3"}}', r"config\.json cannot be read: epochs must be an int"),
    ],
)
def test_a_damaged_configuration_is_refused(content, message, stopped):
    (stopped / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        resume(stopped, quiet=True)


@pytest.mark.bad_input
@pytest.mark.parametrize("line", ["garbage", "[1]", '{"epoch": 1}'])
def test_damaged_records_are_named_by_line_and_left(line, stopped):
    path = stopped / "metrics.jsonl"
    path.write_text(path.read_text() + line + "\n")
    before = files(stopped)
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: (not valid JSON|expected|event: expected)"):
        resume(stopped, quiet=True)
    assert files(stopped) == before


@pytest.mark.bad_input
def test_what_is_no_run_cannot_be_resumed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no run folder .*nowhere"):
        resume(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"is not a run folder: it has no config\.json"):
        resume(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_last_checkpoint_is_of_the_whole_run(finished):
    """So that a longer run could go on from it."""
    state = torch.load(finished / "last.ckpt", weights_only=True)
    assert state["at"] == [2, 0, 2 * BATCHES]
    saved = load_file(finished / "model.safetensors")
    assert all(torch.equal(saved[name], state["network"][name]) for name in saved)


@pytest.mark.bad_input
def test_a_run_does_not_go_on_with_data_of_other_classes(stopped):
    path = stopped / "config.json"
    path.write_text(path.read_text().replace('"9"', '"ten"'))
    before = files(stopped)
    with pytest.raises(ValueError, match=r"was trained on 10 classes \(0, 1, 2, 3, \.\.\.\), but data digits has"):
        resume(stopped, quiet=True)
    assert files(stopped) == before
