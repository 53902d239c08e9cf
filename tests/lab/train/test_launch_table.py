"""What is shown while many runs go."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from multimix.lab.train.launch.job import Failure, Job
from multimix.lab.train.launch.table import LiveTable, Row, failures, table
from train.tiny import tiny


def row(folder: Path, *, seed: int = 0, **changes) -> Row:
    return Row(Job(folder / f"run-{seed}", tiny(seed=seed, label="erm [plain]", **changes)))


def epoch(row: Row, number: int, **values) -> None:
    row.job.folder.mkdir(exist_ok=True)
    event = {"event": "epoch", "epoch": number, "train_loss": 1 / number, **values}
    with (row.job.folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")


def shown(what) -> list[list[str]]:
    """The cells of a table's rows as they are printed."""
    console = Console(file=StringIO(), width=120)
    console.print(what)
    lines = console.file.getvalue().splitlines()
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]


def test_a_row_says_how_far_a_run_is_and_how_well_it_does(tmp_path):
    rows = [row(tmp_path, seed=seed) for seed in range(5)]
    for number, state in enumerate(["waiting", "running", "running", "done", "failed"]):
        rows[number].state = state
    rows[2].failures.append(Failure("killed"))
    epoch(rows[2], 1)
    epoch(rows[3], 1)
    epoch(rows[3], 2, validation_accuracy=0.5)
    assert [one.look() for one in rows] == [False, False, True, True, False]
    assert shown(table(rows)) == [
        ["erm [plain]", "0", "waiting", "0/2", "", ""],
        ["erm [plain]", "1", "running", "0/2", "", ""],
        ["erm [plain]", "2", "retry 1", "1/2", "1.0000", ""],
        ["erm [plain]", "3", "done", "2/2", "0.5000", "50.00 %"],
        ["erm [plain]", "4", "failed", "0/2", "", ""],
    ]
    assert table(rows).caption == "2 running, 1 failed, 1 waiting, 1 done"
    assert [line[1] for line in shown(table(rows, height=3))] == ["1", "2", "4"]


def test_records_are_read_again_only_when_they_have_changed(tmp_path):
    one = row(tmp_path)
    epoch(one, 1)
    assert [one.look(), one.look()] == [True, False]
    (one.job.folder / "metrics.jsonl").write_text("damage\n")
    assert (one.look(), one.last["epoch"]) == (False, 1)


@pytest.mark.parametrize(
    ("outcomes", "states"),
    [
        ([Failure("a"), None], ["waiting", "done"]),
        ([Failure("a"), Failure("b"), Failure("c")], ["waiting", "waiting", "failed"]),
        ([Failure("a", final=True)], ["failed"]),
    ],
)
def test_a_failure_is_followed_by_as_many_attempts_as_there_are(outcomes, states, tmp_path):
    one, found = row(tmp_path), []
    for outcome in outcomes:
        one.conclude(outcome, retries=2)
        found.append(one.state)
    assert found == states


def course(rows: list[Row], board: LiveTable) -> None:
    """One run of two ends, after a failure; the other fails for good."""
    one, two = rows
    with board:
        one.state = two.state = "running"
        board.show()
        epoch(one, 1, validation_accuracy=0.25)
        one.conclude(Failure("killed"), retries=1)
        two.conclude(Failure("wrong", final=True), retries=1)
        board.show()
        one.state = "running"
        board.show()
        epoch(one, 2, validation_accuracy=0.75)
        one.conclude(None, retries=1)
        board.show()


def test_without_a_terminal_every_change_is_a_line(tmp_path, capfd):
    rows = [row(tmp_path, seed=seed) for seed in range(2)]
    course(rows, LiveTable(rows, quiet=False))
    assert capfd.readouterr().out.splitlines() == [
        "erm [plain], seed 0: running",
        "erm [plain], seed 1: running",
        "erm [plain], seed 0: epoch 1/2  loss 1.0000  validation accuracy 25.00 %",
        "erm [plain], seed 0: killed; it is tried again",
        "erm [plain], seed 1: failed: wrong",
        "erm [plain], seed 0: retry 1",
        "erm [plain], seed 0: epoch 2/2  loss 0.5000  validation accuracy 75.00 %",
        "erm [plain], seed 0: done",
    ]


def test_runs_that_show_themselves_are_left_to_it(tmp_path, capfd):
    rows = [row(tmp_path, seed=seed) for seed in range(2)]
    course(rows, LiveTable(rows, quiet=False, brief=True))
    assert capfd.readouterr().out.splitlines() == ["erm [plain], seed 0: killed; it is tried again"]


def test_a_failure_is_told_even_if_the_next_attempt_has_begun_and_what_had_ended_is_not(tmp_path, capfd):
    one, two = rows = [row(tmp_path, seed=seed) for seed in range(2)]
    epoch(two, 2)
    two.state = "done"
    with LiveTable(rows, quiet=False) as board:
        one.conclude(Failure("killed"), retries=1)
        one.state = "running"
        board.show()
    assert capfd.readouterr().out.splitlines() == [
        "erm [plain], seed 0: killed; it is tried again",
        "erm [plain], seed 0: retry 1",
    ]


def test_on_a_terminal_the_table_is_live(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    rows = [row(tmp_path, seed=seed) for seed in range(2)]
    course(rows, LiveTable(rows, quiet=False))
    out = capfd.readouterr().out
    assert out.count("validation accuracy") >= 4  # drawn anew each time
    assert [out.rindex(text) > out.rindex("retry 1") for text in ("done", "75.00 %")] == [True, True]


def test_the_table_of_failures_has_every_reason_whole(tmp_path):
    rows = [row(tmp_path, seed=seed) for seed in range(3)]
    rows[0].state = "done"
    rows[1].conclude(Failure("killed"), retries=1)
    rows[1].conclude(Failure("killed again"), retries=1)
    rows[2].conclude(Failure("no data [there] " * 10, final=True), retries=1)
    killed, *long = shown(failures(rows))
    assert killed == ["erm [plain]", "1", "2", "killed again"]
    assert long[0][:3] == ["erm [plain]", "2", "1"]
    assert " ".join(line[3] for line in long).split() == ["no", "data", "[there]"] * 10
