"""Measuring finished runs: suites by name, one record each, written as soon as it is there."""

import difflib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast

import torch
from torch import nn
from typing_extensions import Unpack

from multimix.lab.data import Splits, identity, labelled
from multimix.lab.evaluate import SUITES
from multimix.lab.evaluate.calibration import Accuracy
from multimix.lab.evaluate.passes import NonFiniteError
from multimix.lab.evaluate.suite import Source, Suite, SuiteSettings, adjusted, heard
from multimix.lab.runs.checkpoint import digest
from multimix.lab.runs.environment import commit, now
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.folder import RunFolder
from multimix.lab.train.network import load_network
from multimix.protocols import SILENT, Monitor, Network

T = TypeVar("T")


USUAL = ("accuracy", "calibration")
"""Suites that are measured where none is named."""


class EvaluationOptions(TypedDict, total=False):
    """How runs are measured; each may be left out."""

    settings: Mapping[str, SuiteSettings]
    """Those of each suite, by its name, where they are not the defaults."""
    again: bool
    """Measure what has been measured already, too."""
    root: str | None
    """Where data sets lie now that are given by name."""
    batch_size: int | None
    """Images a batch; no result depends on it."""
    splits: Splits | None
    """The data, if it is loaded already."""
    data: str | None
    """Where the data are now, or other data; of these, results are kept as events ``other_test``, without figures."""
    trust_code: bool
    """Run the files of a user's own that the run keeps, if its method or data are from one."""


def suites_named(names: Iterable[str]) -> list[type[Suite]]:
    """Return suites by name, each once."""
    names, known = list(dict.fromkeys(names)), {suite.name: suite for suite in SUITES}
    if unknown := [name for name in names if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown suite {', '.join(unknown)}; known are {', '.join(known)}{hint}")
    return [known[name] for name in names]


def evaluate_run(
    folder: Path, suites: Iterable[str] | None = ("accuracy",), **options: Unpack[EvaluationOptions]
) -> list[dict[str, Any]]:
    """Measure a finished run on its test set, write the results into the run and return them.

    Args:
        folder: The run.
        suites: Names of suites; None for accuracy and, of data with one class an image, calibration.
        options: See :class:`EvaluationOptions`.

    A suite whose record is there already, with the same settings and of the same weights, is not run again. Each record
    is on disk before the next suite begins, so that a stop loses only the suite under way. What a suite left out,
    doubts or had to do in another way than usual stands under ``notes``, a line each, if there is any.

    Raises:
        FileNotFoundError: If there is no finished run.
        ValueError: If a suite is unknown, its settings do not fit the data, an optional package is missing, the run's
            files are damaged, or it needs code that is not trusted.
        TypeError: If an option is unknown.
    """
    return list(evaluations(folder, suites, **options))


def evaluations(
    folder: Path,
    suites: Iterable[str] | None,
    *,
    monitor: Monitor = SILENT,
    unfit: Callable[[str, str], None] | None = None,
    **options: Unpack[EvaluationOptions],
) -> Iterator[dict[str, Any]]:
    """Yield each suite's record once it is on disk; ``unfit`` hears of those that cannot be measured here, and why."""
    if unknown := options.keys() - EvaluationOptions.__annotations__.keys():
        raise TypeError(f"evaluations takes no option {', '.join(sorted(unknown))}")
    given, trust_code = options.get("settings") or {}, options.get("trust_code", False)
    wanted = suites_named(USUAL if suites is None else suites)
    run = RunFolder(folder)
    config = run.read_trusted(trust_code=trust_code)
    places: dict[str, Any] = {name: options.get(name) for name in ("splits", "data", "root")}
    network, splits = load_network(folder, **places, trust_code=trust_code)
    weights, other = digest(run.weights), _other_data(run, splits)
    splits = replace(splits, train=labelled(splits.train))
    source = source_of(config, splits, _device_of(network), batch_size=options.get("batch_size"))
    if suites is None:
        wanted = [suite for suite in wanted if not _unsuited(suite, splits)]
    chosen = {suite: given.get(suite.name) or suite.Settings() for suite in wanted}
    made: list[tuple[Suite | dict[str, Any], list[str]]] = []  # before any runs: what does not fit is said at once
    for suite, own in chosen.items():
        notes: list[str] = []
        with heard(notes), _telling(unfit, suite):
            if _unsuited(suite, splits):
                raise ValueError(
                    f"{suite.name} is measured of one class an image, and {splits.name} has several labels, which"
                    " --suites accuracy measures"
                )
            fitting = adjusted(suite.name, own, source)
            kept = None if options.get("again") else _kept(run, suite.name, fitting, weights, other)
            made.append((kept or suite.of(source, fitting), notes))
    for found, notes in made:
        if isinstance(found, dict):
            yield found
            continue
        figures, result = Figures(monitor), dict[str, Any]()
        with heard(notes), _telling(unfit, found):
            result = suite_record(config, found, network, examples=len(splits.test), weights=weights, monitor=figures)
        if result:
            result |= {"notes": notes, **other} if notes else other
            _write(run, result, figures.data)
            yield result


@contextmanager
def _telling(unfit: Callable[[str, str], None] | None, suite: Any) -> Iterator[None]:
    """Let ``unfit`` hear why a suite cannot be measured; an error where nobody hears, or weights are no numbers."""
    try:
        yield
    except ValueError as error:
        if unfit is None or isinstance(error, NonFiniteError):
            raise
        unfit(suite.name, str(error))


class Figures(Monitor):
    """Keeps the data of figures, and lets another monitor hear the rest."""

    def __init__(self, other: Monitor = SILENT) -> None:
        self.data: dict[str, dict[str, Any]] = {}
        self._other = other

    def track(self, what: str, batches: Iterable[T]) -> Iterator[T]:
        """Pass ``batches`` through the other monitor."""
        return self._other.track(what, batches)

    def record(self, name: str, data: dict[str, Any]) -> None:
        """Keep the data of a figure."""
        self.data[name] = data
        self._other.record(name, data)


def _unsuited(suite: type[Suite], splits: Splits) -> bool:
    """Return whether images of a data set may have several labels, and a suite knows of classes only."""
    return splits.multi_label and suite is not Accuracy


def _other_data(run: RunFolder, splits: Splits) -> dict[str, Any]:
    """Return what a record says of data that are not the run's; nothing where they are."""
    if not run.changes_of_data(splits):
        return {}
    return {"other_data": {"name": splits.name, "digest": identity(splits)["test"]["digest"]}}


def _write(run: RunFolder, result: dict[str, Any], figures: dict[str, dict[str, Any]]) -> None:
    """Write a suite's figures and then its record, each whole, in the place of older ones."""
    name, other = result["suite"], result.get("other_data")
    if other is None:
        write_figures(run, result, figures)
    run.metrics.keep(lambda event: not _is_of(event, name, other))
    run.metrics.write("test" if other is None else "other_test", **result)


def write_figures(run: RunFolder, result: dict[str, Any], figures: dict[str, dict[str, Any]]) -> None:
    """Write the data of a suite's figures, if it has any, with what its record says of them."""
    if figures:
        run.evaluation.mkdir(exist_ok=True)
        described = {key: result[key] for key in ("suite", "settings", "weights", "date")}
        run.write_json(run.evaluation / f"{result['suite']}.json", {**described, "figures": figures})


def _kept(
    run: RunFolder, name: str, settings: SuiteSettings, weights: str, other: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the record of a suite if it says what a new one would say."""
    wanted = (json.loads(json.dumps(asdict(settings))), weights)
    found = [event for event in run.metrics.read() if _is_of(event, name, other.get("other_data"))]
    same = [event for event in found if (event.get("settings"), event.get("weights")) == wanted]
    return {key: value for key, value in same[-1].items() if key != "event"} if same else None


def _is_of(event: dict[str, Any], name: str, other: dict[str, Any] | None) -> bool:
    found = event["event"], event.get("suite"), event.get("network"), event.get("other_data")
    return found == ("test" if other is None else "other_test", name, None, other)


def source_of(config: TrainConfig, splits: Splits, device: torch.device, *, batch_size: int | None = None) -> Source:
    """Return what a run offers to its suites."""
    size = batch_size or max(256, config.batch_size)
    return Source(splits, config.method, device, batch_size=size, workers=config.workers, root=config.root)


def clean_accuracy(config: TrainConfig, splits: Splits, split: Any, device: torch.device) -> Accuracy:
    """Return the suite of clean accuracy on a split."""
    return Accuracy(source_of(config, splits, device).batches(split))


def suite_record(
    config: TrainConfig,
    suite: Suite,
    network: Network,
    *,
    examples: int,
    weights: str | None,
    monitor: Monitor = SILENT,
) -> dict[str, Any]:
    """Return what a suite finds out about a network, with all that it depends on: ``weights`` is the file's digest."""
    started = time.perf_counter()
    return {
        "suite": suite.name,
        "split": "test",
        "epoch": config.epochs,
        **dict(suite(network, monitor)),
        "settings": asdict(suite.settings),
        "weights": weights,
        "examples": suite.settings.examples or examples,
        "seed": config.seed,
        **measured_at(_device_of(network), started),
    }


def measured_at(device: torch.device, started: float) -> dict[str, Any]:
    """Return how long a measurement took that began at ``started``, where, when and with what code it was made."""
    return {
        "seconds": time.perf_counter() - started,
        "device": device.type,
        "torch": torch.__version__,
        "commit": commit(),
        "date": now(),
    }


def _device_of(network: Network) -> torch.device:
    return next(cast("nn.Module", network).parameters()).device
