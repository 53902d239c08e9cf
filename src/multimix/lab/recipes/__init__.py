"""Recipes: functions that return a complete training configuration.

The docstring of a recipe names its source, its command, the hardware it is meant for, and the time and number to
expect.
"""

from multimix.lab.recipes.study import Study, arms
from multimix.lab.recipes.training import (
    RECIPES,
    cifar10,
    cifar10_multimix,
    cifar10_paper,
    cifar10_small,
    cifar10_small_multimix,
    cifar100,
    cifar100_paper,
    digits,
    digits_multimix,
    imagenet,
    imagenet_paper,
    recipe_named,
    tiny_imagenet,
    tiny_imagenet_paper,
    tiny_imagenet_small,
)

__all__ = [
    "RECIPES",
    "Study",
    "arms",
    "cifar10",
    "cifar10_multimix",
    "cifar10_paper",
    "cifar10_small",
    "cifar10_small_multimix",
    "cifar100",
    "cifar100_paper",
    "digits",
    "digits_multimix",
    "imagenet",
    "imagenet_paper",
    "recipe_named",
    "tiny_imagenet",
    "tiny_imagenet_paper",
    "tiny_imagenet_small",
]
