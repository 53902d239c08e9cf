"""Slurm, which is not here: the script, and the flow with programs of its names that run tasks on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from multimix.lab.train.launch import Launch, run_all
from multimix.lab.train.launch.job import Failure, Job
from multimix.lab.train.launch.slurm import OnSlurm, parsed, script, work
from train.test_many import assert_as_alone
from train.tiny import tiny

SBATCH = """#!{python}
# Runs every task of an array to its end before it answers, unless told to hold or to lose them.
import os, re, subprocess, sys
from pathlib import Path

SET = {{f"SLURM_{{name}}": "0" for name in ("PROCID", "LOCALID", "NODEID")}}
SET |= {{"SLURM_NTASKS": "1", "SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "multimix"}}
here = Path(__file__).parent
text = Path(sys.argv[-1]).read_text()
count = len(list(here.glob("job-*")))
(here / f"job-{{count}}").write_text(text)
ranges = re.search(r"--array=([\\d,-]+)%", text)[1]
tasks = [n for part in ranges.split(",") for n in range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1)]
lost = (here / "lose").exists()
(here / "lose").unlink(missing_ok=True)
for task in tasks:
    if (here / "hold").exists():
        with (here / "queue").open("a") as queue:
            queue.write(f"{{count}}_{{task}} PENDING\\n")
    elif lost:
        lost = False
    else:
        with (here / f"log-{{count}}-{{task}}").open("w") as log:
            there = os.environ | SET | {{"SLURM_ARRAY_TASK_ID": str(task)}}
            subprocess.run(["bash", sys.argv[-1]], env=there, stdout=log, stderr=log, check=False)
print(f"{{count}};cluster")
"""
SQUEUE = """#!/bin/sh
here=$(dirname "$0")
if [ -e "$here/deaf" ]; then echo "slurm_load_jobs error" >&2; exit 1; fi
if [ -e "$here/queue" ]; then cat "$here/queue"; fi
"""
SACCT = """#!/bin/sh
echo TIMEOUT
"""
SCANCEL = """#!/bin/sh
echo "$@" > "$(dirname "$0")/cancelled"
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Path:
    """A folder on PATH with the programs of Slurm."""
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {"sbatch": SBATCH.format(python=sys.executable), "squeue": SQUEUE, "sacct": SACCT, "scancel": SCANCEL}
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr("multimix.lab.train.launch._POLL", 0.05)
    monkeypatch.setattr("multimix.lab.train.launch.slurm._EVERY", 0.0)
    monkeypatch.chdir(tmp_path)
    return folder


def slurm(folder: Path) -> OnSlurm:
    return OnSlurm(folder, jobs=2)


def test_the_script_asks_for_an_array_that_is_bounded_requeued_and_warned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = parsed("partition=gpu time=4:00:00 exclusive")
    text = script(tmp_path / "a folder", [0, 1, 2, 3, 7], jobs=2, options=options)
    shebang, *lines = text.splitlines()
    assert shebang == "#!/bin/bash"
    assert [line for line in lines if line.startswith("#SBATCH")] == [
        "#SBATCH --job-name=multimix",
        "#SBATCH --array=0,1,2,3,7%2",
        f"#SBATCH --chdir={tmp_path}",
        f"#SBATCH --output='{tmp_path}/a folder/logs/%A_%a.log'",
        "#SBATCH --open-mode=append",
        "#SBATCH --requeue",
        "#SBATCH --signal=B:TERM@60",
        "#SBATCH --partition=gpu",
        "#SBATCH --time=4:00:00",
        "#SBATCH --exclusive",
    ]
    (tmp_path / "script.sh").write_text(text)
    subprocess.run(["bash", "-n", str(tmp_path / "script.sh")], check=True)


def test_the_script_passes_the_warning_on_and_waits_for_the_run(tmp_path, monkeypatch):
    """The run here writes what it was called with, and on SIGTERM takes its time and ends with code 3."""
    run = tmp_path / "python"
    run.write_text(
        "#!/bin/bash\ntrap 'sleep 0.5; echo saved >> out; exit 3' TERM\n"
        'echo "$@" > out\nwhile :; do sleep 0.05; done\n'
    )
    run.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(run))
    (tmp_path / "script.sh").write_text(script(Path("a folder"), [5], jobs=1, options={}))
    task = subprocess.Popen(
        ["bash", "script.sh"], cwd=tmp_path, env=os.environ | {"SLURM_ARRAY_TASK_ID": "5"}, text=True
    )
    while not (tmp_path / "out").exists() or not (tmp_path / "out").read_text():
        assert task.poll() is None
    task.terminate()
    assert task.wait(30) == 3
    assert (tmp_path / "out").read_text().splitlines() == [
        "-c from multimix.lab.train.launch.slurm import work; work() a folder/plans/5.json a folder/outcomes/5.json",
        "saved",
    ]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--time=4", "must hold long options of sbatch such as time=4:00:00, without --, got '--time=4'"),
        ("time=4 =", "must hold long options of sbatch such as time=4:00:00, without --, got '='"),
        ("signal=TERM@10", "must not hold signal, which multimix sets itself, got 'signal=TERM@10'"),
    ],
)
def test_what_is_no_option_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        parsed(options)


def test_a_task_runs_its_plan_and_writes_its_outcome(cluster, tmp_path, monkeypatch):
    (cluster / "hold").touch()
    good, bad = Job(tmp_path / "run", tiny(epochs=1)), Job(tmp_path / "bad", tiny(data="npz:nowhere.npz"))
    monkeypatch.setattr(sys, "argv", ["multimix", "compare", "x"])
    launcher = slurm(tmp_path / "slurm")
    launcher.submit([good, bad])
    for number in range(2):
        arguments = [f"{tmp_path}/slurm/{kind}/{number}.json" for kind in ("plans", "outcomes")]
        monkeypatch.setattr(sys, "argv", ["-c", *arguments])
        with pytest.raises(SystemExit, match=str(number)):
            work()
    ended = launcher.poll(0.0)
    assert (ended[good], good.finished) == (None, True)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["command"] == "multimix compare x"
    assert (ended[bad].final, ended[bad].wrong, "nowhere.npz" in ended[bad].reason) == (True, True, True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_runs_on_slurm_end_like_runs_here_and_one_that_was_cut_off_is_submitted_again(cluster, tmp_path, capfd):
    (cluster / "lose").touch()
    runs = {Path("out") / f"run-{seed}": tiny(seed=seed, epochs=1, label="run") for seed in range(2)}
    run_all(runs, Launch(launcher="slurm", jobs=2, scratch=Path("out"), slurm="time=1:00:00"))
    said = capfd.readouterr().out
    assert f"Slurm task 0_0: TIMEOUT; see {tmp_path}/out/slurm/logs/0_0.log; it is tried again" in said
    scripts = [(cluster / f"job-{n}").read_text() for n in range(2)]
    assert ["--array=0,1%2" in scripts[0], "--array=0%2" in scripts[1]] == [True, True]
    assert all("#SBATCH --time=1:00:00" in text for text in scripts)
    assert_as_alone(runs, Path("alone"))


def test_tasks_of_a_call_that_was_cut_off_are_found_again_and_cancelled_with_the_next(cluster, tmp_path):
    (cluster / "hold").touch()
    jobs = [Job(tmp_path / f"run-{seed}", tiny(seed=seed)) for seed in range(3)]
    slurm(tmp_path / "slurm").submit(jobs[:2])
    again = slurm(tmp_path / "slurm")
    again.submit(jobs[1:])
    assert [path.name for path in sorted(cluster.glob("job-*"))] == ["job-0", "job-1"]
    assert "--array=2%2" in (cluster / "job-1").read_text()
    assert [job.state for job in jobs[1:]] == ["waiting", "waiting"]
    assert again.poll(0.0) == {}
    (cluster / "queue").write_text("0_1 RUNNING\n1_2 PENDING\n")
    assert again.poll(0.0) == {}
    assert [job.state for job in jobs[1:]] == ["running", "waiting"]
    again.close()
    assert (cluster / "cancelled").read_text() == "0_1 1_2\n"


def test_calls_that_share_a_folder_keep_each_others_tasks(cluster, tmp_path):
    (cluster / "hold").touch()
    first, second = slurm(tmp_path / "runs"), slurm(tmp_path / "runs")
    first.submit([Job(tmp_path / "a", tiny())])
    second.submit([Job(tmp_path / "b", tiny())])
    first.submit([Job(tmp_path / "c", tiny())])
    assert json.loads((tmp_path / "runs" / "tasks.json").read_text()) == {"0": "0_0", "1": "1_1", "2": "2_2"}


def test_a_queue_that_does_not_answer_loses_no_task(cluster, tmp_path):
    (cluster / "hold").touch()
    job = Job(tmp_path / "run", tiny())
    launcher = slurm(tmp_path / "slurm")
    launcher.submit([job])
    (cluster / "deaf").touch()
    assert [launcher.poll(0.0) for _ in range(4)] == [{}] * 4
    with pytest.raises(RuntimeError, match="squeue does not answer"):
        slurm(tmp_path / "slurm").submit([job])
    (cluster / "deaf").unlink()
    (cluster / "queue").write_text("")
    (cluster / "sacct").unlink()
    assert launcher.poll(0.0) == {}  # its outcome may come late
    ended = launcher.poll(0.0)
    assert "left the queue without an outcome" in ended[job].reason
    assert not ended[job].final


def test_without_sbatch_the_script_is_left_for_a_machine_that_has_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    launcher = slurm(tmp_path / "slurm")
    with pytest.raises(RuntimeError, match=r"sbatch is not here; .*array-0\.sh is written"):
        launcher.submit([Job(tmp_path / "run", tiny())])
    assert "--array=0%2" in (tmp_path / "slurm" / "array-0.sh").read_text()


@pytest.mark.bad_input
def test_what_sbatch_refuses_is_said(cluster, tmp_path):
    (cluster / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    with pytest.raises(RuntimeError, match="sbatch failed: sbatch: error: invalid partition"):
        slurm(tmp_path / "slurm").submit([Job(tmp_path / "run", tiny())])


def test_the_outcome_of_an_earlier_task_is_none_of_the_next(cluster, tmp_path):
    (cluster / "hold").touch()
    job = Job(tmp_path / "run", tiny())
    launcher = slurm(tmp_path / "slurm")
    launcher.submit([job])
    (tmp_path / "slurm" / "outcomes" / "0.json").write_text('{"failure": {"reason": "no data", "final": true}}')
    assert launcher.poll(0.0) == {job: Failure("no data", final=True)}
    launcher.submit([job])
    assert launcher.poll(0.0) == {}
