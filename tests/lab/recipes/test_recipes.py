"""Every recipe can be written down and read again; the published ones carry the published numbers."""

import json

import pytest

from multimix.lab.data import DATASETS
from multimix.lab.recipes import RECIPES, recipe_named
from multimix.lab.runs.optim import learning_rate
from multimix.lab.train import SGD, Step, from_json, to_json
from multimix.models import MODELS
from multimix.names import method_named


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back_from_json(name):
    config = RECIPES[name]()
    assert from_json(json.loads(json.dumps(to_json(config)))) == config
    assert config.recipe == name
    assert config.data in DATASETS
    assert config.model in MODELS or config.model.startswith("torchvision:")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_where_it_is_from_and_how_it_is_run(name):
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
    assert [rates[0], *(rates[epoch] for epoch in falls)] == pytest.approx(
        [0.1 * 0.1**i for i in range(len(falls) + 1)]
    )
    assert config.method == method_named("multimix-paper")
    assert config.title == "multimix-paper"
    assert config.validation == 0.0  # the paper trains on all of it


@pytest.mark.parametrize("name", ["cifar10-paper", "cifar100-paper", "tiny-imagenet-paper", "imagenet-paper"])
def test_published_networks_and_augmentation(name):
    """Theirs has no normalisation after the last block: paper.md, 1.8."""
    config = recipe_named(name)
    own = name != "imagenet-paper"
    assert config.model == ("preact_resnet18" if own else "torchvision:resnet50")
    assert (config.width, config.strides, config.final_norm) == (None, None, False if own else None)
    assert (config.crop_padding, config.flip, config.image_size) == (4, True, None)


def test_each_data_set_has_its_recipe():
    assert recipe_named("cifar100-paper").data == "cifar100"
    assert recipe_named("tiny_imagenet").data == "tiny-imagenet"
    assert recipe_named("CIFAR10") == RECIPES["cifar10"]()
    assert set(RECIPES) == {
        "digits", "digits-multimix", "cifar10", "cifar10-small", "cifar10-small-multimix", "cifar10-multimix",
        "cifar10-paper", "cifar100", "cifar100-paper", "tiny-imagenet", "tiny-imagenet-small", "tiny-imagenet-paper",
        "imagenet", "imagenet-paper",
    }  # fmt: skip


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "unknown recipe 'digit'; did you mean digits"),
        ("cifar-10", "unknown recipe 'cifar-10'; did you mean cifar10"),
        ("xyz", "unknown recipe 'xyz'; known are digits, cifar10, "),
        ("", "unknown recipe ''; known are digits"),
    ],
)
def test_unknown_names_are_refused_with_what_is_near(name, message):
    with pytest.raises(ValueError, match=message):
        recipe_named(name)
