"""One self-contained HTML page from run folders."""

import base64
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from multimix.lab.report._figures import learning_curves, seed_dots
from multimix.lab.report._formats import Grid, template
from multimix.lab.report._paired import paired_grids
from multimix.lab.report._records import MAIN, Record, as_lines, records, suite_of, write_whole
from multimix.lab.report._runs import Run
from multimix.lab.report._summary import Comparison, Setting, Summary, row_names, suites, summarise
from multimix.lab.report._tables import grids, table
from multimix.lab.report._words import counted, listed, metric

_CURVES = ("validation_accuracy", "validation_nll", "train_loss")
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

    The page holds a table of means and spreads for every data set, model and length of training, learning curves, where
    every seed ended, the pictures that the runs left, a section of tables and figures for every suite that measured
    something, what each metric means, all settings, the environment, the commands, and every run with its state.
    Unfinished runs are listed, and left out of every mean. The same runs give the same page, byte for byte.

    Args:
        runs: What ``read_run`` returned.
        out: The file to write; its folder is made where it is missing.
        title: The page's title; says methods and data by default.
        paired: The label that the others are compared with seed by seed, in a table of its own; None for no such table.
        metrics: The columns of that table; accuracy, NLL and ECE by default.

    Returns:
        ``out`` as a path.

    Raises:
        ValueError: ``runs`` is empty, ``out`` is a folder, or the finished runs have no ``paired`` to compare with, or
            nothing of its ``metrics``.
    """
    if not runs:
        raise ValueError("runs: expected at least one run, got none")
    out = Path(out)
    runs = list({run.folder.resolve(): run for run in runs}.values())
    kept = _kept(runs)
    rows = records(kept)
    beside = paired_grids(summarise(rows, metrics), paired, metrics) if paired is not None and rows else {}
    context = {**_context(runs, kept, rows, beside), "title": title or _title(runs)}
    context["runs"] = [_run_line(run, kept, out.parent) for run in runs]
    write_whole(out, template("report.html").render(context))
    return out


def _context(
    runs: Sequence[Run], kept: list[Run], rows: Sequence[Record], beside: dict[Setting, Grid]
) -> dict[str, Any]:
    from multimix.lab.report._sections import sections  # not above: tables are made without NumPy

    summary = summarise(rows)
    measured = {suite: summarise(rows, suite=suite) for suite in suites(rows)}
    parts = {run.setting: [other for other in runs if other.setting == run.setting] for run in runs}
    return {
        "several": any(len(row.seeds) > 1 for comparison in summary.comparisons for row in comparison.rows),
        "facts": _facts(runs, [row for row in rows if suite_of(row) in MAIN]),
        "parts": [_part(group, kept, summary, rows) | {"paired": beside.get(key)} for key, group in parts.items()],
        "sections": sections(measured, kept),
        "metrics": _described([summary, *measured.values()]),
        "environment": _environment(runs),
        "commands": list(_values(runs, "command")),
        "unfinished": sum(not run.finished for run in runs),
        "superseded": sum(run.finished for run in runs) - len(kept),
        "downloads": _downloads(rows, summary, measured),
    }


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


def _part(group: list[Run], kept: list[Run], summary: Summary, rows: Sequence[Record]) -> dict[str, Any]:
    """Return everything the page shows of one comparison."""
    from multimix.lab.report._sections import evaluations_of, settings_of

    finished = [run for run in group if run in kept]
    drawn = finished or group
    setting = group[0].setting
    comparison = next((one for one in summary.comparisons if one.setting == setting), None)
    figures = [learning_curves(drawn, name) for name in _CURVES]
    if comparison and sum(len(row.seeds) for row in comparison.rows) > 1:
        figures.insert(0, seed_dots(comparison))
    return {
        "setting": setting,
        "title": Comparison(*setting, (), ()).title,
        "labels": list(dict.fromkeys(run.label for run in group)),
        "seeds": _ranges(sorted({run.config["seed"] for run in drawn})),
        "results": grids(comparison)[0][0] if comparison else None,
        "figures": list(filter(None, figures)),
        "pictures": _pictures(drawn),
        "settings": settings_of(drawn),
        "evaluations": evaluations_of([row for row in rows if (row["data"], row["model"], row["epochs"]) == setting]),
        "finished": bool(finished),
    }


def _pictures(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the pictures of every method's lowest seed, the same kind of picture side by side."""
    chosen: dict[tuple[str, str], Run] = {}
    for run in sorted(runs, key=lambda run: run.config["seed"]):
        if run.pictures:
            chosen.setdefault(run.kind, run)
    names = row_names(run.kind for run in runs)
    found = [
        {
            "of": picture,
            "name": name,
            "seed": chosen[kind].config["seed"],
            "source": _data_uri("image/png", picture.path.read_bytes()),
        }
        for kind, name in names.items()
        if kind in chosen
        for picture in chosen[kind].pictures
    ]
    return sorted(found, key=lambda one: one["of"].path.name)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _title(runs: Sequence[Run]) -> str:
    data, labels = (list(dict.fromkeys(run.config[name] for run in runs)) for name in ("data", "label"))
    return f"{listed(labels) if len(labels) <= 2 else counted(len(labels), 'method')} on {listed(data)}"


def _ranges(seeds: list[int]) -> str:
    """Return ``seeds 0, 1 and 2``; many in a row as ``seeds 0 to 9``."""
    if len(seeds) > 4 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' * (len(seeds) > 1)} {listed(list(map(str, seeds)))}"


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
    names = (
        name if comparison.suite is None else name.rpartition("/")[2]
        for summary in summaries
        for comparison in summary.comparisons
        for name in comparison.metrics
    )
    return [metric(name) for name in dict.fromkeys(names)]


def _environment(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return (name, value) of what the runs ran on; where runs differ, every value with the number of runs."""
    found = []
    for name in dict.fromkeys([*_ENVIRONMENT, *(name for run in runs for name in run.environment)]):
        values = _values(runs, name)
        if values and name not in ("date", "command"):
            several = "; ".join(f"{value} ({counted(number, 'run')})" for value, number in values.items())
            found.append((_ENVIRONMENT.get(name, name), several if len(values) > 1 else next(iter(values))))
    return found


def _run_line(run: Run, kept: list[Run], base: Path) -> dict[str, Any]:
    folder, base = run.folder.resolve(), base.resolve()
    accuracy = [row["value"] for row in records([run]) if row["metric"] == "accuracy"]
    state = "finished" if run in kept else "left out: a later run has its settings and seed"
    if not run.finished:
        state = f"unfinished: epoch {run.epochs[-1]['epoch'] if run.epochs else 0} of {run.config['epochs']}"
    return {
        "of": run,
        "folder": str(folder.relative_to(base) if folder.is_relative_to(base) else folder),
        "accuracy": f"{accuracy[0] * 100:.1f}" if accuracy else "–",
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
