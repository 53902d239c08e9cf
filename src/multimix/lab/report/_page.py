"""One self-contained HTML page from run folders."""

import base64
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from multimix.lab.report._figures import learning_curves, seed_dots
from multimix.lab.report._files import write_whole
from multimix.lab.report._layout import suite_title
from multimix.lab.report._metrics import Metric, metric
from multimix.lab.report._paired import paired_html
from multimix.lab.report._records import MAIN, Record, as_lines, records
from multimix.lab.report._runs import Picture, Run
from multimix.lab.report._settings import Pairs, Settings, settings_of, suite_settings
from multimix.lab.report._suites import sections
from multimix.lab.report._summary import Comparison, Setting, Summary, row_names, suites, summarise
from multimix.lab.report._svg import Figure
from multimix.lab.report._tables import html_tables, table
from multimix.lab.report._text import clean, counted, listed

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


_FILE = re.compile(r"[^\w.-]")  # what a file's name is better without


@dataclass(frozen=True)
class _Part:
    """Everything the page shows of one comparison."""

    anchor: str
    title: str
    results: Markup | None
    paired: Markup | None
    figures: list[Figure]
    pictures: list[dict[str, Any]]
    settings: Settings
    evaluations: list[tuple[str, Pairs]]
    finished: bool


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
    write_whole(out, _render(_context(runs, title, out.parent, _beside(runs, paired, metrics))))
    return out


def _render(context: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("multimix.lab.report", "_templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html").render(context)


def _beside(runs: Iterable[Run], paired: str | None, metrics: Sequence[str] | None) -> dict[Setting, Markup]:
    """Return the tables of paired differences; none where nothing has finished yet."""
    rows = records(_kept(runs)) if paired is not None else []
    return paired_html(summarise(rows, metrics), paired, metrics=metrics) if paired is not None and rows else {}


def _context(runs: Sequence[Run], title: str | None, base: Path, beside: dict[Setting, Markup]) -> dict[str, Any]:
    kept = _kept(runs)
    rows = records(kept)
    summary = summarise(rows)
    measured = {suite: summarise(rows, suite=suite) for suite in suites(rows)}
    groups: dict[Setting, list[Run]] = {}
    for run in runs:
        groups.setdefault(_setting(run), []).append(run)
    parts = [
        _part(index, group, kept, summary, rows, beside.get(setting))
        for index, (setting, group) in enumerate(groups.items(), start=1)
    ]
    return {
        "title": clean(title or _title(groups)),
        "lead": _lead(groups, kept),
        "several": any(len(row.seeds) > 1 for comparison in summary.comparisons for row in comparison.rows),
        "facts": _facts(runs, [row for row in rows if (row["suite"] or "accuracy") in MAIN]),
        "parts": parts,
        "sections": sections(measured, kept),
        "metrics": [_definition(known) for known in _described(summary, measured.values())],
        "environment": _environment(runs),
        "commands": _commands(runs),
        "runs": [_run_line(run, kept, base) for run in runs],
        "unfinished": sum(not run.finished for run in runs),
        "superseded": sum(run.finished for run in runs) - len(kept),
        "downloads": _downloads(rows, summary, measured),
    }


def _described(summary: Summary, measured: Iterable[Summary]) -> list[Metric]:
    """Return the metrics to explain: of the main table all, of a suite what its many are made of, each once."""
    main = (name for comparison in summary.comparisons for name in comparison.metrics)
    of_suites = (
        name.rpartition("/")[2] for one in measured for comparison in one.comparisons for name in comparison.metrics
    )
    return [metric(name) for name in dict.fromkeys([*main, *of_suites])]


def _setting(run: Run) -> Setting:
    return run.config["data"], run.config["model"], run.config["epochs"]


def _date(run: Run) -> str:
    return max(str(event.get("date") or "") for event in (run.environment, *run.tests))


def _kept(runs: Iterable[Run]) -> list[Run]:
    """Return the finished runs, of equal settings and seed only the latest, in their order."""
    latest: dict[Any, Run] = {}
    for run in runs:
        key = (_setting(run), run.label, run.settings_hash, run.config["seed"])
        if run.finished and (key not in latest or _date(run) >= _date(latest[key])):
            latest[key] = run
    kept = {id(run) for run in latest.values()}
    return [run for run in runs if id(run) in kept]


def _part(
    index: int,
    group: list[Run],
    kept: list[Run],
    summary: Summary,
    rows: Sequence[Record],
    paired: Markup | None,
) -> _Part:
    finished = [run for run in group if run in kept]
    drawn = finished or group
    comparison = _comparison(summary, _setting(group[0]))
    dots = [seed_dots(comparison)] if comparison and _spread(comparison) else []
    curves = [learning_curves(drawn, name) for name in _CURVES]
    data, model, epochs = _setting(group[0])
    return _Part(
        anchor=f"comparison-{index}",
        title=Comparison(clean(data), clean(model), epochs, (), ()).title,
        results=html_tables(comparison)[0] if comparison else None,
        paired=paired,
        figures=[figure for figure in (*dots, *curves) if figure],
        pictures=_pictures(drawn),
        settings=settings_of(drawn),
        evaluations=_evaluations(
            [row for row in rows if (row["data"], row["model"], row["epochs"]) == _setting(group[0])]
        ),
        finished=bool(finished),
    )


def _evaluations(rows: Sequence[Record]) -> list[tuple[str, Pairs]]:
    """Return (suite, its settings); those of clean accuracy are only there where they are not the defaults."""
    found = {
        suite_title(suite): suite_settings(row for row in rows if row["suite"] == suite)
        for suite in ("accuracy", *suites(rows))
    }
    plain = ("", "null", "–")
    return [
        (title, pairs)
        for title, pairs in found.items()
        if title != suite_title("accuracy") or any(value not in plain for _, value in pairs)
    ]


def _comparison(summary: Summary, setting: Setting) -> Comparison | None:
    found = (one for one in summary.comparisons if (one.data, one.model, one.epochs) == setting)
    return next(found, None)


def _spread(comparison: Comparison) -> bool:
    """Whether there is more than one number to place beside the others."""
    return sum(len(row.seeds) for row in comparison.rows) > 1


def _pictures(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the pictures of every method's lowest seed, the same kind of picture side by side."""
    chosen: dict[tuple[str, str], Run] = {}
    names = row_names((run.label, run.settings_hash) for run in runs)
    for run in sorted(runs, key=lambda run: run.config["seed"]):
        if run.pictures:
            chosen.setdefault((run.label, run.settings_hash), run)
    found = [
        (kind, chosen[kind].config["seed"], picture)
        for kind in names
        if kind in chosen
        for picture in chosen[kind].pictures
    ]
    found.sort(key=lambda one: one[2].path.name)
    return [_picture(clean(names[kind]), seed, picture) for kind, seed, picture in found]


def _picture(name: str, seed: int, picture: Picture) -> dict[str, Any]:
    return {
        "name": name,
        "seed": seed,
        "caption": clean(picture.caption),
        "width": picture.width,
        "height": picture.height,
        "source": _data_uri("image/png", picture.path.read_bytes()),
    }


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _title(groups: dict[Setting, list[Run]]) -> str:
    data = listed(list(dict.fromkeys(data for data, _, _ in groups)))
    labels = list(dict.fromkeys(run.label for group in groups.values() for run in group))
    return f"{listed(labels) if len(labels) <= 2 else counted(len(labels), 'method')} on {data}"


def _lead(groups: dict[Setting, list[Run]], kept: list[Run]) -> str:
    return " ".join(_sentence(setting, group, kept) for setting, group in groups.items())


def _sentence(setting: Setting, group: list[Run], kept: list[Run]) -> str:
    data, model, epochs = setting
    names = list(dict.fromkeys(run.label for run in group))
    seeds = sorted({run.config["seed"] for run in group if run in kept} or {run.config["seed"] for run in group})
    methods = listed(names) if len(names) <= 8 else f"{len(names)} methods"
    which = f"{'seeds' if len(seeds) > 1 else 'seed'} {_ranges(seeds)}"
    return clean(f"Trained on {data} with {model} for {counted(epochs, 'epoch')}: {methods}; {which}.")


def _ranges(seeds: list[int]) -> str:
    """Return whole numbers in words: ``0, 1 and 2``; many in a row as ``0 to 9``."""
    if len(seeds) > 4 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return listed([str(seed) for seed in seeds])


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
    return [(name, clean(value)) for name, value in facts if value]


def _values(runs: Iterable[Run], name: str) -> list[str]:
    return list(dict.fromkeys(str(run.environment[name]) for run in runs if run.environment.get(name) is not None))


def _definition(known: Metric) -> dict[str, str]:
    better = {"higher": "Higher is better.", "lower": "Lower is better.", None: ""}[known.better]
    return {"title": known.quantity, "meaning": known.meaning, "better": better}


def _environment(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return (name, value) of what the runs ran on; where runs differ, every value with the number of runs."""
    others = {name: clean(name) for run in runs for name in run.environment if name not in ("date", "command")}
    found = []
    for name, title in {
        **_ENVIRONMENT,
        **{key: words for key, words in others.items() if key not in _ENVIRONMENT},
    }.items():
        counts = Counter(str(run.environment[name]) for run in runs if run.environment.get(name) is not None)
        if len(counts) == 1:
            found.append((title, clean(next(iter(counts)))))
        elif counts:
            found.append(
                (title, "; ".join(f"{clean(value)} ({counted(number, 'run')})" for value, number in counts.items()))
            )
    return found


def _commands(runs: Sequence[Run]) -> list[str]:
    """Return the commands, each once; a line end in one stays a line end."""
    return ["\n".join(map(clean, command.splitlines())) for command in _values(runs, "command")]


def _run_line(run: Run, kept: list[Run], base: Path) -> dict[str, str]:
    accuracy = [row["value"] for row in records([run]) if row["metric"] == "accuracy"]
    return {
        "folder": clean(_place(run.folder, base)),
        "label": clean(run.label),
        "seed": str(run.config["seed"]),
        "config": run.settings_hash[:6],
        "accuracy": f"{accuracy[0] * 100:.1f}" if accuracy else "–",
        "date": clean(_date(run)[:16].replace("T", " ")) or "–",
        "state": _state(run, kept),
        "flag": "" if run in kept else "flag",
    }


def _place(folder: Path, base: Path) -> str:
    """Return a folder as seen from the page's, where it lies inside that."""
    folder, base = folder.resolve(), base.resolve()
    return str(folder.relative_to(base)) if folder.is_relative_to(base) else str(folder)


def _state(run: Run, kept: list[Run]) -> str:
    if not run.finished:
        reached = run.epochs[-1]["epoch"] if run.epochs else 0
        return f"unfinished: epoch {reached} of {run.config['epochs']}"
    return "finished" if run in kept else "left out: a later run has its settings and seed"


def _downloads(rows: Sequence[Record], summary: Summary, measured: dict[str, Summary]) -> list[tuple[str, str]]:
    if not rows:
        return []
    uri = partial(_data_uri, "text/plain")
    tables = {"table": summary, **{f"table-{_FILE.sub('-', suite)}": one for suite, one in measured.items()}}
    return [
        ("records.jsonl", uri(as_lines(rows).encode())),
        *((f"{name}.csv", uri(table(one, "csv").encode())) for name, one in tables.items() if one.comparisons),
    ]
