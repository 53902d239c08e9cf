"""Ray: what jobs ask it for, and that a run whose worker is killed ends as if nothing had been."""

import builtins
import importlib.util
import os
import subprocess
import sys

import pytest

from multimix.lab.train import TrainConfig
from multimix.lab.train.launch import Launch, run_all
from multimix.lab.train.launch.ray import share

SMALL, LARGE = {"CPU": 2.0}, {"CPU": 8.0, "GPU": 2.0}

FAN_OUT = """
import os
from pathlib import Path

import torch

from multimix.lab.train.launch import Launch, run_all
from train.test_many import assert_as_alone, kill_amid
from train.tiny import tiny

if __name__ == "__main__":
    out = Path.cwd()
    os.cpu_count = lambda: 2 * torch.get_num_threads()
    runs = {out / f"run-{seed}": tiny(seed=seed, epochs=12 if seed == 0 else 2, label="run") for seed in range(2)}
    killer = kill_amid(out / "run-0")
    run_all(runs, Launch(launcher="ray", jobs=2))
    killer.join()
    assert_as_alone(runs, out / "alone")
"""


def nodes(*resources: dict[str, float], alive: bool = True) -> list[dict[str, object]]:
    return [{"Alive": alive, "Resources": there} for there in resources]


@pytest.mark.parametrize(
    ("there", "jobs", "devices", "cpus", "gpus"),
    [
        (nodes(SMALL), 2, {"cpu"}, 1, 0),
        (nodes(SMALL), 1, {"auto"}, 2, 0),
        (nodes(SMALL), 3, {"cpu"}, 0.6666, 0),
        (nodes(LARGE), 3, {"cpu"}, 2, 0),
        (nodes(LARGE), 3, {"auto"}, 2, 0.6666),
        (nodes(LARGE), 4, {"cuda"}, 2, 0.5),
        (nodes(LARGE, LARGE), 2, {"cuda", "cpu"}, 8, 1),
        (nodes(LARGE, SMALL), 1, {"cpu"}, 8, 0),
        (nodes(SMALL) + nodes(LARGE, alive=False), 1, {"auto"}, 2, 0),
    ],
)
def test_jobs_share_the_cores_and_gpus_that_one_machine_can_give(there, jobs, devices, cpus, gpus):
    assert share(there, jobs, devices) == {"num_cpus": cpus, "num_gpus": gpus}


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ({"cuda"}, "device cuda was asked for, but no machine of this Ray cluster has a GPU"),
        ({"cpu", "cuda:1"}, "device cuda:1 does not go with Ray, which hands out GPUs itself; give device cuda"),
    ],
)
def test_what_ray_would_wait_for_in_vain_is_refused(devices, said):
    with pytest.raises(ValueError, match=said):
        share(nodes(SMALL), 1, devices)


@pytest.mark.bad_input
def test_without_ray_its_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without_ray(name: str, *given: object) -> object:
        if name == "ray":
            raise ImportError(name)
        return real(name, *given)

    monkeypatch.setattr("builtins.__import__", without_ray)
    with pytest.raises(ValueError, match=r"^launcher ray needs the package: pip install ray$"):
        run_all({tmp_path / "run": TrainConfig()}, Launch(launcher="ray"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")
def test_a_run_whose_ray_worker_is_killed_ends_as_if_nothing_had_been(tmp_path, request):
    """In a process of its own: Ray leaves threads and handlers behind, and its forks warn."""
    script = tmp_path / "fan_out.py"
    script.write_text(FAN_OUT, encoding="utf-8")
    (tmp_path / "out").mkdir()
    tests = request.config.rootpath / "tests"
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path / "out",
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests / "lab")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "run, seed 0: its Ray worker was killed; it is tried again" in said
    assert {line for line in said if line.endswith("done")} == {f"run, seed {seed}: done" for seed in range(2)}
