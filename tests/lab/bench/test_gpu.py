"""The script behind ``make gpu``: no part costs another its turn, and a limit ends all that a part has started."""

import importlib.util
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "gpu.py"
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="an installed package has no scripts")


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "records")])
    return script


def python(code):
    return [sys.executable, "-c", code]


def test_every_part_has_its_turn_and_a_line(gpu, monkeypatch, tmp_path, capsys):
    ticks = tmp_path / "ticks"
    tick = f"import time\nwhile True: print('.', file=open({str(ticks)!r}, 'a')), time.sleep(0.05)"
    begets = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {tick!r}])"
    made = {
        "tests": [python("raise SystemExit(3)"), python(tick)],
        "ops": [python(begets)],
        "step": [python("pass"), python("pass")],
    }
    monkeypatch.setattr(gpu, "parts", lambda given: made)
    monkeypatch.setitem(gpu.LIMITS, "ops", 3)
    assert gpu.main() == 1
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split(",")[0].split(maxsplit=2)[1:] for line in lines] == [
        ["tests", "failed"],
        ["ops", "out of time"],
        ["step", "done"],
    ]
    ended = ticks.stat().st_size
    time.sleep(0.5)
    assert ticks.stat().st_size == ended > 0


def test_what_is_left_when_all_time_is_over_is_said_and_not_begun(gpu, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "MINUTES", 0)
    monkeypatch.setattr(gpu, "parts", lambda given: {"ops": [python("print('begun')")]})
    assert gpu.main() == 1
    assert capsys.readouterr().out.strip() == "gpu: ops      out of time, 0 s"


def test_parts_are_all_that_have_limits_and_limits_fit_the_time(gpu):
    given = gpu.argparse.Namespace(device="cpu", small=True, data="digits", out=Path("records"))
    assert set(gpu.parts(given)) == set(gpu.LIMITS)
    assert sum(gpu.LIMITS.values()) <= 60 * gpu.MINUTES


def test_data_that_are_not_there_are_replaced(gpu, tmp_path):
    assert gpu.data(f"npz:{tmp_path}/none.npz") == "digits"
    assert gpu.data(f"npz:{SCRIPT}") == f"npz:{SCRIPT}"
    assert gpu.data("cifar10") == "cifar10"
