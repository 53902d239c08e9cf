"""Settings of suites, which tell apart what is measured of equal runs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from multimix.lab.report._records import MAIN, Record
from multimix.lab.report._text import clean

Kind = tuple[str, str]


def variant(settings: Mapping[str, Any] | None) -> str:
    """Return settings as text that is the same for the same settings; one that is None counts as not there."""
    given = {name: value for name, value in (settings or {}).items() if value is not None}
    return json.dumps(given, sort_keys=True, default=str)


def variants(rows: Sequence[Record]) -> list[str]:
    """Return for every record which rows of a table it may share.

    That is the empty text where all records of its label, configuration and suite were measured alike. What has no
    settings, as the cost of training, goes with what else the same run has.
    """
    found: dict[tuple[Kind, Any], set[str]] = {}
    for row in rows:
        found.setdefault((_kind(row), row.get("suite")), set()).add(variant(row.get("settings")))
    split = {key for key, texts in found.items() if len(texts) > 1}
    runs = {
        (_kind(row), row["seed"]): variant(row.get("settings"))
        for row in rows
        if (_kind(row), row.get("suite")) in split and row.get("suite") in MAIN
    }
    return [
        variant(row.get("settings"))
        if (_kind(row), row.get("suite")) in split
        else runs.get((_kind(row), row["seed"]), "")
        if row.get("suite") == "cost"
        else ""
        for row in rows
    ]


def unequal(rows: Iterable[Record]) -> tuple[str, ...]:
    """Return the names of settings that are not the same for all records of one suite."""
    suites: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        if row.get("suite") != "cost":
            suites.setdefault(row.get("suite"), []).append(json.loads(variant(row.get("settings"))))
    return tuple(sorted({name for given in suites.values() for name in differing(given)}))


def differing(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of settings that do not have one value everywhere."""
    first, *others = list(settings) or [{}]
    names = sorted({name for given in (first, *others) for name in given})
    return [name for name in names if any(other.get(name) != first.get(name) for other in others)]


def difference(text: str, others: Iterable[str]) -> str:
    """Return in words what a variant has of its own: ``steps 40``."""
    given = json.loads(text or "{}")
    names = differing([json.loads(other or "{}") for other in others])
    return clean(", ".join(f"{name} {_value(given.get(name))}" for name in names))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace("null", "none")


def _kind(row: Record) -> Kind:
    return row["label"], row["config"]
