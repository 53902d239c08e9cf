"""Every recipe can be written down and read again, the published ones as published; studies are fair."""

import json
from dataclasses import replace

import pytest
import torch

from multimix.lab.data import DATASETS
from multimix.lab.recipes import RECIPES, Study, digits, recipe_named
from multimix.lab.recipes.study import TRIAL_SEED, arms
from multimix.lab.runs.optim import learning_rate
from multimix.lab.train import SGD, Step, from_json, to_json
from multimix.lab.train.network import load_data
from multimix.methods import ERM, Mixup
from multimix.models import MODELS
from multimix.names import method_named


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back_from_json_and_says_where_it_is_from_and_how_it_is_run(name):
    config = RECIPES[name]()
    assert from_json(json.loads(json.dumps(to_json(config)))) == config
    assert config.recipe == name
    assert config.data in DATASETS
    assert config.model in MODELS or config.model.startswith("torchvision:")
    said = " ".join(RECIPES[name].__doc__.split())
    assert said.startswith("Return ")
    for part in ("Source: ", f"``multimix train {name}", "Hardware: "):
        assert part in said


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "falls_at", "nesterov"),
    [
        ("cifar10-paper", 2000, 128, (500, 1000, 1500), False),
        ("cifar100-paper", 2000, 128, (500, 1000, 1500), False),
        ("tiny-imagenet-paper", 1200, 256, (600, 900), False),
        ("imagenet-paper", 300, 1024, (75, 150, 225), True),
    ],
)
def test_published_settings(name, epochs, batch, falls_at, nesterov):
    """The table of paper.md, section 2; images are mixed within 128, as on each GPU there."""
    config = recipe_named(name)
    assert (config.epochs, config.batch_size * config.accumulate, config.batch_size) == (epochs, batch, 128)
    assert config.optimizer == SGD(learning_rate=0.1, momentum=0.9, nesterov=nesterov, weight_decay=1e-4)
    assert isinstance(config.schedule, Step)
    rates = [learning_rate(config, epoch * 10, steps_per_epoch=10) for epoch in range(epochs)]
    falls = [epoch for epoch in range(1, epochs) if rates[epoch] != rates[epoch - 1]]
    assert tuple(falls) == falls_at
    assert [rates[epoch] for epoch in (0, *falls)] == pytest.approx([0.1 ** (i + 1) for i in range(len(falls) + 1)])
    assert config.method == method_named("multimix-paper")
    assert config.title == "multimix-paper"
    assert config.validation == 0.0  # the paper trains on all of it
    own = name != "imagenet-paper"
    assert config.model == ("preact_resnet18" if own else "torchvision:resnet50")
    # Theirs has no normalisation after the last block: paper.md, 1.8.
    assert (config.width, config.strides, config.final_norm) == (None, None, False if own else None)
    assert (config.crop_padding, config.flip, config.image_size) == (4, True, None)


def test_each_data_set_has_its_recipe():
    assert recipe_named("cifar100-paper").data == "cifar100"
    assert recipe_named("tiny_imagenet").data == "tiny-imagenet"
    assert recipe_named("CIFAR10") == RECIPES["cifar10"]()
    assert set(RECIPES) == {
        "digits", "digits-few", "digits-multimix",
        "cifar10", "cifar10-small", "cifar10-small-multimix", "cifar10-multimix",
        "cifar10-paper", "cifar100", "cifar100-paper", "tiny-imagenet", "tiny-imagenet-small", "tiny-imagenet-paper",
        "imagenet", "imagenet-paper",
    }  # fmt: skip


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "unknown recipe 'digit'; did you mean digits"),
        ("cifar-10", "unknown recipe 'cifar-10'; did you mean cifar10"),
        ("xyz", "unknown recipe 'xyz'; known are digits, digits-few, cifar10, "),
        ("", "unknown recipe ''; known are digits"),
    ],
)
def test_unknown_names_are_refused_with_what_is_near(name, message):
    with pytest.raises(ValueError, match=message):
        recipe_named(name)


def small(**changes) -> Study:
    given = {"name": "small", "question": "Does it pay?", "arms": arms(digits(), {"erm": ERM(), "mixup": Mixup()})}
    return Study(**(given | changes))


def test_candidates_are_tried_with_a_seed_of_their_own_and_without_the_test_set():
    assert small().trials() == {}
    assert list(small().chosen({})) == ["erm", "mixup"]
    study = small(arms=arms(digits(), {"erm": (ERM(), ERM()), "mixup": (Mixup(0.2), Mixup(1.0))}))
    trials = study.trials()
    assert list(trials) == [("erm", 0), ("erm", 1), ("mixup", 0), ("mixup", 1)]
    assert {(config.seed, config.test) for config in trials.values()} == {(TRIAL_SEED, False)}
    assert [config.label for config in trials.values()] == ["erm-0", "erm-1", "mixup-0", "mixup-1"]
    assert study.chosen({"mixup": 1})["mixup"].method == Mixup(1.0)
    assert all(config.test for config in study.chosen({}).values())


def test_few_digits_are_others_for_every_seed_and_tested_on_the_same():
    config = recipe_named("digits-few")
    first, again, other = (load_data(replace(config, seed=seed)) for seed in (0, 0, 1))
    assert (len(first.train), len(first.validation), len(first.test)) == (200, 200, 1198)
    assert set(first.train.labels.bincount().tolist()) <= {19, 20, 21}
    assert torch.equal(first.train.images, again.train.images)
    assert not torch.equal(first.train.images, other.train.images)
    assert torch.equal(first.test.images, other.test.images)


def test_a_change_reaches_every_configuration():
    changed = small().changed(lambda config: replace(config, epochs=3))
    assert {config.epochs for found in changed.arms.values() for config in found} == {3}


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": {}}, "arms of study small must hold at least one arm, got none"),
        ({"against": "cutmix"}, "against must be one of erm, mixup, got 'cutmix'"),
        ({"arms": arms(digits(), {"erm": ERM(), "a": (ERM(), ERM())})}, "at least 1, got {'erm': 1, 'a': 2}"),
        ({"arms": {"erm": ()}}, "arms must have equally many candidates, at least 1, got {'erm': 0}"),
    ],
)
def test_what_would_not_be_fair_is_refused(changes, said):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        small(**changes)
    assert said in str(caught.value)
