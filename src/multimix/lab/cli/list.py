"""``multimix list``."""

from multimix.lab.cli._parser import Parser
from multimix.lab.data import DATASETS
from multimix.lab.evaluate import SUITES
from multimix.lab.recipes import RECIPES
from multimix.lab.recipes.detection import DETECTION_RECIPES
from multimix.models import MODELS
from multimix.names import METHOD_NAMES, about_method


def main(arguments: list[str]) -> None:
    """Name everything that the other commands take by name."""
    parser = Parser(prog="multimix list", description="Name methods, recipes, data sets, models and suites.")
    parser.parse_args(arguments)
    show("methods (each also as distilled-NAME; or FILE.py:CLASS)", {name: about_method(name) for name in METHOD_NAMES})
    show("recipes (or FILE.py:FUNCTION)", {name: _first_line(recipe) for name, recipe in RECIPES.items()})
    show("detection recipes", {name: _first_line(recipe) for name, recipe in DETECTION_RECIPES.items()})
    show("data sets (or FILE.py:FUNCTION)", dict.fromkeys(DATASETS, ""))
    show("models", dict.fromkeys((*MODELS, "timm:NAME", "torchvision:NAME"), ""))
    show("suites", {suite.name: _first_line(suite) for suite in SUITES})


def show(title: str, entries: dict[str, str]) -> None:
    """Print names and what they mean."""
    width = max(map(len, entries))
    print(f"{title}:")
    for name, text in entries.items():
        print(f"  {name:{width}}  {text}".rstrip())
    print()


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0].removeprefix("Return ")
