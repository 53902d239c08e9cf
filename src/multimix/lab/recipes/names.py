"""Recipes by name."""

import difflib
from collections.abc import Callable, Mapping
from typing import TypeVar

from multimix.lab.recipes.cifar import cifar10, cifar10_paper, cifar10_small, cifar100, cifar100_paper
from multimix.lab.recipes.digits import digits
from multimix.lab.recipes.imagenet import imagenet, imagenet_paper
from multimix.lab.recipes.recommended import cifar10_multimix, cifar10_small_multimix, digits_multimix
from multimix.lab.recipes.tiny_imagenet import tiny_imagenet, tiny_imagenet_paper, tiny_imagenet_small
from multimix.lab.train import TrainConfig

T = TypeVar("T")

_FUNCTIONS = (
    digits,
    cifar10,
    cifar10_paper,
    cifar100,
    cifar100_paper,
    tiny_imagenet,
    tiny_imagenet_paper,
    imagenet,
    imagenet_paper,
    cifar10_small,
    tiny_imagenet_small,
    digits_multimix,
    cifar10_small_multimix,
    cifar10_multimix,
)

RECIPES: dict[str, Callable[[], TrainConfig]] = {f.__name__.replace("_", "-"): f for f in _FUNCTIONS}
"""Every recipe by the name that the command line takes."""


def recipe_named(name: str) -> TrainConfig:
    """Return the configuration of a recipe.

    Raises:
        ValueError: If the name is unknown.
    """
    return named(name, RECIPES, "recipe")


def named(name: str, recipes: Mapping[str, Callable[[], T]], what: str) -> T:
    """Return what the recipe of a name gives.

    Args:
        name: With hyphens or underscores.
        recipes: By name.
        what: What they are called where the name is unknown.

    Raises:
        ValueError: If the name is unknown.
    """
    plain = name.lower().replace("_", "-")
    if plain in recipes:
        return recipes[plain]()
    near = difflib.get_close_matches(plain, recipes, n=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else ";"
    raise ValueError(f"unknown {what} {name!r}{hint} known are {', '.join(recipes)}")
