"""Tables of the anatomy's records, for the terminal and for Markdown."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

Record = dict[str, Any]

_PUBLISHED = [0.5, 2.0]
_PARTS = ("logits_centred", "logits_mean")


@dataclass(frozen=True)
class Table:
    """A table as text."""

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


class Found:
    """The records of one trained network at one point of its training, over all seeds."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records

    def values(self, metric: str, **where: Any) -> list[Any]:
        """Return a metric's value of each seed; a condition on a field that a record lacks is one on None."""
        wanted = {"metric": metric, "measured": None, **where}
        return [r["value"] for r in self.records if all(r.get(name) == value for name, value in wanted.items())]

    def mean(self, metric: str, key: str | None = None, **where: Any) -> float | None:
        """Return the mean over seeds of a metric, or of what it has under a key; None if any is missing."""
        values = self.values(metric, **where)
        numbers = values if key is None else [value.get(key) for value in values]
        return None if not numbers or None in numbers else fmean(numbers)

    def number(self, metric: str, key: str | None = None, **where: Any) -> str:
        """Return that as a table shows it."""
        return _short(self.mean(metric, key, **where))


def read(path: str | Path) -> list[Record]:
    """Return the records of a file.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If a line is no record of the anatomy.
    """
    records = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    for number, record in enumerate(records, 1):
        for name in ("metric", "value", "label", "seed", "progress"):
            if name not in record:
                raise ValueError(f"{path}, line {number}: expected a record with {name}, got {sorted(record)}")
    return records


def render(records: Iterable[Record], name: str, labels: Iterable[str] | None = None) -> str:
    """Return a table of records as Markdown.

    Args:
        records: As :func:`anatomy.anatomise` yields them, of any number of methods and seeds.
        name: One of :data:`TABLES`.
        labels: Only networks that were trained with these methods; None for all.

    Raises:
        ValueError: If the name is unknown or there is no record, or none of a label.
    """
    kept = list(records)
    if labels is not None:
        wanted, there = list(labels), {record["label"] for record in kept}
        if unknown := [label for label in wanted if label not in there]:
            raise ValueError(f"labels must be among {', '.join(sorted(there))}, got {', '.join(unknown)}")
        kept = [record for record in kept if record["label"] in wanted]
    table = tables(kept, (name,))[0]
    lines = [f"| {' | '.join(table.headings)} |", "| :--- " + "| ---: " * (len(table.headings) - 1) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in table.rows]
    return "\n".join([*lines, "", f"{table.title}. {_origin(kept)}"]) + "\n"


def tables(records: Iterable[Record], names: Iterable[str]) -> list[Table]:
    """Return tables by name; one row a trained network and point of its training.

    Args:
        records: Of any number of methods and seeds.
        names: Of :data:`TABLES`.

    Raises:
        ValueError: If a name is unknown or there is no record.
    """
    points: dict[tuple[str, float], list[Record]] = {}
    for record in records:
        points.setdefault((record["label"], record["progress"]), []).append(record)
    if not points:
        raise ValueError("records must hold at least one record, got none")
    made = []
    for name in names:
        if name not in TABLES:
            raise ValueError(f"table must be one of {', '.join(TABLES)}, got {name!r}")
        made.append(TABLES[name]({at: Found(found) for at, found in points.items()}))
    return made


Points = dict[tuple[str, float], Found]


def _table(title: str, points: Points, columns: dict[str, Callable[[Found], str]]) -> Table:
    headings = ("trained with", "progress", *columns)
    rows = [
        (label, f"{100 * progress:.0f} %", *(cell(found) for cell in columns.values()))
        for (label, progress), found in points.items()
    ]
    return Table(title, headings, rows)


def _law(points: Points) -> Table:
    def cell(alpha: Any) -> Callable[[Found], str]:
        def show(found: Found) -> str:
            where = {"measured": "multimix", "alpha": alpha, "balanced": False}
            ratio = found.mean("norm_ratio", "logits_centred", **where)
            predicted = found.mean("law_norm_ratio", "logits_centred", alpha=alpha)
            share = None if ratio is None or predicted is None else ratio / predicted
            return f"{_short(share)} ({found.number('cosine', 'logits_centred', **where)})"

        return show

    predicted = {str(a): _predicted(points, a) for a in _alphas(points)}
    columns = {f"{_name(a)}: {predicted[str(a)]}": cell(a) for a in _alphas(points)}
    title = (
        "Norm of the centred gradient on the logits over what the law predicts (1 = as predicted), and its cosine with"
        " plain training's in brackets; the heading has the concentration and the predicted 1/(m α + 1)"
    )
    return _table(title, points, columns)


def _balanced(points: Points) -> Table:
    def cell(alpha: Any) -> Callable[[Found], str]:
        where = {"measured": "multimix", "alpha": alpha, "balanced": True}
        return lambda found: _pair(found, "total", where)

    title = "Norm of the balanced gradient of all parameters over plain training's, and their cosine in brackets"
    return _table(title, points, {_name(a): cell(a) for a in _alphas(points)})


def _mean_part(points: Points) -> Table:
    where = {"measured": "multimix", "alpha": _PUBLISHED, "balanced": False}
    columns: dict[str, Callable[[Found], str]] = {
        "mean part: ratio (cosine)": lambda found: _pair(found, "logits_mean", where),
        "all parameters: ratio (cosine)": lambda found: _pair(found, "total", where),
        "by the law": lambda found: found.number("law_norm_ratio", "total", alpha=_PUBLISHED),
        "cosine with the law": lambda found: found.number("law_cosine", "total", **where),
    }
    title = "The published concentration, not balanced, against plain training: the mean part of the gradient, and all"
    return _table(title, points, columns)


def _layers(points: Points) -> Table:
    def cell(layer: str) -> Callable[[Found], str]:
        def show(found: Found) -> str:
            where = {"measured": "multimix", "alpha": _PUBLISHED, "balanced": False}
            ratio = found.number("norm_ratio", layer, **where)
            law = found.number("law_norm_ratio", layer, alpha=_PUBLISHED)
            return f"{ratio} / {law} ({found.number('law_cosine', layer, **where)})"

        return show

    title = (
        "Norm of each layer's gradient over plain training's at the published concentration, measured / by the law, and"
        " the cosine between the measured and the law's in brackets"
    )
    return _table(title, points, {layer: cell(layer) for layer in _layer_names(points)})


def _layers_balanced(points: Points) -> Table:
    def cell(layer: str) -> Callable[[Found], str]:
        where = {"measured": "multimix", "alpha": _PUBLISHED, "balanced": True}
        return lambda found: _pair(found, layer, where)

    title = "The same, balanced: norm of each layer's gradient over plain training's, and their cosine in brackets"
    return _table(title, points, {layer: cell(layer) for layer in _layer_names(points)})


def _noise(points: Points) -> Table:
    records = _some(points, "relative_variance")
    alphas = _unique(record["alpha"] for record in records)
    counts = _unique(n for record in records for n in record["value"])

    def cell(alpha: Any, n: str) -> Callable[[Found], str]:
        return lambda found: " / ".join(
            found.number("relative_variance", n, measured="multimix", alpha=alpha, balanced=balanced)
            for balanced in (False, True)
        )

    title = (
        "Variance of the gradient of all parameters over draws of n tuples, relative to its square, as it is / balanced"
    )
    return _table(title, points, {f"{_name(alpha)}, n {n}": cell(alpha, n) for alpha in alphas for n in counts})


def _second_order(points: Points) -> Table:
    def cell(alpha: Any) -> Callable[[Found], str]:
        where = {"measured": "multimix", "alpha": alpha}
        keys = ("law_centred", "quadratic_centred")
        return lambda found: " / ".join(found.number("prediction_error", key, **where) for key in keys)

    title = "Relative error on the centred gradient on the logits, of the law / of the quadratic loss"
    return _table(title, points, {_name(a): cell(a) for a in _alphas(points)})


def _classes(points: Points) -> Table:
    columns: dict[str, Callable[[Found], str]] = {
        "within / between": lambda found: found.number("within_between"),
        "cosine of class means": lambda found: found.number("spread"),
        "confidence": lambda found: found.number("confidence"),
        "training accuracy": lambda found: found.number("accuracy"),
    }
    title = "Classes in the embeddings of training images"
    return _table(title, points, columns)


def _dense(points: Points) -> Table:
    def cell(where: dict[str, Any], key: str) -> Callable[[Found], str]:
        return lambda found: _pair(found, key, {"measured": "dense-multimix", **where})

    spreads: dict[str, dict[str, Any]] = {
        _name(_PUBLISHED): {"alpha": _PUBLISHED},
        "effective 2": {"alpha": None, "effective": 2.0},
    }
    columns = {
        f"{name}{', balanced' * balanced}, {key}": cell({**spread, "balanced": balanced}, key)
        for name, spread in spreads.items()
        for balanced in (False, True)
        for key in ("own", "shared")
    }
    title = (
        "Norm of Dense MultiMix's gradient of all parameters over plain training's, and their cosine in brackets; a"
        " weight vector of its own for each position, or one shared by all"
    )
    return _table(title, points, columns)


def _summary(points: Points) -> Table:
    plain = {"measured": "multimix", "alpha": _PUBLISHED, "balanced": False}
    columns: dict[str, Callable[[Found], str]] = {
        "centred logits": lambda found: _pair(found, "logits_centred", plain),
        "all parameters": lambda found: _pair(found, "total", plain),
        "balanced": lambda found: _pair(found, "total", {**plain, "balanced": True}),
        "error of law": lambda found: found.number(
            "prediction_error", "law_centred", measured="multimix", alpha=_PUBLISHED
        ),
        "of quadratic": lambda found: found.number(
            "prediction_error", "quadratic_centred", measured="multimix", alpha=_PUBLISHED
        ),
        "within / between": lambda found: found.number("within_between"),
        "confidence": lambda found: found.number("confidence"),
        "accuracy": lambda found: found.number("accuracy"),
    }
    title = (
        "MultiMix's gradient at the published concentration over plain training's (cosine in brackets), how well it is"
        " predicted, and the classes"
    )
    return _table(title, points, columns)


TABLES: dict[str, Callable[[Points], Table]] = {
    "summary": _summary,
    "law": _law,
    "mean": _mean_part,
    "layers": _layers,
    "layers-balanced": _layers_balanced,
    "balanced": _balanced,
    "noise": _noise,
    "second-order": _second_order,
    "classes": _classes,
    "dense": _dense,
}
"""Every table by name."""


def _pair(found: Found, key: str, where: dict[str, Any]) -> str:
    return f"{found.number('norm_ratio', key, **where)} ({found.number('cosine', key, **where)})"


def _some(points: Points, metric: str) -> list[Record]:
    return [record for found in points.values() for record in found.records if record["metric"] == metric]


def _alphas(points: Points) -> list[Any]:
    return _unique(record["alpha"] for record in _some(points, "law_norm_ratio"))


def _predicted(points: Points, alpha: Any) -> str:
    values = [r["value"]["logits_centred"] for r in _some(points, "law_norm_ratio") if r["alpha"] == alpha]
    return _short(fmean(values))


def _layer_names(points: Points) -> list[str]:
    records = _some(points, "law_norm_ratio")
    return [name for name in _unique(key for record in records for key in record["value"]) if name not in _PARTS]


def _unique(values: Iterable[Any]) -> list[Any]:
    """Return values once each, in the order in which they come."""
    kept: list[Any] = []
    for value in values:
        if value not in kept:
            kept.append(value)
    return kept


def _name(alpha: Any) -> str:
    return f"α {alpha[0]:g}–{alpha[1]:g}" if isinstance(alpha, (list, tuple)) else f"α {alpha:.3g}"


def _short(value: float | None) -> str:
    """Return a number with three significant digits or, from 100 on, none after the point."""
    if value is None:
        return "–"
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _origin(records: list[Record]) -> str:
    def every(name: str) -> str:
        return ", ".join(sorted({str(record.get(name)) for record in records}))

    return (
        f"{every('data')}, {every('model')}, m {every('m')}, seed {every('seed')}, {every('device')},"
        f" torch {every('torch')}, commit {every('commit')}."
    )
