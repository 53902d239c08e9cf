"""``multimix list``."""

from multimix.cli._parser import Parser
from multimix.data import DATASETS
from multimix.evaluate import SUITES
from multimix.models import MODELS
from multimix.recipes import METHOD_NAMES, RECIPES, STUDIES, about_method, study_named
from multimix.recipes.detection import DETECTION_RECIPES


def main(arguments: list[str]) -> None:
    """Name everything that the other commands take by name."""
    parser = Parser(prog="multimix list", description="Name methods, recipes, studies, data sets, models and suites.")
    parser.parse_args(arguments)
    show("methods (each also as distilled-NAME)", {name: about_method(name) for name in METHOD_NAMES})
    show("recipes", {name: _first_line(recipe) for name, recipe in RECIPES.items()})
    show("studies (of multimix compare)", {name: study_named(name).question.splitlines()[0] for name in STUDIES})
    show("detection recipes", {name: _first_line(recipe) for name, recipe in DETECTION_RECIPES.items()})
    show("data sets", dict.fromkeys(DATASETS, ""))
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
