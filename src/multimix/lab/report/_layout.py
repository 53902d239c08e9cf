"""How the many metrics of a suite are laid out in tables."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from multimix.lab.report._metrics import capital, in_words, metric

SUITES = {
    "calibration": "Calibration",
    "adversarial": "Robustness",
    "ood": "Out-of-distribution detection",
    "corruption": "Corruptions",
    "occlusion": "Occlusion",
    "embedding": "Embedding",
    "intrusion": "Manifold intrusion",
    "localisation": "Localisation",
}
"""Titles of the suites, in the order of the page's sections."""
_WIDEST = 10  # columns that a table of a suite which nobody described may have side by side
_PERCENT = re.compile(r"[0-9]+(\.[0-9]+)?")
_RARE = ("classwise_ece", "rms_calibration_error", "overconfidence_error")
_DETECTION = ("auroc", "fpr95", "aupr_in", "aupr_out", "detection_accuracy")


@dataclass(frozen=True)
class Plan:
    """One table: which metric stands in which line and column."""

    title: str
    """What the table shows; empty where its columns say it."""
    key: str
    """Heading of what tells the lines of one method apart; empty where there is one line a method."""
    columns: tuple[str, ...]
    """Headings."""
    lines: tuple[tuple[str, tuple[str | None, ...]], ...]
    """(Words of the line, the metric of every column)."""
    more: bool = False
    """Whether it is for those who want to know everything."""


def plans(suite: str | None, names: Sequence[str]) -> list[Plan]:
    """Return the tables of a suite: together they hold every metric.

    Args:
        suite: Its name; None of the main table.
        names: Names of metrics as recorded.
    """
    if suite is None:
        return [_flat(names)]
    paths = {name: name.removeprefix(f"{suite}/") for name in names}
    found = [plan for plan in _LAYOUTS.get(suite, _unknown)(paths) if plan.lines and plan.columns]
    shown = {name for plan in found for _, line in plan.lines for name in line}
    rest = [name for name in paths if name not in shown]
    return [*found, _flat(rest, paths, more=True)] if rest else found


def suite_title(suite: str) -> str:
    """Return a suite's name for people."""
    return SUITES.get(suite) or capital(in_words(suite))


def in_sections(suites: Iterable[str]) -> list[str]:
    """Return suites as their sections stand: the known ones first."""
    known = list(SUITES)
    return sorted(suites, key=lambda suite: known.index(suite) if suite in known else len(known))


Paths = dict[str, str]


def _flat(names: Iterable[str], paths: Paths | None = None, *, title: str = "", more: bool = False) -> Plan:
    """Return one line a method, one column a metric."""
    names = tuple(names)
    columns = tuple(metric(paths[name] if paths else name).heading for name in names)
    return Plan(title, "", columns, (("", names),) if names else (), more)


def _pivot(
    places: dict[str, tuple[str, str]],
    *,
    key: str,
    bare: str = "",
    heading: Callable[[str], str] = lambda column: capital(in_words(column)),
    title: str = "",
    more: bool = False,
) -> Plan:
    """Return a table of metrics by their (line, column)."""
    where = {place: name for name, place in places.items()}
    lines, columns = (dict.fromkeys(place[index] for place in where) for index in (0, 1))
    return Plan(
        title,
        key,
        tuple(heading(column) for column in columns),
        tuple((in_words(line) or bare, tuple(where.get((line, column)) for column in columns)) for line in lines),
        more,
    )


def _by_prefix(paths: Paths, key: str, bare: str = "–") -> list[Plan]:
    """Return a line for every way of measuring, a column for what was measured."""
    places = {name: _split(path) for name, path in paths.items()}
    if len({way for way, _ in places.values()}) < 2:
        return [_flat(paths, paths)]
    return [_pivot(places, key=key, bare=bare, heading=lambda last: metric(last).heading)]


def _split(path: str) -> tuple[str, str]:
    way, _, last = path.rpartition("/")
    return way, last


def _calibration(paths: Paths) -> list[Plan]:
    """Return a line as trained and one with the temperature; what few ask for in a table of its own."""
    rare = {name: path for name, path in paths.items() if _split(path)[1] in _RARE}
    main = {name: path for name, path in paths.items() if name not in rare}
    tables = _by_prefix(main, "Logits", "as trained")
    return [*tables, *(replace(plan, more=True) for plan in _by_prefix(rare, "Logits", "as trained"))]


def _adversarial(paths: Paths) -> list[Plan]:
    """Return accuracy under every attack; then what the loss rises to, and the checks of the attacks themselves."""
    checks = [name for name, path in paths.items() if path.count("/") > 2]
    main = [name for name, path in paths.items() if name not in checks and path.endswith("/accuracy")]
    rest = [name for name in paths if name not in checks and name not in main]
    return [
        _flat(main, paths),
        _flat(rest, paths, more=True),
        _flat(checks, paths, title="checks of the attacks", more=True),
    ]


def _ood(paths: Paths) -> list[Plan]:
    """Return a table for every metric: a line for each score, a column for each set, their mean first."""
    parts = {name: path.split("/") for name, path in paths.items()}
    whole = {name: part for name, part in parts.items() if len(part) > 2}
    found = dict.fromkeys(part[-1] for part in whole.values())
    tables = []
    for last in sorted(found, key=lambda last: _DETECTION.index(last) if last in _DETECTION else len(_DETECTION)):
        chosen = sorted((item for item in whole.items() if item[1][-1] == last), key=lambda item: item[1][0] != "mean")
        places = {name: (part[-2], "/".join(part[:-2])) for name, part in chosen}
        more = last not in _DETECTION[:2]
        tables.append(_pivot(places, key="Score", title=metric(last).heading, more=more))
    return [*tables, _flat([name for name in paths if name not in whole], paths, more=True)]


def _corruption(paths: Paths) -> list[Plan]:
    parts = {name: path.split("/") for name, path in paths.items()}
    graded = {
        name: part for name, part in parts.items() if len(part) == 3 and part[1].isdecimal() and part[2] == "accuracy"
    }
    kinds = {part[0] for part in graded.values()}
    means = {name: ("", part[0]) for name, part in parts.items() if len(part) == 2 and part[0] in kinds}
    places = {name: (part[1], part[0]) for name, part in sorted(graded.items(), key=lambda item: int(item[1][1]))}
    accuracy = metric("accuracy").heading
    return [
        _flat([name for name in paths if name not in graded and name not in means], paths),
        _pivot(means, key="", title=f"{accuracy} by corruption, mean over severities", more=True),
        _pivot(places, key="Severity", title=f"{accuracy} by corruption and severity", more=True),
    ]


def _occlusion(paths: Paths) -> list[Plan]:
    parts = {name: _split(path) for name, path in paths.items()}
    grid = {name: part for name, (part, last) in parts.items() if _PERCENT.fullmatch(part) and last == "accuracy"}
    main = [name for name in paths if name not in grid]
    places = {name: ("", part) for name, part in sorted(grid.items(), key=lambda item: float(item[1]))}
    title = f"{metric('accuracy').heading} by the share of the image that is hidden"
    curve = _pivot(places, key="", title=title, heading=lambda part: f"{part} %", more=bool(main))
    return [_flat(main, paths), curve]


def _embedding(paths: Paths) -> list[Plan]:
    distances = [name for name, path in paths.items() if path.endswith("_distance")]
    return [_flat([name for name in paths if name not in distances], paths), _flat(distances, paths, more=True)]


def _localisation(paths: Paths) -> list[Plan]:
    """Return the usual overlap of 0.5 and what stands beside it; then other overlaps."""
    main = [name for name, path in paths.items() if path.count("/") < 2 and path != "measured"]
    return [
        _flat(main, paths),
        *(replace(plan, more=True) for plan in _by_prefix({n: p for n, p in paths.items() if n not in main}, "Box")),
    ]


def _unknown(paths: Paths) -> list[Plan]:
    return [_flat(paths, paths)] if len(paths) <= _WIDEST else _by_prefix(paths, "Measure")


_LAYOUTS: dict[str, Callable[[Paths], list[Plan]]] = {
    "calibration": _calibration,
    "adversarial": _adversarial,
    "ood": _ood,
    "corruption": _corruption,
    "occlusion": _occlusion,
    "embedding": _embedding,
    "intrusion": lambda paths: _by_prefix(paths, "Interpolation"),
    "localisation": _localisation,
}
