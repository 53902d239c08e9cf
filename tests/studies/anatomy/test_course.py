"""A training that is measured on the way, tables of what was found, and ``python studies/anatomy``."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import anatomy.__main__ as command
from anatomy import TABLES, AnatomySettings, anatomise, read, render, tables
from anatomy.course import _about, course
from cli.command import TINY
from multimix.lab.runs.checkpoint import random_states
from multimix.lab.train import Engine
from multimix.methods import ERM, MultiMix
from train.tiny import splits_of, tiny, train_all

FEW = AnatomySettings(
    batches=2, tuples=2000, dense_tuples=10, expected_tuples=60, noise_tuples=(5, 20), noise_draws=2, examples=60
)


@pytest.fixture(scope="module")
def records():
    config = tiny(method=ERM())
    return list(anatomise(config, splits_of(config), FEW))


def test_measuring_changes_nothing_of_the_training(monkeypatch):
    config = tiny(method=MultiMix(50))
    plain = Engine(config, splits_of(config))
    losses = train_all(plain)
    kept = []
    monkeypatch.setattr("anatomy.course.Engine", lambda *given: kept.append(Engine(*given)) or kept[-1])
    for _ in anatomise(config, splits_of(config), FEW):
        pass
    (measured,) = kept
    assert len(losses) == measured.at.step == plain.at.step
    torch.testing.assert_close(measured.network.state_dict(), plain.network.state_dict(), rtol=0, atol=0)
    assert torch.equal(measured.generator.get_state(), plain.generator.get_state())


def test_measuring_leaves_the_global_generators_alone():
    config = tiny()
    steps = anatomise(config, splits_of(config), FEW)
    next(steps)  # the network has been built and measured once
    before = random_states()["torch"]
    while next(steps)["progress"] == 0:
        pass
    assert torch.equal(random_states()["torch"], before)


@pytest.mark.parametrize(("accumulate", "steps"), [(1, [0, 2, 4, 8]), (2, [0, 1, 2, 4])])
def test_points_are_the_start_the_first_epoch_and_the_fractions(accumulate, steps):
    config = tiny(accumulate=accumulate)
    engine = Engine(config, splits_of(config))
    assert list(course(engine, (0.25, 0.5, 1.0))) == steps
    engine.config = replace(config, data="npz:some/where/little.npz")
    assert _about(engine)["data"] == "npz:little.npz"  # without its path


def test_every_record_says_what_it_is(records):
    for record in records:
        assert {"metric", "value", "label", "seed", "epoch", "progress", "m", "data", "model"} <= set(record)
        assert {"device", "torch", "commit", "date"} <= set(record)
        json.dumps(record, allow_nan=False)
    assert {record["progress"] for record in records} == {0.0, 0.25, 0.5, 1.0}
    assert len({sum(record["progress"] == at for record in records) for at in (0.0, 0.25, 0.5, 1.0)}) == 1


def test_at_the_start_the_law_holds_on_the_logits_of_a_network(records):
    def centred(metric, **where):
        wanted = {"metric": metric, "progress": 0, **where}
        found = [r for r in records if all(r.get(key) == value for key, value in wanted.items())]
        return {json.dumps(r["alpha"]): r["value"]["logits_centred"] for r in found}

    ratio, law = centred("norm_ratio", measured="multimix", balanced=False), centred("law_norm_ratio")
    assert set(ratio) == set(law) == {"[0.5, 2.0]", "0.5", "0.03125", "0.125"}
    for alpha, predicted in law.items():
        assert ratio[alpha] == pytest.approx(predicted, rel=0.1)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"points": (0.5, 1.5)}, r"points must be fractions of training in \(0, 1\], got \(0.5, 1.5\)"),
        ({"batches": 0}, "batches must be at least 1, got 0"),
        ({"noise_draws": 1}, "noise_draws must be at least 2, got 1"),
        ({"noise_tuples": (10, 0)}, "noise_tuples must be at least 1, got 0"),
    ],
)
def test_impossible_settings_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        AnatomySettings(**settings)


@pytest.mark.bad_input
def test_trainings_that_cannot_be_measured_are_named():
    for config, said in ((tiny(compile=True), "compile must be False"), (tiny(batch_size=1), "must be at least 2")):
        with pytest.raises(ValueError, match=said):
            next(anatomise(config, splits_of(config), FEW))


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_a_row_for_each_point_and_no_gap(records, name):
    (table,) = tables(records, [name])
    assert [row[:2] for row in table.rows] == [("erm", at) for at in ("0 %", "25 %", "50 %", "100 %")]
    assert all(len(row) == len(table.headings) for row in table.rows)
    assert not any("–" in cell for row in table.rows for cell in row)


def test_seeds_are_averaged():
    about = {"label": "erm", "progress": 0.5, "data": "d", "model": "n", "m": 4, "device": "cpu"}
    rows = [
        {"metric": name, "value": value, "seed": seed, **about}
        for seed, values in enumerate([(0.25, -0.5, 0.5, 1.0), (0.75, -0.25, 0.25, 0.5)])
        for name, value in zip(("within_between", "spread", "confidence", "accuracy"), values, strict=True)
    ]
    assert tables(rows, ["classes"])[0].rows == [("erm", "50 %", "0.5", "-0.375", "0.375", "0.75")]


def test_markdown_says_where_the_numbers_come_from(records):
    text = render(records, "classes")
    first, rule, *rows = text.splitlines()
    headings = ["trained with", "progress", "within / between", "cosine of class means", "confidence"]
    assert first == f"| {' | '.join([*headings, 'training accuracy'])} |"
    assert rule == "| :--- |" + " ---: |" * 5
    assert rows[0].startswith("| erm | 0 % |")
    assert "digits, preact_resnet18, m 32, seed 0, cpu" in rows[-1]


@pytest.mark.bad_input
def test_what_cannot_be_shown_is_named(records, tmp_path):
    with pytest.raises(ValueError, match=r"table must be one of summary, .*, got 'nothing'"):
        render(records, "nothing")
    with pytest.raises(ValueError, match="records must hold at least one record, got none"):
        render([], "law")
    with pytest.raises(ValueError, match="labels must be among erm, got mixup"):
        render(records, "law", ["erm", "mixup"])
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps({"metric": "accuracy"}) + "\n")
    with pytest.raises(ValueError, match=r"line 1: expected a record with value, got \['metric'\]"):
        read(path)


FOLDER = Path(__file__).parents[3] / "studies" / "anatomy"
LITTLE = "--batches 1 --tuples 50"


def test_methods_are_trained_measured_shown_and_recorded(tmp_path, capsys, monkeypatch):
    quick = partial(AnatomySettings, dense_tuples=5, expected_tuples=50, noise_tuples=(5, 10), noise_draws=2)
    monkeypatch.setattr(command, "AnatomySettings", quick)
    file = tmp_path / "there" / "records.jsonl"
    command.main(f"--methods erm multimix --out {file} {LITTLE} {TINY}".split())
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert {(record["label"], record["seed"]) for record in records} == {("erm", 0), ("multimix", 0)}
    out = capsys.readouterr().out
    assert out.count("trained with") == 3
    assert out.count("│ multimix") == 3 * 3  # at the start, half-way and at the end
    assert "\x1b" not in out


def test_it_is_run_by_its_folder_from_anywhere(tmp_path):
    line = [sys.executable, str(FOLDER), "--seeds", "0"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "multimix: --seeds must be at least 1, got 0\n")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--recipe digit", "unknown recipe 'digit'"),
        (f"{TINY} --batches 0", "batches must be at least 1, got 0"),
        (f"--methods erm multimix --label same {TINY}", "methods are told apart by their labels"),
    ],
)
def test_mistakes_are_refused(line, said):
    with pytest.raises(ValueError, match=said):
        command.main(line.split())
