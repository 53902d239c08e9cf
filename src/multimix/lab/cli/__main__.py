"""``multimix COMMAND ...``: finds the command and turns what goes wrong into one line.

Nothing heavy is imported before the command is known, so that help comes at once.
"""

import difflib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from io import TextIOWrapper
from typing import Any

from multimix import __version__
from multimix.lab.cli._standins import standins

COMMANDS = {
    "train": "train a network by a recipe, or resume a run",
    "evaluate": "measure a finished run",
    "detect": "fine-tune a run's backbone to detect objects",
    "compare": "train several methods with several seeds and report",
    "report": "make one self-contained page of runs",
    "bench": "measure speed and memory",
    "predict": "say what a finished run sees in images",
    "export": "write a finished run for other programs: ONNX, torch.export, safetensors",
    "data": "say what a data set holds and how a folder is understood",
    "list": "name methods, recipes, data sets, models and suites",
}

_USAGE = """usage: multimix COMMAND ...

Interpolate a myriad of embeddings: MultiMix and the mixup family.

commands:
{}

multimix COMMAND --help says more. Start with: multimix train digits""".format(
    "\n".join(f"  {name:{max(map(len, COMMANDS))}}  {about}" for name, about in COMMANDS.items())
)

_GOES_ON = {
    "train": "a run goes on with: multimix train --resume RUN",
    "detect": "a run goes on with: multimix detect --resume RUN",
    "evaluate": "the same command goes on with the suites that are not done",
}
"""What to do after a stop."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 if all went well, 2 for wrong input, 1 if training failed."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_USAGE)
        return 0
    command, *rest = arguments
    if command in ("-V", "--version"):
        print(f"multimix {__version__}")
        return 0
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "see multimix --help"
        return complain(f"unknown command {command!r}; {hint}", 2)
    return guarded(command, partial(_call, command, rest))


def guarded(command: str, call: Callable[[], None]) -> int:
    """Call and return the exit code; what goes wrong is one line, with MULTIMIX_DEBUG set it keeps its traceback."""
    goes_on = _GOES_ON.get(command, _GOES_ON["train"])
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as of the error stream: names and arrows go everywhere
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            call()
    except SystemExit as stop:
        if said := getattr(stop, "said", None):
            return complain(f"{said}; {goes_on}", int(stop.code or 0))
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return complain(f"stopped; {goes_on}", 130)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if os.environ.get("MULTIMIX_DEBUG"):
            raise
        code = 2 if isinstance(error, (ValueError, TypeError, OSError)) else 1
        if code == 2 or isinstance(error, RuntimeError):
            return complain(str(error) or type(error).__name__, code)
        return complain(f"{type(error).__name__}: {error} (with MULTIMIX_DEBUG=1 it says where)", code)
    return 0


def _call(command: str, arguments: list[str]) -> None:
    """Run a command; what only says what there is, runs over stand-ins for torch, which takes seconds to import."""
    tells = command == "list" or {"-h", "--help"} & set(arguments)
    if tells and not any(".py" in argument for argument in arguments):  # a file of the user's may need torch itself
        try:
            with standins():
                return import_module(f"multimix.lab.cli.{command}").main(arguments)
        except Exception:
            pass  # whatever it is, the real libraries have the last word
    return import_module(f"multimix.lab.cli.{command}").main(arguments)


def _warn(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Print a warning as one line, without the place in the code that it comes from."""
    print(f"multimix: warning: {' '.join(str(message).split())}", file=sys.stderr)


def complain(message: str, code: int) -> int:
    """Print one line to the error stream and return the exit code; of several processes each says which it is."""
    rank = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or "0"
    print(f"multimix{f' (process {rank})' * (rank != '0')}: " + " ".join(message.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
