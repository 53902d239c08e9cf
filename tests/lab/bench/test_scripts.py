"""Scripts around the benches: of ``make gpu`` no part costs another its turn; ``make costs`` counts whole targets."""

import importlib.util
import json
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "scripts"
pytestmark = pytest.mark.skipif(not SCRIPTS.is_dir(), reason="an installed package has no scripts")


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "records")])
    return script("gpu")


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
    assert gpu.data(f"npz:{__file__}") == f"npz:{__file__}"
    assert gpu.data("cifar10") == "cifar10"


def test_costs_are_those_of_all_processes_of_a_target_and_stand_beside_their_bars(monkeypatch, tmp_path):
    busy = "import time; t = time.process_time(); [0 for _ in iter(lambda: time.process_time() - t < 0.3, False)]"
    line = f"{sys.executable} -c '{busy}'"
    (tmp_path / "Makefile").write_text(f"demo:\n\t@{line} & {line} & wait\ntest:\n\t@true\n")
    out = tmp_path / "commands.jsonl"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["costs.py", "--out", str(out)])
    costs = script("costs")
    monkeypatch.setitem(costs.BARS, "demo", ("cpu", 0.5))
    assert costs.main() == 0
    demo, test = (json.loads(line) for line in out.read_text().splitlines())
    assert demo["cpu_seconds"] >= 0.6
    assert test["bar"] == ["wall", 480]
    rows = script("fill_tables").costs_table(out).splitlines()[2:4]
    assert [row.split("|")[1].strip() for row in rows] == ["`make demo`", "`make test`"]
    assert [row.split("|")[-2].strip() for row in rows] == ["**missed**", "met"]
    (tmp_path / "Makefile").write_text("demo:\n\t@false\ntest:\n\t@true\n")
    assert costs.main() == 1
    assert json.loads(out.read_text())["command"] == "make test"


def test_a_table_without_records_says_who_writes_them():
    rendered = script("fill_tables").rendered
    assert rendered(Path("benchmarks/none-cuda.jsonl"), {}) == "No record yet; `make gpu`, on one H200, writes one.\n"
    assert rendered(Path("benchmarks/none-cpu.jsonl"), {}) == "No record yet; `make bench` writes one.\n"
