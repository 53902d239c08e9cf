"""Hook of mkdocs: writes the tables of methods, recipes and suites from the lists that the code has."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from docs_methods import classes, uri

from multimix.methods import METHODS


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with a table in the place of each ``<!-- table: NAME -->``."""
    return re.sub(r"<!-- table: (\w+) -->", lambda mark: "\n".join(TABLES[mark[1]]()), markdown)


def methods() -> Iterator[str]:
    """Yield the lines of the table of methods."""
    yield "| command line | class | what it does |"
    yield "|---|---|---|"
    yield from (f"| `{cls.name}` | [`{cls.__name__}`]({uri(cls)}) | {summary(cls)} |" for cls in METHODS)


def combinations() -> Iterator[str]:
    """Yield the lines of the table of what is made of methods."""
    yield "| class | what it does |"
    yield "|---|---|"
    made = [cls for cls in classes() if cls not in METHODS]
    yield from (f"| [`{cls.__name__}`]({uri(cls)}) | {summary(cls)} |" for cls in made)


def gallery() -> Iterator[str]:
    """Yield the picture of each method that has one."""
    for cls in METHODS:
        if Path(picture := f"docs/gallery/{cls.name}.webp").exists():
            yield f"**[`{cls.__name__}`]({uri(cls)})**\n\n![{cls.__name__}, drawn]({picture.removeprefix('docs/')})\n"


def recipes() -> Iterator[str]:
    """Yield the lines of the table of recipes."""
    from multimix.lab.recipes import RECIPES

    yield "| recipe | what it is |"
    yield "|---|---|"
    for name, recipe in RECIPES.items():
        what = summary(recipe).removeprefix("Return ")
        yield f"| [`{name}`][{recipe.__module__}.{recipe.__name__}] | {what[0].upper()}{what[1:]} |"


def suites() -> Iterator[str]:
    """Yield the lines of the table of evaluation suites."""
    from multimix.lab import evaluate

    yield "| suite | what it measures | settings and defaults |"
    yield "|---|---|---|"
    for suite in evaluate.SUITES:
        settings = ", ".join(f"`{name}={value!r}`" for name, value in vars(suite.Settings()).items())
        reference = f"[multimix.lab.evaluate.{suite.__name__}]" if suite.__name__ in evaluate.__all__ else ""
        yield f"| [`{suite.name}`]{reference} | {summary(suite)} | {settings} |"


def summary(thing: object) -> str:
    """Return the first paragraph of a docstring in one line."""
    return " ".join((thing.__doc__ or "").split("\n\n")[0].split()).replace(":func:", "")


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    table.__name__: table for table in (methods, combinations, gallery, recipes, suites)
}
