"""What is shown while many runs go."""

import json
from io import StringIO

import pytest
from rich.console import Console

from multimix.lab.train.launch import LiveTable, failures, table
from multimix.lab.train.launch.job import Failure, Job
from train.tiny import tiny


@pytest.fixture
def jobs(tmp_path) -> list[Job]:
    return [Job(tmp_path / f"run-{seed}", tiny(seed=seed, label="erm [plain]")) for seed in range(5)]


def epoch(job: Job, number: int, **values) -> None:
    job.folder.mkdir(exist_ok=True)
    with (job.folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"event": "epoch", "epoch": number, "train_loss": 1 / number, **values}) + "\n")


def shown(what) -> list[list[str]]:
    """The cells of a table's rows as they are printed."""
    console = Console(file=StringIO(), width=120)
    console.print(what)
    lines = console.file.getvalue().splitlines()
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]


def test_a_row_says_how_far_a_run_is_and_how_well_it_does(jobs):
    for job, state in zip(jobs, ["waiting", "running", "running", "done", "failed"], strict=True):
        job.state = state
    jobs[2].failures.append(Failure("killed"))
    epoch(jobs[2], 1)
    epoch(jobs[3], 1)
    epoch(jobs[3], 2, validation_accuracy=0.5)
    assert [job.look() for job in jobs] == [False, False, True, True, False]
    assert shown(table(jobs)) == [
        ["erm [plain]", "0", "waiting", "0/2", "", ""],
        ["erm [plain]", "1", "running", "0/2", "", ""],
        ["erm [plain]", "2", "retry 1", "1/2", "1.0000", ""],
        ["erm [plain]", "3", "done", "2/2", "0.5000", "50.00 %"],
        ["erm [plain]", "4", "failed", "0/2", "", ""],
    ]
    assert table(jobs).caption == "2 running, 1 failed, 1 waiting, 1 done"
    assert [line[1] for line in shown(table(jobs, height=3))] == ["1", "2", "4"]


def test_records_are_read_again_only_when_they_have_changed(jobs):
    epoch(jobs[0], 1)
    assert [jobs[0].look(), jobs[0].look()] == [True, False]
    (jobs[0].folder / "metrics.jsonl").write_text("damage\n")
    assert (jobs[0].look(), jobs[0].last["epoch"]) == (False, 1)


@pytest.mark.parametrize(
    ("outcomes", "states"),
    [
        ([Failure("a"), None], ["waiting", "done"]),
        ([Failure("a"), Failure("b"), Failure("c")], ["waiting", "waiting", "failed"]),
        ([Failure("a", final=True)], ["failed"]),
    ],
)
def test_a_failure_is_followed_by_as_many_attempts_as_there_are(outcomes, states, jobs):
    found = []
    for outcome in outcomes:
        jobs[0].conclude(outcome, retries=2)
        found.append(jobs[0].state)
    assert found == states


def course(jobs: list[Job], **options: bool) -> None:
    """One run of two ends, after a failure; the other fails for good."""
    one, two = jobs
    with LiveTable(jobs, **{"quiet": False, **options}) as board:
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


def test_without_a_terminal_every_change_is_a_line(jobs, capfd):
    course(jobs[:2])
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


@pytest.mark.parametrize(("option", "lines"), [("quiet", 0), ("brief", 1)])
def test_runs_that_show_themselves_are_left_to_it(option, lines, jobs, capfd):
    course(jobs[:2], **{option: True})
    assert capfd.readouterr().out.splitlines() == ["erm [plain], seed 0: killed; it is tried again"] * lines


def test_a_failure_is_told_even_if_the_next_attempt_has_begun_and_what_had_ended_is_not(jobs, capfd):
    epoch(jobs[1], 2)
    jobs[1].state = "done"
    with LiveTable(jobs[:2], quiet=False) as board:
        jobs[0].conclude(Failure("killed"), retries=1)
        jobs[0].state = "running"
        board.show()
    assert capfd.readouterr().out.splitlines() == [
        "erm [plain], seed 0: killed; it is tried again",
        "erm [plain], seed 0: retry 1",
    ]


def test_on_a_terminal_the_table_is_live(jobs, capfd, monkeypatch):
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "100"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    course(jobs[:2])
    out = capfd.readouterr().out
    assert out.count("validation accuracy") >= 4  # drawn anew each time
    assert [out.rindex(text) > out.rindex("retry 1") for text in ("done", "75.00 %")] == [True, True]


def test_the_table_of_failures_has_every_reason_whole(jobs):
    jobs[1].failures = [Failure("killed"), Failure("killed again")]
    jobs[2].failures = [Failure("no data [there] " * 10)]
    killed, *long = shown(failures(jobs[1:3]))
    assert killed == ["erm [plain]", "1", "2", "killed again"]
    assert long[0][:3] == ["erm [plain]", "2", "1"]
    assert " ".join(line[3] for line in long).split() == ["no", "data", "[there]"] * 10
