"""Studies of ours: arms differ and see the same data, and vary what they say; those without images make records."""

import importlib
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris

import comparison
import defaults
import encoder
import few_cifar10
import full_width
import further
import many_classes
import noise
import pays
import seconds
import sweeps
from multimix.lab._code import find_made, makes
from multimix.lab.recipes import Study, cifar10_small, digits, tiny_imagenet_small
from multimix.lab.report import paired_table, read_records, summarise
from multimix.methods import ERM, ManifoldMixup
from multimix.models import build
from seconds import COSTS, within

FOLDER = Path(__file__).parents[2] / "studies"
MODULES = (comparison, defaults, encoder, few_cifar10, full_width, further, many_classes, noise, pays, seconds, sweeps)
_MADE = (value for module in MODULES for value in vars(module).values())
STUDIES = {function().name: function for function in _MADE if function is not dataclass and makes(Study)(function)}


def study_named(name: str) -> Study:
    return STUDIES[name]()


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_asks_something_and_its_arms_differ_but_share_their_data(name):
    study = study_named(name)
    assert study.name == name
    assert study.question
    assert all(config.label == label for label, found in study.arms.items() for config in found)
    configs = [config for found in study.arms.values() for config in found]
    assert len({repr(replace(config, label="")) for config in configs}) == len(configs)
    shared = {(c.data, c.train_size, c.validation, c.split_seed, c.image_size, c.model, c.width) for c in configs}
    assert len(shared) == 1


def test_every_study_can_be_named_by_its_file(tmp_path, monkeypatch):
    """From anywhere: a file that imports its neighbour brings it along."""
    monkeypatch.chdir(tmp_path)
    study, file = find_made(str(FOLDER / "further.py:fine_tune"), "study", Study)
    assert (study.name, file) == ("fine-tune", "further.py:fine_tune")
    assert set(file.code.sources) == {"further.py", "comparison.py"}


RECORDS = Path(__file__).parents[2] / "benchmarks" / "step-recipes-cpu.jsonl"
SECONDS = {"digits-seconds": digits(), "cifar10-small-seconds": cifar10_small()}
_NETWORK = ("model", "width", "strides", "final_norm")


def single(name):
    """The configurations of a study whose arms have one candidate each."""
    found = study_named(name).arms
    assert {len(candidates) for candidates in found.values()} == {1}
    return {label: candidates[0] for label, candidates in found.items()}


@pytest.mark.skipif(not RECORDS.is_file(), reason="the records are not part of the package")
def test_costs_are_what_was_measured():
    rows = [json.loads(line) for line in RECORDS.read_text().splitlines()]
    measured = {recipe: {} for recipe in COSTS}
    for row in rows:
        measured[row["shape"]["recipe"]][row["case"]] = round(row["ratio"], 2)
    assert measured == COSTS


@pytest.mark.parametrize("name", SECONDS)
def test_at_equal_seconds_no_arm_takes_longer_than_half_an_epoch_more_or_less(name):
    """Arms differ in method and length alone."""
    recipe = SECONDS[name]
    costs = COSTS[recipe.recipe]
    plans = single(name)
    assert len({repr(replace(plan, epochs=1, label="", method=plans["erm"].method)) for plan in plans.values()}) == 1
    decay = 4 if name == "cifar10-small-seconds" else 1  # what the trials chose
    assert plans["erm"].optimizer.weight_decay == decay * recipe.optimizer.weight_decay
    assert set(plans) == set(costs)
    assert plans["erm"].epochs == recipe.epochs
    for label, plan in plans.items():
        assert abs(plan.epochs * costs[label] - recipe.epochs) <= 0.5 * costs[label]
    assert len({plan.epochs for plan in plans.values()}) > 3


@pytest.mark.parametrize(("cost", "epochs"), [(1.0, 16), (2.66, 6), (0.99, 16), (100.0, 1)])
def test_epochs_within_the_time_of_plain_training(cost, epochs):
    assert within(16, cost) == epochs


def test_fine_tuning_has_the_network_of_the_run_that_it_begins_from():
    for plan in single("fine-tune").values():
        there, here = ({n: getattr(c, n) for n in _NETWORK} for c in (tiny_imagenet_small(), plan))
        assert here == there
        assert (plan.data, plan.train_size, plan.epochs) == ("cifar10", 1000, 10)
        assert plan.optimizer.learning_rate == pytest.approx(cifar10_small().optimizer.learning_rate / 10)
    assert tiny_imagenet_small().image_size == 32  # that of CIFAR-10


def test_a_study_can_be_run_once_the_field_that_it_needs_is_given():
    study = study_named("fine-tune")
    assert "--init" in study.question.splitlines()[0]
    for ask in (study.trials, lambda: study.chosen({})):
        with pytest.raises(ValueError, match="study fine-tune needs init: give --init"):
            ask()
    begun = study.changed(lambda config: replace(config, init="runs/tiny"))
    assert {plan.init for plan in begun.chosen({}).values()} == {"runs/tiny"}
    assert begun.trials() == {}


def test_every_layer_of_the_network_is_mixed_at():
    recipe = digits()
    network = build(recipe.model, num_classes=10, in_channels=1, width=recipe.width, strides=recipe.strides)
    methods = [plan.method for plan in single("layer").values()]
    pinned = [m.stages for m in methods if isinstance(m, ManifoldMixup) and len(m.stages) == 1]
    assert pinned == [(stage,) for stage in network.stages]


def test_powers_of_the_gain_are_crossed_with_the_number_of_tuples():
    methods = [plan.method for label, plan in single("balance-tuples").items() if label != "erm"]
    crossed = {(m.balance_power, m.tuples) for m in methods}
    assert crossed == {(power, n) for power in (0.0, 0.5, 1.0) for n in (100, 1000, 10_000)}
    assert {m.alpha for m in methods} == {(0.5, 2.0)}


@pytest.fixture
def script(monkeypatch):
    """The script with the smallest of its data and a single epoch."""
    script = importlib.import_module("vectors")
    monkeypatch.setattr(script, "TABLES", {"iris": load_iris})
    monkeypatch.setattr(script, "TABULAR", {**script.TABULAR, "epochs": 1, "hidden": (8,)})
    monkeypatch.setattr(script, "SEQUENCE", {**script.SEQUENCE, "epochs": 1, "hidden": 8, "batch_size": 512})
    threads = torch.get_num_threads()
    yield script
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("case", "data"), [("tabular", "iris"), ("sequence", "digits-rows")])
def test_records_make_the_tables_of_runs(script, monkeypatch, tmp_path, case, data):
    out = tmp_path / "new" / "records.jsonl"
    monkeypatch.setattr(sys, "argv", ["vectors.py", case, "--out", str(out), "--seeds", "2"])
    script.main()
    rows = read_records(out)
    (comparison,) = summarise(rows).comparisons
    names = script.METHODS if case == "tabular" else script.SEQUENCE_METHODS
    assert [row.name for row in comparison.rows] == ["erm", *names]
    assert all(row.seeds == (0, 1) for row in comparison.rows)
    assert (comparison.data, comparison.metrics) == (data, ("accuracy", "nll", "ece"))
    assert paired_table(summarise(rows), "erm").startswith(f"**{data}, ")
    assert {(row["device"], row["torch"]) for row in rows} == {("cpu", torch.__version__)}
    assert {row["examples"] for row in rows} == {45 if case == "tabular" else 540}
    assert all("date" in row and "commit" in row for row in rows)


def test_splits_are_stratified_and_follow_from_the_seed(script):
    first, again, other = (script.split(load_iris, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first.train, other.train)
    assert np.bincount(first.test_classes).tolist() == [15, 15, 15]


def test_a_loop_of_ones_own_learns_sequences(script, monkeypatch):
    monkeypatch.setattr(script, "SEQUENCE", {**script.SEQUENCE, "epochs": 6, "hidden": 16, "batch_size": 64})
    monkeypatch.setattr(script, "methods", lambda _: {"erm": ERM()})
    accuracy, *_ = script.sequence(1)
    assert accuracy["metric"] == "accuracy"
    assert accuracy["value"] > 0.6  # 0.1 is chance
