"""Recipes by name."""

import difflib
from collections.abc import Callable

from multimix.recipes.cifar import cifar10, cifar10_paper, cifar100, cifar100_paper
from multimix.recipes.digits import digits
from multimix.recipes.imagenet import imagenet, imagenet_paper
from multimix.recipes.tiny_imagenet import tiny_imagenet, tiny_imagenet_paper
from multimix.train import TrainConfig

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
)

RECIPES: dict[str, Callable[[], TrainConfig]] = {f.__name__.replace("_", "-"): f for f in _FUNCTIONS}
"""Every recipe by the name that the command line takes."""


def recipe_named(name: str) -> TrainConfig:
    """Return the configuration of a recipe.

    Raises:
        ValueError: If the name is unknown.
    """
    plain = name.lower().replace("_", "-")
    if plain in RECIPES:
        return RECIPES[plain]()
    near = difflib.get_close_matches(plain, RECIPES, n=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else ";"
    raise ValueError(f"unknown recipe {name!r}{hint} known are {', '.join(RECIPES)}")
