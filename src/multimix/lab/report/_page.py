"""One self-contained HTML page from run folders."""

import base64
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

from multimix.lab._paths import expanded
from multimix.lab.about import SUITES, judged_by
from multimix.lab.report._figures import Drawn, Figure, Shots, learning_curves, seed_dots
from multimix.lab.report._paired import paired_grids, verdict
from multimix.lab.report._records import (
    MAIN,
    Comparison,
    Kind,
    Record,
    Setting,
    Summary,
    as_lines,
    kind_of,
    method_name,
    records,
    row_names,
    suite_of,
    suites,
    summarise,
    variant,
    write_whole,
)
from multimix.lab.report._runs import Run
from multimix.lab.report._tables import Grid, grids, table, template
from multimix.lab.report._words import clean, counted, listed, metric, spanned, suite_named

Pairs = list[tuple[str, str]]

_ENVIRONMENT = {
    "device": "Device",
    "device_name": "Device name",
    "threads": "Threads",
    "platform": "Platform",
    "python": "Python",
    "torch": "PyTorch",
    "torchvision": "torchvision",
    "multimix": "MultiMix",
    "commit": "Commit",
}


def page(
    runs: Sequence[Run],
    out: str | Path,
    *,
    title: str | None = None,
    paired: str | None = None,
    metrics: Sequence[str] | None = None,
) -> Path:
    """Write a report of runs as one HTML file that fetches nothing.

    The page holds, for every data set, model and length of training, a verdict in words, a table of means and spreads,
    learning curves, where every seed ended, how right each class is, which is taken for which, and the pictures that
    the runs left; a section of tables and figures for every suite that measured something; what each metric means, all
    settings, the environment, the commands, and every run with its state.
    Unfinished runs are listed, and left out of every mean. The same runs give the same page, byte for byte.

    Args:
        runs: What ``read_run`` returned.
        out: The file to write; its folder is made where it is missing.
        title: The page's title; says methods and data by default.
        paired: The label that the others are compared with seed by seed, in a table of its own; None for no such table,
            and a verdict against ``erm`` where it is among them, else against the first.
        metrics: The columns of that table; accuracy, NLL and ECE by default.

    Returns:
        ``out`` as a path.

    Raises:
        ValueError: ``runs`` is empty, ``out`` is a folder, or the finished runs have no ``paired`` to compare with, or
            nothing of its ``metrics``.
    """
    if not runs:
        raise ValueError("runs: expected at least one run, got none")
    out = expanded(out)
    runs = list({run.folder.resolve(): run for run in runs}.values())
    kept = _kept(runs)
    rows = records(kept)
    beside = paired_grids(summarise(rows, metrics), paired, metrics) if paired is not None and rows else {}
    summary = summarise(rows)
    measured = {suite: summarise(rows, suite=suite) for suite in suites(rows)}
    parts = {run.setting: [other for other in runs if other.setting == run.setting] for run in runs}
    data, labels = (list(dict.fromkeys(run.config[name] for run in runs)) for name in ("data", "label"))
    methods = listed(labels) if len(labels) <= 2 else counted(len(labels), "method")
    judges = [*(judged_by(one.metrics)[:1] for one in summary.comparisons), SUITES["accuracy"].metrics[:1]]
    context = {
        "title": title or f"{methods} on {listed(data)}",
        "several": any(len(row.seeds) > 1 for comparison in summary.comparisons for row in comparison.rows),
        "facts": _facts(runs, [row for row in rows if suite_of(row) in MAIN]),
        "parts": [
            {**_part(group, kept, rows), **_compared(summary, key, kept, paired), "paired": beside.get(key)}
            for key, group in parts.items()
        ],
        "sections": sections(measured, kept),
        "metrics": _described([summary, *measured.values()]),
        "environment": _environment(runs),
        "commands": list(_values(runs, "command")),
        "notes": list(dict.fromkeys(note for run in runs for note in run.notes)),
        "unfinished": sum(not run.finished for run in runs),
        "superseded": sum(run.finished for run in runs) - len(kept),
        "downloads": _downloads(rows, summary, measured),
        "runs": [_run_line(run, kept, out.parent) for run in runs],
        "judged": listed(list(dict.fromkeys(judge.quantity for found in judges[:-1] or judges for judge in found))),
    }
    write_whole(out, template("report.html").render(context))
    return out


@dataclass
class Article:
    """One comparison's tables and figures, how its suite was set, and why a figure is left out."""

    title: str
    tables: list[Grid]
    more_tables: list[Grid]
    note: str
    figures: list[Figure | Shots] = field(default_factory=list)
    more_figures: list[Figure | Shots] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def sections(summaries: Mapping[str, Summary], runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return a section for every suite, with an article for every comparison."""
    return [
        {"suite": suite_named(suite), "articles": [_article(one, suite, runs) for one in found.comparisons]}
        for suite, found in summaries.items()
    ]


def _article(comparison: Comparison, suite: str, runs: Sequence[Run]) -> Article:
    from multimix.lab.report._kinds import figures as figures_of  # not above: tables are made without NumPy

    rows = _measured(comparison, suite, runs)
    found = [evaluation for row in rows for evaluation in row.data]
    say = suite_named(suite).note
    note = say(found[0]["settings"]) if say and found else ""
    article = Article(comparison.title, *grids(comparison), note)
    for name in dict.fromkeys(name for evaluation in found for name in evaluation["figures"]):
        own = [[(seed, one["figures"][name]) for seed, one in row.seeds if name in one["figures"]] for row in rows]
        drawn = [Drawn(row.name, row.index, seeds) for row, seeds in zip(rows, own, strict=True) if seeds]
        try:
            figures, more = figures_of(suite, name, drawn, comparison)
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
    spare = count(len(places))
    rows = []
    for row in comparison.rows:
        kind = (row.label, row.config)
        index = places.pop(kind) if kind in places else next(spare)
        found = {run.config["seed"]: run.evaluations.get(suite) for run in own if run.kind == kind}
        alike = {seed: vars(one) for seed, one in found.items() if one and row.variant in ("", variant(one.settings))}
        rows.append(Drawn(clean(row.name), index, sorted(alike.items())))
    return rows


def _date(run: Run) -> str:
    return max(str(event.get("date") or "") for event in (run.environment, *run.tests))


def _kept(runs: Iterable[Run]) -> list[Run]:
    """Return the finished runs, of equal settings and seed only the latest, in their order."""
    latest: dict[Any, Run] = {}
    for run in runs:
        key = (run.setting, run.kind, run.config["seed"])
        if run.finished and (key not in latest or _date(run) >= _date(latest[key])):
            latest[key] = run
    return [run for run in runs if any(run is one for one in latest.values())]


def _compared(summary: Summary, setting: Setting, kept: Sequence[Run], against: str | None) -> dict[str, Any]:
    """Return what the page shows of clean accuracy in one comparison; nothing but the names where none is measured."""
    comparison = next((one for one in summary.comparisons if one.setting == setting), None)
    if comparison is None:
        return {"verdict": [], "dots": [], "accuracy": None}
    several = sum(len(row.seeds) for row in comparison.rows) > 1
    dots = [seed_dots(comparison, judge.name) for judge in judged_by(comparison.metrics)[:1] if several]
    return {
        "verdict": verdict(comparison, against),
        "dots": list(filter(None, dots)),
        "accuracy": _article(comparison, "accuracy", kept),
    }


def _part(group: list[Run], kept: list[Run], rows: Sequence[Record]) -> dict[str, Any]:
    """Return everything else the page shows of one comparison."""
    finished = [run for run in group if run in kept]
    drawn = finished or group
    setting = group[0].setting
    seeds = sorted({run.config["seed"] for run in drawn})
    in_a_row = len(seeds) > 4 and seeds == list(range(seeds[0], seeds[-1] + 1))
    measured = {name for run in drawn for event in run.epochs for name in event}
    names = [f"validation_{judge.name}" for judge in judged_by(measured, "validation_")]
    figures = [learning_curves(drawn, name) for name in (*names, "train_loss")]
    return {
        "setting": setting,
        "title": Comparison(*setting, (), ()).title,
        "labels": list(dict.fromkeys(run.label for run in group)),
        "seeds": spanned(seeds) if in_a_row else listed(list(map(str, seeds))),
        "several": len(seeds) > 1,
        "curves": list(filter(None, figures)),
        "pictures": _pictures(drawn),
        "settings": _settings_of(drawn),
        "evaluations": _evaluations_of([row for row in rows if (row["data"], row["model"], row["epochs"]) == setting]),
        "finished": bool(finished),
    }


def _pictures(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the pictures of every method's lowest seed, the same kind of picture side by side."""
    chosen = {run.kind: run for run in sorted(runs, key=lambda run: -run.config["seed"]) if run.pictures}
    found = []
    for kind, name in row_names(run.kind for run in runs).items():
        for picture in chosen[kind].pictures if kind in chosen else ():
            source = _data_uri("image/png", picture.path.read_bytes())
            found.append({"of": picture, "name": name, "seed": chosen[kind].config["seed"], "source": source})
    return sorted(found, key=lambda one: one["of"].path.name)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _facts(runs: Sequence[Run], rows: Sequence[Record]) -> list[tuple[str, str]]:
    """Return the few numbers at the top: (name, value)."""
    examples = sorted({str(row["examples"]) for row in rows if row.get("examples")})
    days = sorted({_date(run)[:10] for run in runs} - {""})
    facts = [
        ("Methods", str(len({run.label for run in runs}))),
        ("Seeds", str(len({run.config["seed"] for run in runs}))),
        ("Finished runs", f"{sum(run.finished for run in runs)} of {len(runs)}"),
        ("Test examples", " / ".join(examples)),
        ("Own files", ", ".join(sorted({f"{name} ({sha[:8]})" for run in runs for name, sha in run.code.items()}))),
        ("Device", " / ".join(_values(runs, "device"))),
        ("PyTorch", " / ".join(_values(runs, "torch"))),
        ("Dates" if len(days) > 1 else "Date", " to ".join(dict.fromkeys([*days[:1], *days[-1:]]))),
    ]
    return [(name, value) for name, value in facts if value]


def _values(runs: Iterable[Run], name: str) -> dict[str, int]:
    """Return what the runs' environments say, with the number of runs that say it."""
    return Counter(str(run.environment[name]) for run in runs if run.environment.get(name) is not None)


def _described(summaries: Sequence[Summary]) -> list[Any]:
    """Return the metrics to explain: of the main table all, of a suite what its many are made of, each once."""
    names: dict[str, None] = {}
    for comparison in chain.from_iterable(summary.comparisons for summary in summaries):
        names |= dict.fromkeys(name.rpartition("/")[2] if comparison.suite else name for name in comparison.metrics)
    return list(map(metric, names))


def _environment(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return (name, value) of what the runs ran on; where runs differ, every value with the number of runs."""
    found = []
    for name in dict.fromkeys([*_ENVIRONMENT, *(name for run in runs for name in run.environment)]):
        values = _values(runs, name)
        if values and name not in ("date", "command"):
            of_runs = {value: counted(number, "run") for value, number in values.items()}
            found.append((_ENVIRONMENT.get(name, name), _told_apart(of_runs)))
    return found


def _told_apart(values: Mapping[str, str]) -> str:
    """Return the value where there is one; else every value with whose it is."""
    return "; ".join(f"{value} ({whose})" for value, whose in values.items()) if len(values) > 1 else next(iter(values))


def _run_line(run: Run, kept: list[Run], base: Path) -> dict[str, Any]:
    folder, base = run.folder.resolve(), base.resolve()
    found = {row["metric"]: row["value"] for row in records([run])}
    judge = next(iter(judged_by(found)), None)
    state = "finished" if run in kept else "left out: a later run has its settings and seed"
    if not run.finished:
        state = f"unfinished: epoch {run.epochs[-1]['epoch'] if run.epochs else 0} of {run.config['epochs']}"
    return {
        "of": run,
        "folder": str(folder.relative_to(base) if folder.is_relative_to(base) else folder),
        "judged": f"{judge.factor * found[judge.name]:.1f}" if judge else "–",
        "date": _date(run)[:16].replace("T", " ") or "–",
        "state": state,
        "flag": run not in kept,
    }


def _downloads(rows: Sequence[Record], summary: Summary, measured: dict[str, Summary]) -> list[tuple[str, str]]:
    """Return (file name, address) of the numbers behind the page."""
    if not rows:
        return []
    texts = {"records.jsonl": as_lines(rows)}
    for suite, one in {"": summary, **measured}.items():
        if one.comparisons:
            texts[re.sub(r"[^\w.-]", "-", f"table-{suite}".rstrip("-")) + ".csv"] = table(one, "csv")
    return [(name, _data_uri("text/plain", text.encode())) for name, text in texts.items()]


def _settings_of(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what runs of one comparison share, what each method has of its own, and what else differs."""
    first: dict[Kind, Run] = {}
    for run in runs:
        first.setdefault(run.kind, run)
    flat = {kind: dict(_flatten(run.settings)) for kind, run in first.items()}
    pairs, several = list(flat.values()), len(flat) > 1
    shared = {
        name: value
        for name, value in pairs[0].items()
        if all(one.get(name) == value for one in pairs) and not (several and name.startswith("method."))
    }
    methods = []
    for kind, name in row_names(first).items():
        own = [pair for pair in flat[kind].items() if pair[0] not in shared]
        method = method_name(first[kind].config["method"])
        methods.append({"name": name, "method": method, "config": kind[1], "own": own})
    differing = {name for one in methods for name, _ in one["own"] if not name.startswith("method.")}
    return {"shared": list(shared.items()), "methods": methods, "unequal": sorted(differing)}


def _evaluations_of(rows: Sequence[Record]) -> list[tuple[str, Pairs]]:
    """Return (suite, its settings); those of clean accuracy are only there where they are not the defaults."""
    names = ("accuracy", *suites(rows))
    pairs = [(suite_named(name).title, _suite_settings(row for row in rows if suite_of(row) == name)) for name in names]
    return pairs[all(value in ("", "null", "–") for _, value in pairs[0][1]) :]


def _suite_settings(rows: Iterable[Record]) -> Pairs:
    """Return settings as (name, value); where rows of the table differ, every value with its labels."""
    kinds: dict[Any, dict[str, str]] = {}
    for row in rows:
        given = dict(_flatten(row.get("settings") or {}))
        kinds.setdefault((*kind_of(row), json.dumps(given)), given)
    pairs = []
    for name in dict.fromkeys(name for given in kinds.values() for name in given):
        labels: dict[str, dict[str, None]] = {}
        for (label, _, _), given in kinds.items():
            labels.setdefault(given.get(name, "–"), {})[label] = None
        pairs.append((name, _told_apart({value: listed(list(who)) for value, who in labels.items()})))
    return pairs


def _flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted name, value as text) of nested settings."""
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return
    for key, inner in value.items():
        yield from _flatten(inner, f"{name}.{key}" if name else str(key))
