"""Where a run's numbers go besides its folder: TensorBoard, Weights & Biases, MLflow, or a logger of one's own."""

import json
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from typing_extensions import Self

from multimix._optional import require
from multimix.lab.about import metrics_of
from multimix.lab.runs.codec import to_json
from multimix.lab.runs.folder import Folder
from multimix.lab.runs.processes import is_main_process

Status = Literal["finished", "stopped", "failed"]
"""How a run ended: to its end, by a signal or Ctrl-C, or with an error."""


class Logger(Protocol):
    """What takes down a run's settings and numbers; made without arguments, which raises where its package is missing.

    One that raises is left out from there on, with a warning, and the run goes on.
    """

    def begin(self, folder: Path, settings: Mapping[str, Any], known: str | None) -> str:
        """Begin, and return what finds the run again; a run that goes on gives it back as ``known``.

        Args:
            folder: The run folder.
            settings: The configuration, flat: ``{"epochs": 30, "optimizer.learning_rate": 0.1}``.
            known: What this returned when the run began; None of a new run.
        """

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Take down numbers by name, measured after so many epochs."""

    def end(self, status: Status) -> None:
        """Write what is left; the run may go on later."""


class TensorBoard:
    """Event files in ``RUN/tensorboard``."""

    def __init__(self) -> None:
        require("tensorboard", by="logger tensorboard")

    def begin(self, folder: Path, settings: Mapping[str, Any], known: str | None) -> str:
        """Open a file of events."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"))
        if known is None:
            self._writer.add_text("settings", "\n".join(f"    {name}: {value}" for name, value in settings.items()))
        return "tensorboard"

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Write scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def end(self, status: Status) -> None:
        """Close the file."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases, offline in ``RUN/wandb`` where nobody is logged in; ``WANDB_*`` variables count."""

    def __init__(self) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._wandb: Any = require("wandb", by="logger wandb")

    def begin(self, folder: Path, settings: Mapping[str, Any], known: str | None) -> str:
        """Begin a run, or go on with the one of an id, without a question to the terminal."""
        wandb = self._wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "multimix"),
            name=folder.name,
            id=known,
            resume="allow",
            config=dict(settings),
            dir=str(folder),
            mode=os.environ.get("WANDB_MODE") or (None if wandb.login(prompt=False) else "offline"),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("*", step_metric="epoch")
        return str(self._run.id)

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Write a row."""
        self._run.log({"epoch": epoch, **values})

    def end(self, status: Status) -> None:
        """Upload what is left, if anything is uploaded."""
        self._run.finish(exit_code={"finished": 0, "failed": 1, "stopped": 255}[status])


class MLflow:
    """A run of MLflow, where ``MLFLOW_TRACKING_URI`` says, or in MLflow's own place on this machine."""

    def __init__(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._mlflow: Any = require("mlflow", by="logger mlflow")

    def begin(self, folder: Path, settings: Mapping[str, Any], known: str | None) -> str:
        """Begin a run, or go on with that of a place and an id."""
        place, _, self._id = (known or f"{self._place()} ").rpartition(" ")
        self._client = client = self._mlflow.MlflowClient(place)
        if self._id:
            client.update_run(self._id, status="RUNNING")
            return f"{place} {self._id}"
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "multimix")
        experiment = client.get_experiment_by_name(name)
        number = client.create_experiment(name) if experiment is None else experiment.experiment_id
        self._id = client.create_run(number, run_name=folder.name).info.run_id
        given = [self._mlflow.entities.Param(key, str(value)) for key, value in settings.items()]
        for start in range(0, len(given), _PARAMS):
            client.log_batch(self._id, params=given[start : start + _PARAMS])
        return f"{place} {self._id}"

    def _place(self) -> str:
        """Return where runs are tracked; mlflow-skinny, which knows no database, does so in files only."""
        if self._mlflow.is_tracking_uri_set() or find_spec("alembic"):
            return str(self._mlflow.get_tracking_uri())
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        return Path("mlruns").absolute().as_uri()

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Write metrics."""
        now, metric = int(time.time() * 1000), self._mlflow.entities.Metric
        self._client.log_batch(self._id, metrics=[metric(key, value, now, epoch) for key, value in values.items()])

    def end(self, status: Status) -> None:
        """Say how the run ended."""
        states = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
        self._client.set_terminated(self._id, states[status])


_PARAMS = 100
"""Most parameters that MLflow takes at once."""
LOGGERS: dict[str, type[Logger]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}
"""Loggers by name; put one of your own in to use it by its name."""


def require_loggers(names: Iterable[str]) -> None:
    """Raise unless there are such loggers and what they need is installed.

    Raises:
        ValueError: If a name is unknown, or a package is missing, with what installs it.
    """
    for name in names:
        if name not in LOGGERS:
            raise ValueError(f"unknown logger {name}; known are {', '.join(LOGGERS)}")
        try:
            LOGGERS[name]()
        except ImportError as error:
            raise ValueError(str(error)) from error


class Loggers(AbstractContextManager["Loggers"]):
    """The loggers of a run, which the main process tells each event once, however often the run is interrupted."""

    def __init__(self, run: Folder, config: Any) -> None:
        self._run, self._config = run, config
        self._file = run.path / "loggers.json"
        self._used: dict[str, Logger] = {}
        self._kept: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        names = self._config.logger if is_main_process() else ()
        if names and self._file.is_file():
            self._kept = json.loads(self._file.read_text(encoding="utf-8"))
        for name in names:
            with self._or_left_out(name):
                logger, kept = LOGGERS[name](), self._kept.setdefault(name, {"run": None, "told": []})
                kept["run"] = logger.begin(self._run.path, dict(_flat(to_json(self._config))), kept["run"])
                self._used[name] = logger
                self._run.write_json(self._file, self._kept)
        return self

    def tell(self) -> None:
        """Tell each logger the epochs and measurements that the run has recorded and it does not know."""
        for event in self._run.metrics.read() if self._used else ():
            if event["event"] not in ("epoch", "test", "detection"):
                continue
            of = "".join(f"{event[part]}_" for part in ("split", "when", "network") if event.get(part))
            epoch = event.get("epoch", 0 if event.get("when") == "before" else self._config.epochs)
            key = f"{event['event']} {event.get('suite', '')} {of}{epoch}"
            values = {f"{of}{name}": float(value) for name, value in metrics_of(event, "seconds").items()}
            for name in [name for name in self._used if key not in self._kept[name]["told"]]:
                with self._or_left_out(name):
                    self._used[name].log(epoch, values)
                    self._kept[name]["told"].append(key)
                    self._run.write_json(self._file, self._kept)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        status: Status = "finished" if kind is None else "failed" if issubclass(kind, Exception) else "stopped"
        for name in [*self._used]:
            with self._or_left_out(name):
                self._used[name].end(status)

    @contextmanager
    def _or_left_out(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._used.pop(name, None)
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            warnings.warn(f"logger {name} failed and is left out from here on: {said}", stacklevel=4)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of a configuration, named as on the command line."""
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(item, f"{name}.{key}".lstrip("."))
    else:
        yield name, value
