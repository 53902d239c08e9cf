"""Put tables made from committed records into Markdown pages, between their marks; with --check, only compare.

A mark names its records: ``<!-- records: benchmarks/digits-cpu.jsonl -->`` ... ``<!-- end -->``. Behind the file may
stand, in any order, ``suite=ood`` (the tables of an evaluation suite), ``paired=erm`` (differences to this label with
the same seed), ``metrics=accuracy,nll`` (these columns; of any suite where none is named), ``labels=erm,mixup``
(these rows, in this order), ``beside=studies/other.jsonl`` (records of a second file, too) and ``lengths=any`` (runs of
different length in one table, as those of equal seconds are).
The trials of a study are a file of their own, which takes no words.
A table of the anatomy has ``<!-- anatomy: studies/anatomy/digits.jsonl table=law -->``, with ``labels=`` for some rows.
"""

import json
import re
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from multimix.lab.bench import HEADINGS, grouped
from multimix.lab.report import paired_table, read_records, summarise, table, with_labels
from multimix.lab.train import from_json

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "studies"))

from anatomy import read, render  # noqa: E402 (which lies there)

BLOCK = re.compile(r"(<!-- records: (\S+)((?: (?!-->)\S+)*) -->\n).*?(<!-- end -->)", re.DOTALL)
WORDS = ("suite", "paired", "metrics", "labels", "lengths", "beside")
ANATOMY = re.compile(r"(<!-- anatomy: (\S+) table=(\S+)(?: labels=(\S+))? -->\n).*?(<!-- end -->)", re.DOTALL)
PAGES = ("README.md", "docs", "studies")
WRITERS = {
    "-cuda.jsonl": "`make gpu`, on one H200,",
    "-cpu.jsonl": "`make bench`",
    "commands.jsonl": "`make costs`",
}
"""What writes records, by the end of their name."""
FEW = 2
"""Settings that differ, up to which a candidate is told by them, else by its method as a whole."""


def rendered(records: Path, words: dict[str, str]) -> str:
    """Return the table of a file of records: of speed, of agreement with other libraries, or of runs.

    Where those of a bench are not there yet, it says so.

    Args:
        records: The file.
        words: What the mark says besides; only of runs.

    Raises:
        ValueError: If the records have nothing of the kind.
    """
    if not records.exists():
        writer = next(command for end, command in WRITERS.items() if records.name.endswith(end))
        return f"No record yet; {writer} writes one.\n"
    first = json.loads(records.read_text(encoding="utf-8").splitlines()[0])
    kind = {
        **{"ratio": speed_table, "wall_seconds": costs_table, "parts": parts_table},
        **{"theirs": agreement_table, "candidate": trials_table},
    }
    for key, made in kind.items():
        if key in first:
            if words:
                raise ValueError(f"{records.name}: expected no words, since it is not of runs, got {', '.join(words)}")
            return made(records)
    return runs_table(records, **words)


def runs_table(
    records: Path,
    *,
    suite: str | None = None,
    paired: str | None = None,
    metrics: str | None = None,
    labels: str | None = None,
    lengths: str | None = None,
    beside: str | None = None,
) -> str:
    """Return the table of records of runs, or that of the differences to ``paired``; see the top for the words.

    Raises:
        ValueError: If ``lengths`` is anything but ``any``, or the records have nothing of the kind.
    """
    if lengths not in (None, "any"):
        raise ValueError(f"mark: expected lengths=any, got lengths={lengths}")
    columns = metrics.split(",") if metrics else None
    rows = [*read_records(records), *(read_records(ROOT / beside) if beside else ())]
    if labels:
        # The method to compare with has no row of its own, so that it need not be among them.
        rows = with_labels(rows, [*labels.split(","), *([paired] if paired else [])])
    summary = summarise(rows, columns, suite=suite, any_length=lengths == "any")
    return paired_table(summary, paired, metrics=columns) if paired else table(summary)


def words_of(mark: str) -> dict[str, str]:
    """Return the words of a mark: ``paired=erm metrics=nll`` by name.

    Raises:
        ValueError: If there is no such word.
    """
    words = {}
    for word in mark.split():
        name, _, value = word.partition("=")
        if name not in WORDS or not value:
            raise ValueError(f"mark: expected words of {', '.join(f'{known}=...' for known in WORDS)}, got {word!r}")
        words[name] = value
    return words


def speed_table(records: Path) -> str:
    """Return the table of benchmark records."""
    rows = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    lines = [f"| what | {' | '.join(HEADINGS)} |", "| :--- | :--- |" + " ---: |" * (len(HEADINGS) - 2) + " :--- |"]
    for what, found in grouped(rows):
        for number, cells in enumerate(found):
            lines.append(f"| {' | '.join(('' if number else what, *cells))} |")
    where = {f"{r['device_name']}, torch {r['torch']}, commit {r['commit']}" for r in rows}
    machine = {r["threads"]: (r["flops_per_second"] / 1e9, r["bytes_per_second"] / 1e9) for r in rows}
    where |= {
        f"threads {number}: {flops:.0f} GFLOP/s in products, {moved:.1f} GB/s copying"
        for number, (flops, moved) in machine.items()
    }
    return "\n".join([*lines, "", f"Medians of interleaved rounds; {'; '.join(sorted(where))}."]) + "\n"


def costs_table(records: Path) -> str:
    """Return the table of what commands of the project cost."""
    rows = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    lines = ["| command | wall s | CPU s | bar | met |", "| :--- | ---: | ---: | ---: | :--- |"]
    for row in rows:
        kind, most = row["bar"]
        met = "met" if row[f"{kind}_seconds"] <= most else "**missed**"
        bar = f"≤ {most} s, {kind}"
        lines.append(f"| `{row['command']}` | {row['wall_seconds']:.0f} | {row['cpu_seconds']:.0f} | {bar} | {met} |")
    where = {f"{row['device_name']}, {row['cpus']} cores, torch {row['torch']}, commit {row['commit']}" for row in rows}
    return "\n".join([*lines, "", f"Of {'; '.join(sorted(where))}."]) + "\n"


def parts_table(records: Path) -> str:
    """Return the shares of a step's CPU time that its parts take."""
    rows = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    parts = list(rows[0]["parts"])
    lines = [f"| what | step | CPU ms | {' | '.join(parts)} |", "| :--- | :--- | ---: |" + " ---: |" * len(parts)]
    for row in rows:
        what = ", ".join(f"{name} {value}" for name, value in row["shape"].items())
        shares = (f"{share / row['cpu_seconds']:.1%}" if share else "" for share in row["parts"].values())
        lines.append(f"| {what} | {row['case']} | {1e3 * row['cpu_seconds']:.0f} | {' | '.join(shares)} |")
    where = {f"{row['device_name']}, torch {row['torch']}, commit {row['commit']}" for row in rows}
    rounds = sorted({row["rounds"] for row in rows})
    return (
        "\n".join([*lines, "", f"Medians of {' and '.join(map(str, rounds))} steps, one thread; {'; '.join(where)}."])
        + "\n"
    )


def agreement_table(records: Path) -> str:
    """Return the table of metrics beside what independent libraries say of the same predictions."""
    rows = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    lines = ["| suite | metric | ours | theirs | difference | library |", "| :--- | :--- | ---: | ---: | ---: | :--- |"]
    lines += [
        f"| {row['suite']} | {row['metric']} | {row['ours']:.9f} | {row['theirs']:.9f}"
        f" | {abs(row['ours'] - row['theirs']):.1e} | {row['library']} |"
        for row in rows
    ]
    where = {
        f"{row['method']}, seed {row['seed']}, on {row['data']}, {row['examples']} test images, {row['device']};"
        f" {', '.join(f'{name} {number}' for name, number in row['versions'].items())}; commit {row['commit']}"
        for row in rows
    }
    return "\n".join([*lines, "", f"Of {'; '.join(sorted(where))}."]) + "\n"


def anatomy_table(records: Path, name: str, labels: str | None) -> str:
    """Return a table of the gradient's anatomy by its name, of the networks trained with some methods or with all."""
    return render(read(records), name, labels.split(",") if labels else None)


def trials_table(records: Path) -> str:
    """Return the table of a study's trials: what each candidate reached on the validation split, mean of its trials."""
    rows = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    lines = [
        "| arm | candidate | trials | validation accuracy (%) | NLL | chosen |",
        "| :--- | :--- | ---: | ---: | ---: | :--- |",
    ]
    for row in rows:
        rivals = [other for other in rows if other["label"] == row["label"]]
        lines.append(
            f"| {row['label']} | {own_settings(row, rivals)} | {row.get('trials', 1)}"
            f" | {100 * row['validation_accuracy']:.2f} | {row['validation_nll']:.3f}"
            f" | {'yes' if row['chosen'] else ''} |"
        )
    where = {f"seeds {row['seed']} on, {row['epochs']} epochs, {row['device']}, torch {row['torch']}" for row in rows}
    commits = sorted({row["commit"] for row in rows})
    return "\n".join([*lines, "", f"{'; '.join(sorted(where))}; commit {', '.join(commits)}."]) + "\n"


def own_settings(row: dict[str, Any], rivals: list[dict[str, Any]]) -> str:
    """Return in words what sets a candidate apart from the others of its arm."""
    given = [settings_of(other) for other in rivals]
    own = settings_of(row)
    names = [name for name in own if any(other.get(name) != own[name] for other in given)]
    if len(names) > FEW:
        return f"`{brief(from_json(row['method']))}`"
    return ", ".join(f"{name} {own[name]}" for name in names) or "the only one"


def brief(value: Any) -> str:
    """Return a method as code, with the settings that are not its defaults."""
    if isinstance(value, tuple):
        return f"({', '.join(map(brief, value))})"
    if not is_dataclass(value):
        return repr(value)
    own = {f.name: getattr(value, f.name) for f in fields(value)}
    usual = {f.name: f.default for f in fields(value)}
    return f"{type(value).__name__}({', '.join(f'{k}={brief(v)}' for k, v in own.items() if v != usual[k])})"


def settings_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a candidate, those of methods inside its method with their place in front."""
    found = {"weight decay": row["weight_decay"], "epochs": row["epochs"]}
    waiting = [("", row["method"]), ("objective", row.get("objective") or {})]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{place}.{name}".strip("."), inner) for name, inner in value.items()]
        elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
            waiting += [(f"{place}.{number}", inner) for number, inner in enumerate(value)]
        else:
            found[place] = value
    return found


def filled(text: str) -> str:
    """Return a page with every marked table made anew."""
    text = ANATOMY.sub(lambda m: f"{m[1]}{anatomy_table(ROOT / m[2], m[3], m[4])}{m[5]}", text)
    return BLOCK.sub(lambda m: f"{m[1]}{rendered(ROOT / m[2], words_of(m[3]))}{m[4]}", text)


def main() -> int:
    """Fill the pages, or say which are stale."""
    pages = [
        page for name in PAGES for page in ([ROOT / name] if name.endswith(".md") else (ROOT / name).rglob("*.md"))
    ]
    stale = [page for page in pages if filled(page.read_text(encoding="utf-8")) != page.read_text(encoding="utf-8")]
    if "--check" in sys.argv:
        for page in stale:
            print(f"{page.relative_to(ROOT)} is not what its records say; run: make tables")
        return bool(stale)
    for page in stale:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"filled {page.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
