"""The argument parser of every command."""

import argparse
import os
from pathlib import Path
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and that takes no abbreviations for fields it does not know."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments; ``--NAME=--``, which argparse makes an empty list of, is refused."""
        for argument in args or ():
            if argument.startswith("--") and argument.endswith("=--"):
                self.error(f"argument {argument.removesuffix('=--')}: expected one argument, got '--'")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise what the command line turns into one line and exit code 2."""
        raise ValueError(f"{message}; see {self.prog} --help")


def output_file(text: str) -> Path:
    """Return the path of a file that can be written, as the type of an argument: hours of work go into it at the end.

    Raises:
        ArgumentTypeError: If it is a folder, or nothing can be written where it should be.
    """
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file to write, got the folder {path}")
    nearest = next((folder for folder in path.absolute().parents if folder.exists()), Path())
    if not nearest.is_dir():
        raise argparse.ArgumentTypeError(f"{path} cannot be written: {nearest} is no folder")
    if not os.access(nearest, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path} cannot be written: {nearest} may not be written to")
    return path
