"""Studies at equal seconds, on other amounts of data, from other beginnings, and at every layer."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from multimix.lab.recipes import cifar10_small, digits, tiny_imagenet_small
from multimix.methods import ManifoldMixup
from multimix.models import build
from seconds import COSTS, within
from studies.listed import study_named

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
    recipe = SECONDS[name]
    costs = COSTS[recipe.recipe]
    plans = single(name)
    assert set(plans) == set(costs)
    assert plans["erm"].epochs == recipe.epochs
    for label, plan in plans.items():
        assert abs(plan.epochs * costs[label] - recipe.epochs) <= 0.5 * costs[label]
    assert len({plan.epochs for plan in plans.values()}) > 3


@pytest.mark.parametrize("name", SECONDS)
def test_at_equal_seconds_arms_differ_in_method_and_length_alone(name):
    plans = single(name)
    alike = {repr(replace(plan, epochs=1, label="", method=plans["erm"].method)) for plan in plans.values()}
    assert len(alike) == 1


def test_at_equal_seconds_on_cifar10_weight_decay_is_what_the_trials_chose():
    decays = {plan.optimizer.weight_decay for plan in single("cifar10-small-seconds").values()}
    assert decays == {4 * cifar10_small().optimizer.weight_decay}


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


def test_a_study_that_needs_a_field_can_be_run_once_it_is_given():
    study = study_named("fine-tune")
    assert "--init" in study.question.splitlines()[0]
    begun = study.changed(lambda config: replace(config, init="runs/tiny"))
    assert {plan.init for plan in begun.chosen({}).values()} == {"runs/tiny"}
    assert begun.trials() == {}


@pytest.mark.bad_input
def test_a_study_without_the_field_that_it_needs_is_refused():
    for ask in (study_named("fine-tune").trials, lambda: study_named("fine-tune").chosen({})):
        with pytest.raises(ValueError, match="study fine-tune needs init: give --init"):
            ask()


def test_the_whole_of_cifar10_is_a_few_passes_over_all_images():
    plans = single("cifar10-whole")
    assert list(plans) == ["erm", "mixup", "manifold-mixup", "multimix-recommended"]
    for plan in plans.values():
        assert (plan.train_size, plan.epochs) == (None, 8)
        assert (plan.width, plan.strides) == (cifar10_small().width, cifar10_small().strides)


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
