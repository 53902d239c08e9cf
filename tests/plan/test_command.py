"""``multimix plan``."""

import json
from pathlib import Path

import pytest

from multimix.cli import plan as command

SMALL = "plan cifar10 --width 4 --batch-size 32"


def test_both_scalings_are_a_table_of_devices(multimix):
    out = multimix.succeeds(f"{SMALL} --method multimix --tuples 500 --devices 1 2 4096")
    assert "rates: measured on" in out
    assert "links between devices assumed, not measured" in out
    assert "strong scaling: mini-batch of 32, shared out" in out
    assert "weak scaling: mini-batch of 32, on each device" in out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("│")] == ["1", "2", "1", "2", "4096"]
    assert "left out" in out


def test_an_accelerator_is_said_to_be_assumed(multimix):
    line = f"{SMALL} --precision bf16-mixed --devices 8 --scaling weak --device a100 --peak 100 --link 10"
    out = multimix.succeeds(line)
    assert "a100: assumed, not measured: 100 TFLOP/s" in out
    assert "links 10 GB/s in a node of 8" in out


def test_a_calibration_is_read_from_its_file(multimix):
    from multimix.plan import load_rates

    rates = load_rates()
    slow = {**rates.record(), "constants": {name: 2 * value for name, value in rates.constants.items()}}
    Path("slow.jsonl").write_text(json.dumps(slow) + "\n")
    quick, twice = (
        float(next(row for row in multimix.succeeds(line).splitlines() if row.startswith("│")).split("│")[3])
        for line in (f"{SMALL} --devices 1 --scaling weak", f"{SMALL} --devices 1 --scaling weak --rates slow.jsonl")
    )
    assert twice == pytest.approx(2 * quick, rel=0.002)


def test_a_calibration_and_its_check_are_shown(multimix, monkeypatch):
    row = {"case": "c", "seconds_p10": 1.0, "seconds_p50": 1.1, "predicted_seconds": 1.2, "error": 0.2}
    held = row | {"record": "check", "peak_bytes": 2**20, "predicted_peak_bytes": 2**20, "memory_error": 0.0}
    asked = []

    def calibrate(path, **how):
        asked.append((path, how))
        return [{}, row | {"record": "fit"}, *([held] if how["checking"] else [])]

    monkeypatch.setattr(command, "calibrate", calibrate)
    monkeypatch.setattr(command, "check", lambda path, **how: asked.append((path, how)) or [held])
    how = {"rounds": 2, "clock": "busy"}
    both = multimix.succeeds("plan --calibrate a.jsonl --check a.jsonl --rounds 2 --clock busy")
    alone = multimix.succeeds("plan --check a.jsonl --rounds 2 --clock busy")
    only = multimix.succeeds("plan --calibrate a.jsonl --rounds 2 --clock busy")
    path = Path("a.jsonl")
    assert asked == [(path, {**how, "checking": True}), (path, how), (path, {**how, "checking": False})]
    for out in (both, alone):
        assert "time: 0 of 1 held-out cases within 15%, the worst off by 20.0%" in out
        assert "memory: 1 of 1 held-out cases within 15%, the worst off by 0.0%" in out
    assert "+20.0" in only
    assert "held-out" not in only


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("plan cifar", "unknown recipe 'cifar'"),
        ("plan --method puzzlemix", "method must be erm, mixup, cutmix"),
        ("plan --method erm --tuples 5", "tuples are not drawn by erm, got 5"),
        ("plan --method multimix --tuples 0", "tuples must be at least 1, got 0"),
        ("plan --devices 0", "--devices must be at least 1, got 0"),
        ("plan --device a100 --peak -1", "--peak must be greater than 0, got -1"),
        ("plan --peak 3", "--peak goes with an accelerator (a100, h100)"),
        ("plan --device h100 --rates x", "--rates are of a cpu; h100 is assumed"),
        ("plan --rates nowhere", "No such file"),
        ("plan --overlap 2", "overlap must lie in [0, 1], got 2"),
        ("plan --data npz:x.npz", "--classes and --shape C H W must be given for data 'npz:x.npz'"),
        ("plan --classes -1", "--classes and --shape must be at least 1"),
        ("plan --calibrate x --epochs 3", "--epochs does not go with --calibrate and --check"),
        ("plan cifar10 --calibrate x", "cifar10 does not go with --calibrate"),
        ("plan --calibrate .", "expected a file to write, got the folder ."),
        ("plan --calibrate x --rounds 0", "--rounds must be at least 1, got 0"),
        ("plan --check nowhere", "No such file"),
        ("plan --calibrate a --check b", "--check must be the file of --calibrate, a, or stand alone, got b"),
        ("plan --devices 1 --model preact", "name must be a known model, got 'preact'"),
    ],
)
def test_mistakes_are_one_line(multimix, line, said):
    assert said in multimix.complains(line)
