"""The argument parser of every command, made of a table of options."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, NoReturn

from multimix.lab._paths import expanded

Options = Mapping[str, Mapping[str, Any]]
"""What argparse's ``add_argument`` takes, by the name of the argument."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and that takes no abbreviations for fields it does not know."""

    def __init__(self, options: Options | None = None, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)
        for name, about in (options or {}).items():
            self.add_argument(name, **about)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments; ``--NAME=--``, which argparse makes an empty list of, is refused."""
        for argument in args or ():
            if argument.startswith("--") and argument.endswith("=--"):
                self.error(f"argument {argument.removesuffix('=--')}: expected one argument, got '--'")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise what the command line turns into one line and exit code 2."""
        raise ValueError(f"{message}; see {self.prog} --help")


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of an argument that is an integer of at least so much."""

    def parsed(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    parsed.__name__ = "int"  # what argparse calls it where the text is no integer
    return parsed


def output_file(text: str) -> Path:
    """Return the path of a file that can be written, the type of an argument: hours of work go into it at the end."""
    path = expanded(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file to write, got the folder {path}")
    nearest = next((folder for folder in path.absolute().parents if folder.exists()), Path())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        why = "may not be written to" if nearest.is_dir() else "is no folder"
        raise argparse.ArgumentTypeError(f"{path} cannot be written: {nearest} {why}")
    return path


def run_arguments(
    command: str, recipes: Iterable[str], options: Options, arguments: list[str], *, usage: str, resumed: Options
) -> tuple[Any, list[str]]:
    """Return the arguments of a command that makes a run, and those of its configuration; help ends it here.

    ``options`` are those of a new run; ``resumed`` are those of a run that goes on, which takes no others.
    """
    common: Options = {
        "recipe": {"nargs": "?", "help": ", ".join(recipes)},
        "--name": {"help": "of the run folder; by default of what is trained, seed and time"},
        "--out": {"type": expanded, "help": "where run folders go"},
        "--resume": {"type": expanded, "metavar": "RUN", "help": "continue a run where its last checkpoint left it"},
        "--quiet": {"action": "store_true", "help": "print nothing but the result"},
    }
    parser = Parser({**common, **options}, prog=f"multimix {command}", usage=usage, add_help=False)
    if not arguments or arguments[0] in ("-h", "--help"):
        lists = f"multimix {command} RECIPE --help lists every field and its value in the recipe."
        print(f"{parser.format_help()}\n{lists}")
        raise SystemExit(0)
    if any(argument.partition("=")[0] == "--resume" for argument in arguments):
        own: Options = {name: common[name] for name in ("--resume", "--quiet")}
        given, rest = Parser({**own, **resumed}, prog=parser.prog, add_help=False).parse_known_args(arguments)
        if rest:
            takes = ", ".join(("--quiet", *resumed))
            raise ValueError(f"--resume takes the run's own configuration, and beside it {takes} only; got {rest[0]}")
        return given, []
    given, rest = parser.parse_known_args(arguments)
    if given.recipe is None:
        raise ValueError(f"which recipe? {', '.join(recipes)}, or --resume RUN")
    return given, rest


def told(*lines: str, quiet: bool = False) -> None:
    """Print lines beside the result, to the error stream, unless they are not wanted."""
    if lines and not quiet:
        print(*lines, sep="\n", file=sys.stderr)


def run_folder(given: Any, default: str, recipe: str, config: Any) -> Path:
    """Return the folder of a new run, named after its recipe, what it is of, its seed and the time.

    A second run of the same second has a number behind it.
    """
    parent = given.out or Path(default)
    if given.name:
        return parent / given.name
    name = f"{recipe}-{config.title}-{config.seed}-{datetime.now():%Y%m%d-%H%M%S}"
    numbered = (f"{name}-{number}" for number in count(2))
    return next(path for path in map(parent.joinpath, chain([name], numbered)) if not path.exists())
