"""What the suites left beside their records: the data of figures, one file a suite."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimix.lab.report._files import read_object


@dataclass(frozen=True)
class Evaluation:
    """The figures of one suite of one run, as data."""

    suite: str
    """Its name."""
    settings: dict[str, Any]
    """What it was set to."""
    weights: str | None
    """Digest of the network's weights."""
    date: str
    """When it was measured."""
    figures: dict[str, dict[str, Any]]
    """Data by the figure's name."""


def read_evaluations(folder: Path, tests: Sequence[dict[str, Any]]) -> dict[str, Evaluation]:
    """Return the evaluations in a folder by their suites.

    Left out are those that are not of the suite's newest test: of other weights or settings, or with no test yet,
    because the writer was stopped between the two.

    Args:
        folder: A run's ``evaluation``; it need not be there.
        tests: The run's test events, in order of writing.

    Raises:
        ValueError: A file is damaged; the message names it.
    """
    newest = {event.get("suite"): event for event in tests if event.get("network") is None}
    found = (_read(path) for path in sorted(folder.glob("*.json")))
    return {one.suite: one for one in found if _belongs(one, newest.get(one.suite))}


def _belongs(evaluation: Evaluation, test: dict[str, Any] | None) -> bool:
    if test is None:
        return False
    return (test.get("weights"), test.get("settings") or {}) == (evaluation.weights, evaluation.settings)


def _read(path: Path) -> Evaluation:
    whole = read_object(path)
    suite, weights, settings = (whole.get(name) for name in ("suite", "weights", "settings"))
    kinds: Iterable[tuple[str, Any, type[Any] | Any]] = (
        ("suite", suite, str),
        ("weights", weights, str | None),
        ("settings", settings, dict | None),
        ("figures", whole.get("figures"), dict),
    )
    for name, value, kind in kinds:
        if not isinstance(value, kind):
            raise ValueError(f"{path}: {name}: expected {getattr(kind, '__name__', kind)}, got {value!r:.60}")
    for name, data in whole["figures"].items():
        if not isinstance(data, dict):
            raise ValueError(f"{path}: figures.{name}: expected an object, got {data!r:.60}")
    return Evaluation(str(suite), settings or {}, weights, str(whole.get("date") or ""), whole["figures"])
