"""``multimix list``."""

import re

from multimix.lab.cli._parser import Parser
from multimix.lab.data import DATASETS
from multimix.lab.evaluate import SUITES
from multimix.lab.recipes import RECIPES
from multimix.lab.recipes.detection import DETECTION_RECIPES
from multimix.models import MODELS
from multimix.names import AROUND, METHOD_NAMES, about_method


def main(arguments: list[str]) -> None:
    """Name everything that the other commands take by name."""
    parser = Parser(prog="multimix list", description="Name methods, recipes, data sets, models and suites.")
    parser.parse_args(arguments)
    tables = {
        "methods (or FILE.py:CLASS)": {name: about_method(name) for name in METHOD_NAMES},
        "around a method": {f"{name}-NAME": _first_line(cls) for name, cls in AROUND.items()},
        "recipes (or FILE.py:FUNCTION)": {
            **{name: _first_line(recipe) for name, recipe in RECIPES.items()},
            **{name: "images of your own: looks at them and says what it chooses." for name in DATASETS if ":" in name},
        },
        "detection recipes": {name: _first_line(recipe) for name, recipe in DETECTION_RECIPES.items()},
        "data sets (or FILE.py:FUNCTION)": dict.fromkeys(DATASETS, ""),
        "models": dict.fromkeys((*MODELS, "timm:NAME", "torchvision:NAME"), ""),
        "suites": {suite.name: _first_line(suite) for suite in SUITES},
    }
    for title, entries in tables.items():
        width = max(map(len, entries))
        rows = [f"  {name:{width}}  {text}".rstrip() for name, text in entries.items()]
        print(f"{title}:", *rows, "", sep="\n")


def _first_line(thing: object) -> str:
    line = (thing.__doc__ or "").strip().splitlines()[0].removeprefix("Return ")
    return re.sub(r":\w+:`(.+?)`", r"\1", line)
