"""What the page says and shows of every suite, and how runs and suites were set."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any

from multimix.lab.about import SUITES
from multimix.lab.about import kinds as about
from multimix.lab.report import _kinds as kinds
from multimix.lab.report._data import Drawn
from multimix.lab.report._drawing import Figure
from multimix.lab.report._formats import Grid
from multimix.lab.report._records import Record, kind_of, method_name, suite_of, variant
from multimix.lab.report._runs import Run
from multimix.lab.report._summary import Comparison, Row, Summary, row_names, suites
from multimix.lab.report._tables import grids
from multimix.lab.report._words import clean, listed, suite_named

Pairs = list[tuple[str, str]]

_VISIBLE = 6  # figures of one kind that stand open
_RENDERERS: dict[type[about.Figure], Callable[[Any, Sequence[Drawn]], list[Figure]]] = {
    about.Curve: kinds.draw_curve,
    about.HeatMap: kinds.draw_heat_maps,
    about.Histogram: kinds.draw_histograms,
    about.Reliability: lambda kind, rows: [kinds.draw_reliability(kind, row) for row in rows],
    about.Scatter: lambda kind, rows: [kinds.draw_scatter(kind, row) for row in rows],
}


@dataclass
class Article:
    """One comparison's tables and figures, how its suite was set, and why a figure is left out."""

    title: str
    tables: list[Grid]
    more_tables: list[Grid]
    note: str
    figures: list[Figure] = field(default_factory=list)
    more_figures: list[Figure] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def sections(summaries: Mapping[str, Summary], runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return a section for every suite, with an article for every comparison."""
    return [
        {
            "suite": suite_named(suite),
            "articles": [_article(comparison, suite, runs) for comparison in summary.comparisons],
        }
        for suite, summary in summaries.items()
    ]


def _article(comparison: Comparison, suite: str, runs: Sequence[Run]) -> Article:
    rows = _measured(comparison, suite, runs)
    found = [evaluation for row in rows for evaluation in row.data]
    say = suite_named(suite).note
    note = say(found[0]["settings"]) if say and found else ""
    article = Article(comparison.title, *grids(comparison), note)
    for name in dict.fromkeys(name for evaluation in found for name in evaluation["figures"]):
        own = [[(seed, one["figures"][name]) for seed, one in row.seeds if name in one["figures"]] for row in rows]
        drawn = [Drawn(row.name, row.index, seeds) for row, seeds in zip(rows, own, strict=True) if seeds]
        try:
            figures, more = _figures(suite, name, drawn, comparison)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            article.left_out.append(f"The figure {name} cannot be drawn: {error}.")
        else:
            article.figures += figures
            article.more_figures += more
    return article


def _measured(comparison: Comparison, suite: str, runs: Sequence[Run]) -> list[Drawn]:
    """Return the rows with their seeds' evaluations; a method looks the same in all sections of a comparison."""
    own = [run for run in runs if run.setting == comparison.setting]
    places = {kind: index for index, kind in enumerate(dict.fromkeys(run.kind for run in own))}
    taken: set[int] = set()
    rows = []
    for row in comparison.rows:
        index = places.get((row.label, row.config), len(places))
        while index in taken:
            index = max(index, len(places) - 1) + 1
        taken.add(index)
        rows.append(Drawn(clean(row.name), index, _seeds(row, suite, own)))
    return rows


def _seeds(row: Row, suite: str, runs: Iterable[Run]) -> list[tuple[int, dict[str, Any]]]:
    found = [
        (run.config["seed"], vars(run.evaluations[suite]))
        for run in runs
        if run.kind == (row.label, row.config) and suite in run.evaluations
    ]
    alike = [pair for pair in found if row.variant in ("", variant(pair[1]["settings"]))]
    return sorted(alike, key=lambda pair: pair[0])


def _figures(suite: str, name: str, rows: Sequence[Drawn], comparison: Comparison) -> tuple[list[Figure], list[Figure]]:
    """Draw a figure as its suite describes it, else as any suite does that has data of this form."""
    keys = set.intersection(*(set(data) for row in rows for data in row.data))
    for kind in chain(suite_named(suite).figures, *(described.figures for described in SUITES.values())):
        if kind.keys <= keys and fnmatchcase(name, kind.name):
            if isinstance(kind, about.Scores):
                return kinds.draw_scores(kind, name, rows, comparison)
            drawn = _RENDERERS[type(kind)](kind, rows)
            return drawn[:_VISIBLE], drawn[_VISIBLE:]
    return [], []


def settings_of(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what runs of one comparison share, what each method has of its own, and what else differs.

    Several methods share nothing of what is inside ``method``; where any other setting differs, it is not only they
    that are compared.
    """
    first: dict[tuple[str, str], Run] = {}
    for run in runs:
        first.setdefault(run.kind, run)
    flat = {kind: dict(flatten(run.settings)) for kind, run in first.items()}
    pairs, several = list(flat.values()), len(flat) > 1
    shared = {
        name: value
        for name, value in pairs[0].items()
        if all(one.get(name) == value for one in pairs) and not (several and name.startswith("method."))
    }
    methods = [
        {
            "name": name,
            "method": method_name(first[kind].config["method"]),
            "config": kind[1],
            "own": [pair for pair in flat[kind].items() if pair[0] not in shared],
        }
        for kind, name in row_names(first).items()
    ]
    differing = {name for method in methods for name, _ in method["own"] if not name.startswith("method.")}
    return {"shared": list(shared.items()), "methods": methods, "unequal": sorted(differing)}


def evaluations_of(rows: Sequence[Record]) -> list[tuple[str, Pairs]]:
    """Return (suite, its settings); those of clean accuracy are only there where they are not the defaults."""
    found = {
        suite: _suite_settings(row for row in rows if suite_of(row) == suite) for suite in ("accuracy", *suites(rows))
    }
    if all(value in ("", "null", "–") for _, value in found["accuracy"]):
        del found["accuracy"]
    return [(suite_named(suite).title, pairs) for suite, pairs in found.items()]


def _suite_settings(rows: Iterable[Record]) -> Pairs:
    """Return settings as (name, value); where rows of the table differ, every value with its labels."""
    kinds: dict[Any, dict[str, str]] = {}
    for row in rows:
        given = dict(flatten(row.get("settings") or {}))
        kinds.setdefault((*kind_of(row), json.dumps(given)), given)
    pairs = []
    for name in dict.fromkeys(name for given in kinds.values() for name in given):
        labels: dict[str, dict[str, None]] = {}
        for (label, _, _), given in kinds.items():
            labels.setdefault(given.get(name, "–"), {})[label] = None
        several = "; ".join(f"{value} ({listed(list(who))})" for value, who in labels.items())
        pairs.append((name, several if len(labels) > 1 else next(iter(labels))))
    return pairs


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted name, value as text) of nested settings."""
    if isinstance(value, dict):
        inside: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        inside = enumerate(value)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return
    for key, inner in inside:
        yield from flatten(inner, f"{name}.{key}" if name else str(key))
