"""``multimix anatomy``."""

import json
from functools import partial
from pathlib import Path

from anatomy import AnatomySettings
from cli.command import TINY
from multimix.lab.cli import anatomy as command

FEW = "--batches 1 --tuples 50"


def test_methods_are_trained_measured_shown_and_recorded(multimix, monkeypatch):
    quick = partial(AnatomySettings, dense_tuples=5, expected_tuples=50, noise_tuples=(5, 10), noise_draws=2)
    monkeypatch.setattr(command, "AnatomySettings", quick)
    out = multimix.succeeds(f"anatomy --methods erm multimix --out there/records.jsonl {FEW} {TINY}")
    records = [json.loads(line) for line in Path("there/records.jsonl").read_text().splitlines()]
    assert {(record["label"], record["seed"]) for record in records} == {("erm", 0), ("multimix", 0)}
    assert out.count("trained with") == 3
    assert out.count("│ multimix") == 3 * 3  # at the start, half-way and at the end
    assert "\x1b" not in out


def test_mistakes_are_one_line(multimix):
    assert multimix.complains("anatomy --seeds 0") == "--seeds must be at least 1, got 0"
    assert "unknown recipe 'digit'" in multimix.complains("anatomy --recipe digit")
    assert multimix.complains(f"anatomy {TINY} --batches 0") == "batches must be at least 1, got 0"
    said = multimix.complains(f"anatomy --methods erm multimix --label same {TINY}")
    assert said == "methods are told apart by their labels, so --label does not go with several of them"
