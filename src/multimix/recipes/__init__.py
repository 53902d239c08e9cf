"""Recipes: functions that return a complete training configuration, and methods by name.

The docstring of a recipe names its source, its command, the hardware it is meant for, and the time and number to
expect.
"""

from multimix.recipes.cifar import cifar10, cifar10_paper, cifar10_small, cifar100, cifar100_paper
from multimix.recipes.digits import digits
from multimix.recipes.imagenet import imagenet, imagenet_paper
from multimix.recipes.methods import METHOD_NAMES, about_method, method_named
from multimix.recipes.names import RECIPES, recipe_named
from multimix.recipes.recommended import cifar10_multimix, cifar10_small_multimix, digits_multimix
from multimix.recipes.studies import STUDIES, study_named
from multimix.recipes.study import Study
from multimix.recipes.tiny_imagenet import tiny_imagenet, tiny_imagenet_paper, tiny_imagenet_small

__all__ = [
    "METHOD_NAMES",
    "RECIPES",
    "STUDIES",
    "Study",
    "about_method",
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
    "method_named",
    "recipe_named",
    "study_named",
    "tiny_imagenet",
    "tiny_imagenet_paper",
    "tiny_imagenet_small",
]
