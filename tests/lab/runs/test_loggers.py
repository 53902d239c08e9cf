"""What loggers take down, read back by the clients' own readers: every number once, whatever happens to the run."""

import os
import shutil
import struct
from unittest.mock import patch

import pytest

from multimix.lab.detect import DetectConfig
from multimix.lab.runs import loggers
from multimix.lab.runs.folder import Folder
from multimix.lab.runs.loggers import LOGGERS, Loggers
from multimix.lab.train import Engine, resume, to_json, train
from parallel.together import SERVER
from train.tiny import BATCHES, Stopped, events, killed_after, raising, stopped_after, tiny

HINTS = ("ignore:.*wandb.*", "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
pytestmark = [pytest.mark.filterwarnings(hint) for hint in HINTS]


def from_tensorboard(folder):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = accumulators.EventAccumulator(str(folder / "tensorboard")).Reload()
    lines = board.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode().splitlines()
    rows = [(name, event.step, event.value) for name in board.Tags()["scalars"] for event in board.Scalars(name)]
    return dict(line.strip().split(": ") for line in lines if line[-2:] != ": "), rows


def from_wandb(folder):
    """Read the records of W&B's files: a header of 7 bytes, then LevelDB's log, blocks of 32 KiB of pieces."""
    records = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    pytest.importorskip("wandb").teardown()  # as at a process' end: `finish` may return before the file is written
    settings, rows = {}, []
    paths = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    assert len({path.name for path in paths}) == 1, "one id, however often the run was begun"
    for path in paths:
        content, at, whole = path.read_bytes(), 7, b""
        while at + 7 <= len(content):
            _, size, kind = struct.unpack_from("<IHB", content, at)
            whole += content[at + 7 : at + 7 + size]
            if kind in (1, 4):  # the whole record, or its last piece
                record, whole = records.Record.FromString(whole), b""
                settings |= {item.key: item.value_json.strip('"') for item in record.run.config.update}
                row = {item.key or item.nested_key[0]: float(item.value_json) for item in record.history.item}
                rows += [(name, row["epoch"], value) for name, value in row.items() if name[0] != "_"]
            at += 7 + size
            at += -at % 32768 if -at % 32768 < 7 else 0
    return settings, [row for row in rows if row[0] != "epoch"]


def from_mlflow(folder, status="FINISHED"):
    client = pytest.importorskip("mlflow").MlflowClient()
    [run] = client.search_runs([client.get_experiment_by_name("multimix").experiment_id])
    assert (run.info.run_name, run.info.status) == (folder.name, status)
    histories = [client.get_metric_history(run.info.run_id, name) for name in run.data.metrics]
    return run.data.params, [(metric.key, metric.step, metric.value) for history in histories for metric in history]


READERS = {"tensorboard": from_tensorboard, "wandb": from_wandb, "mlflow": from_mlflow}


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())


def measured(folder):
    """What the run itself has recorded of its epochs and its test set, as (name, epoch, value)."""
    for event in events(folder):
        of = "test_" * (event["event"] == "test") + (f"{event['network']}_" if "network" in event else "")
        left_out = {"epoch", "step", "seed", "examples"} | ({"seconds"} if of == "test_" else set())
        for name, value in event.items() if event["event"] in ("epoch", "test") else ():
            if isinstance(value, (int, float)) and name not in left_out:
                yield of + name, event["epoch"], value


def check(folder, name, config):
    settings, rows = READERS[name](folder)
    assert settings["optimizer.learning_rate"] == "0.05"
    assert set(settings) >= set(to_json(config)) - {"method", "optimizer", "schedule", "strides", "logger", "label"}
    expected = {row[:2]: row[2] for row in measured(folder)}
    found = [row for row in rows if not row[0].endswith("seconds") and row[0] != "images_per_second"]
    wanted = [key for key in expected if not key[0].endswith("seconds") and key[0] != "images_per_second"]
    assert sorted(row[:2] for row in found) == sorted(wanted)
    assert {row[:2]: row[2] for row in found} == {key: pytest.approx(expected[key], rel=1e-6) for key in wanted}


@pytest.mark.parametrize("name", READERS)
def test_each_number_is_told_once_however_often_the_run_is_interrupted(name, tmp_path):
    config, folder = tiny(logger=(name,), ema=0.5), tmp_path / "run"
    with stopped_after(BATCHES + 2):
        train(config, folder, quiet=True)
    shutil.copy(folder / "last.ckpt", tmp_path)
    with patch.object(Engine, "conclude", lambda *_, **__: raising(Stopped())(None)), pytest.raises(Stopped):
        resume(folder, quiet=True)
    shutil.copy(tmp_path / "last.ckpt", folder)  # so that the second epoch, of which loggers know, is trained again
    resume(folder, quiet=True)
    check(folder, name, config)


def test_a_killed_run_goes_on_in_the_same_one(tmp_path):
    pytest.importorskip("mlflow")  # W&B's own process writes to its file every 15 seconds
    config, folder = tiny(logger=("mlflow",)), tmp_path / "run"
    child = SERVER.Process(target=killed_after, args=(BATCHES + 2, config, folder, dict(os.environ)))
    child.start()
    child.join()
    assert child.exitcode == 9
    assert {row[1] for row in from_mlflow(folder, "RUNNING")[1]} == {1}
    resume(folder, quiet=True)
    check(folder, "mlflow", config)


def test_nobody_is_asked_and_nothing_uploaded_where_nobody_is_logged_in(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE")
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    train(tiny(logger=("wandb",)), tmp_path / "run", quiet=True)
    check(tmp_path / "run", "wandb", tiny())


def test_mlflow_without_a_place_of_its_own_writes_files(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    monkeypatch.setattr(loggers, "find_spec", lambda _: None)
    monkeypatch.chdir(tmp_path)
    train(tiny(logger=("mlflow",)), tmp_path / "run", quiet=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    check(tmp_path / "run", "mlflow", tiny())


class Told:
    """A logger of one's own that fails where it is asked to."""

    fails = ""
    said: list

    def begin(self, folder, settings, known):
        self.said.append(("begin", known))
        return self._answer("begin", "here")

    def log(self, epoch, values):
        self.said.append((epoch, *values))
        self._answer("log")

    def end(self, status):
        self.said.append(status)
        self._answer("end")

    def _answer(self, what, value=None):
        if self.fails == what:
            raise OSError("no\nspace")
        return value


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setitem(LOGGERS, "told", Told)
    monkeypatch.setattr(Told, "said", [], raising=False)
    return Told


@pytest.mark.parametrize(("fails", "calls"), [("begin", 1), ("log", 2), ("end", 5)])
def test_a_failing_logger_is_left_out_and_the_run_goes_on(told, tmp_path, monkeypatch, fails, calls):
    monkeypatch.setattr(told, "fails", fails)
    with pytest.warns(UserWarning, match="logger told failed and is left out from here on: OSError: no space") as said:
        assert train(tiny(logger=("told",)), tmp_path / "run", quiet=True).finished
    assert (len(said), len(told.said)) == (1, calls)


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("wrong"), "failed"), (KeyboardInterrupt(), "stopped"), (SystemExit(143), "stopped")],
)
def test_loggers_hear_how_a_run_ends(told, tmp_path, error, status):
    config = tiny(logger=("told",))
    with patch.object(Engine, "step", lambda *_: raising(error)(None)), pytest.raises(type(error)):
        train(config, tmp_path / "run", quiet=True)
    resume(tmp_path / "run", quiet=True)
    assert told.said[:3] == [("begin", None), status, ("begin", "here")]
    assert [row[0] for row in told.said[3:6]] == [1, 2, 2]
    assert told.said[6:] == ["finished"]


def test_every_measurement_is_told_with_what_it_is_of(told, tmp_path):
    run = Folder(tmp_path)
    for when, ap in (("before", 0.1), ("after", 0.5)):
        run.metrics.write(
            "detection", when=when, split="train", ap=ap, classes={"cat": ap}, step=9, seed=1, seconds=2.0
        )
    run.metrics.write("test", suite="accuracy", split="test", epoch=7, accuracy=0.9)
    run.metrics.write("test", suite="calibration", split="test", epoch=7, ece=0.1, seed=1)
    with Loggers(run, DetectConfig(epochs=7, logger=("told",))) as found:
        found.tell()
        found.tell()
    assert told.said[1:-1] == [
        (0, "train_before_ap", "train_before_seconds"),
        (7, "train_after_ap", "train_after_seconds"),
        (7, "test_accuracy"),
        (7, "test_ece"),
    ]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "module", "said"),
    [
        ("tensorboard", "tensorboard", "logger tensorboard needs tensorboard, .*: pip install tensorboard"),
        ("wandb", "wandb", "logger wandb needs wandb, which is not installed: pip install wandb"),
        ("mlflow", "mlflow", "logger mlflow needs mlflow, which is not installed: pip install mlflow-skinny"),
        ("wandbb", "", "unknown logger wandbb; known are tensorboard, wandb, mlflow"),
    ],
)
def test_what_is_missing_is_said_before_anything_begins(name, module, said, tmp_path):
    def missing(given):
        raise ModuleNotFoundError(name=given)

    with patch("multimix._optional.import_module", missing), pytest.raises(ValueError, match=said):
        train(tiny(logger=(name,)), tmp_path / "run", quiet=True)
    assert list(tmp_path.iterdir()) == []
