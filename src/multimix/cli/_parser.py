"""The argument parser of every command."""

import argparse
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and that takes no abbreviations for fields it does not know."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise what the command line turns into one line and exit code 2."""
        raise ValueError(f"{message}; see {self.prog} --help")
