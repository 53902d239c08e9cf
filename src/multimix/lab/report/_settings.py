"""What the runs of a comparison have in common, and what tells them apart."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from multimix.lab.report._records import Record, method_name
from multimix.lab.report._runs import Run
from multimix.lab.report._summary import row_names
from multimix.lab.report._text import clean, listed

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class MethodSettings:
    """The settings of one row of a table."""

    name: str
    """The row's name."""
    method: str
    """The method's types, nested."""
    config: str
    """Hash of all settings but the seed."""
    own: Pairs
    """The settings that are not the same for all rows."""


@dataclass(frozen=True)
class Settings:
    """The settings of a comparison."""

    shared: Pairs
    """The same for all rows."""
    methods: list[MethodSettings]
    """What each row has of its own."""
    unequal: list[str]
    """Names of settings outside the method that differ; where there are any, more than the methods is compared."""


def settings_of(runs: Sequence[Run]) -> Settings:
    """Return what runs of one comparison share, and what each method has of its own."""
    first: dict[tuple[str, str], Run] = {}
    for run in runs:
        first.setdefault((run.label, run.settings_hash), run)
    names = row_names(first)
    flat = {kind: dict(flatten(run.settings)) for kind, run in first.items()}
    shared = _shared(flat.values())
    methods = [
        MethodSettings(
            clean(names[kind]),
            clean(method_name(run.config["method"])),
            kind[1],
            [pair for pair in flat[kind].items() if pair[0] not in shared],
        )
        for kind, run in first.items()
    ]
    unequal = {name for row in methods for name, _ in row.own if not name.startswith("method.")}
    return Settings(shared=list(shared.items()), methods=methods, unequal=sorted(unequal))


def suite_settings(rows: Iterable[Record]) -> Pairs:
    """Return a suite's settings as (name, value); where rows of the table differ, every value with its labels."""
    kinds: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        given = dict(flatten(row.get("settings") or {}))
        kinds.setdefault((row["label"], row["config"], json.dumps(given)), given)
    names = dict.fromkeys(name for given in kinds.values() for name in given)
    return [(name, _values({kind: given.get(name, "–") for kind, given in kinds.items()})) for name in names]


def _values(values: dict[tuple[str, str, str], str]) -> str:
    labels: dict[str, list[str]] = {}
    for (label, _, _), value in values.items():
        labels.setdefault(value, []).append(clean(label))
    if len(labels) == 1:
        return next(iter(labels))
    return "; ".join(f"{value} ({listed(list(dict.fromkeys(who)))})" for value, who in labels.items())


def flatten(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """Yield (dotted name, value as text) of nested settings."""
    if isinstance(value, dict):
        parts: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        parts = enumerate(value)
    else:
        yield name, clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        return
    for key, inner in parts:
        yield from flatten(inner, f"{name}.{key}" if name else clean(str(key)))


def _shared(settings: Iterable[dict[str, str]]) -> dict[str, str]:
    """Return what all have, in the first one's order; several methods share nothing of what is inside ``method``."""
    first, *others = settings
    return {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others) and not (others and name.startswith("method."))
    }
