"""Records of speed as rows of a table, on the screen as in the documentation."""

from collections.abc import Iterable, Mapping
from typing import Any

HEADINGS = (
    *("case", "threads", "wall ms: baseline, case (p20 to p80)", "wall ratio", "CPU ratio (p20 to p80)", "bar"),
    *("× floor", "peak MiB", "ratio", "bar", "met"),
)
_OF = {"both": "", "cpu": " CPU", "wall": " wall"}


def grouped(records: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, list[tuple[str, ...]]]]:
    """Yield what was compared, with its rows: a comparison's first record is its baseline's, and has none."""
    groups: dict[str, list[tuple[str, ...]]] = {}
    key, base = None, None
    for record in records:
        shape = ", ".join(f"{name} {value}" for name, value in record["shape"].items())
        name = f"{record['comparison']} ({shape})" if shape else record["comparison"]
        if base is None or key != (name, record["threads"]) or record["case"] == base["case"]:
            key, base = (name, record["threads"]), record
        else:
            groups.setdefault(f"{name}, against {base['case']}", []).append(cells(record, base))
    for what, rows in groups.items():
        yield what, sorted(rows, key=lambda row: [other[0] for other in rows].index(row[0]))


def cells(record: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a record's cells beneath ``HEADINGS``; records from before CPU time was measured have none of it."""
    p20, p50, p80 = (_ms(record[f"seconds_{p}"]) for p in ("p20", "p50", "p80"))
    floor, cpu, peak = record["seconds_floor"], record.get("cpu_ratio"), record["peak_bytes"]
    return (
        record["case"],
        str(record["threads"]),
        f"{_ms(base['seconds_p50'])}, {p50} ({p20} to {p80})",
        f"{record['ratio']:.3f}",
        "" if cpu is None else f"{cpu:.3f} ({record['cpu_ratio_p20']:.3f} to {record['cpu_ratio_p80']:.3f})",
        _bar(record),
        "" if floor is None else f"{record['seconds_p50'] / floor:.2f}",
        f"{base['peak_bytes'] / 2**20:.4g}, {peak / 2**20:.4g}" if peak else "",
        f"{record['peak_ratio']:.3f}" if record["peak_ratio"] else "",
        _most(record["peak_ratio_most"]),
        {None: "", True: "met", False: "**missed**"}[record["met"]],
    )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.4g}" if seconds < 10 else f"{1e3 * seconds:.0f}"


def _bar(record: Mapping[str, Any]) -> str:
    of, seconds = _OF[record.get("decides", "wall")], record.get("seconds_most")
    return f"≤ {1e3 * seconds:.0f} ms{of}" if seconds else _most(record["ratio_most"], of)


def _most(bar: float | None, of: str = "") -> str:
    return "" if bar is None else f"≤ {bar:.3f}{of}"
