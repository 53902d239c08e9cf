"""A wrong command line, the law it has to meet, what it met instead, and the families that wrong ones come from."""

import contextlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from multimix.lab.cli.__main__ import COMMANDS, main

if TYPE_CHECKING:
    from .ground import Ground

TINY = (
    *("--train-size", "100", "--width", "2", "--strides", "1", "2", "2", "2"),
    *("--epochs", "1", "--batch-size", "50", "--device", "cpu"),
)
"""What makes the digits recipe a matter of a second, should a wrong command line be taken for a right one."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {
    **dict.fromkeys(("open", "os.mkdir", "os.remove", "os.rmdir"), (0,)),
    **dict.fromkeys(("os.link", "os.symlink"), (1,)),
    "os.rename": (0, 1),
}
"""Audit events that change a folder, and which of their arguments are paths."""
_GIT = "subprocess.Popen 'git'"  # the one program that a command runs, which says what commit a run is of
_RUNS = {"os.system", "subprocess.Popen", "os.posix_spawn", "os.exec", "pty.spawn"}
"""Audit events of programs that are started, which a wrong command line has no reason to do."""
_CACHES = ("__pycache__", os.devnull, ".cache", "/proc/", "/dev/")
"""Where the interpreter and libraries keep what has nothing to do with a command."""


@dataclass(frozen=True)
class Wrong:
    """A command line that must be refused."""

    arguments: tuple[str, ...]  # all of it, the command first
    about: tuple[str, ...] = ()
    """Words of which the message must hold one, whatever their case: the argument or file that is wrong."""
    prepare: Callable[[Path], object] | None = None  # lays the files that it is about into the folder it runs in
    note: str = ""  # what was done to those files, where the arguments do not say it
    late: bool = False
    """Whether it can only be found in the course of the work, so that a run folder may have been begun."""

    @property
    def command(self) -> str:
        return self.arguments[0] if self.arguments[0] in COMMANDS else "none"

    @property
    def key(self) -> tuple[str, ...]:
        return (*self.arguments, self.note)

    def __str__(self) -> str:
        words = " ".join(repr(word) if not word.isprintable() or " " in word else word for word in self.arguments)
        return f"{words}  [{self.note}]" if self.note else words


FAMILIES: dict[str, Callable[[Random, "Ground"], Iterable[Wrong]]] = {}  # what makes the wrong inputs of each kind


def family(make: Callable[[Random, "Ground"], Iterable[Wrong]]) -> Callable[[Random, "Ground"], Iterable[Wrong]]:
    """Enter a function that makes wrong inputs among the families."""
    FAMILIES[make.__name__] = make
    return make


@dataclass(frozen=True)
class Outcome:
    """What a command line did."""

    code: int | None  # its exit code; None where an exception escaped
    out: str
    err: str
    escaped: str  # the exception that escaped, or nothing
    trespasses: tuple[str, ...]  # what was written outside the folder, or run
    changed: tuple[str, ...]  # files of the folder that were changed, added or taken away

    @property
    def is_traceback(self) -> bool:
        return bool(self.escaped) or "Traceback" in self.err + self.out or "MULTIMIX_DEBUG" in self.err

    def faults(self, wrong: Wrong) -> list[str]:
        """Return in what it breaks the law, nothing if it keeps it."""
        lines = self.err.splitlines()
        said = lines[-1].removeprefix("multimix: ") if lines else ""
        elsewhere = set(self.trespasses) - ({_GIT} if wrong.late else set())
        laws = {
            f"an exception escaped: {self.escaped}": not self.escaped,
            f"exit code {self.code}, not 1 or 2": self.code in (1, 2) or bool(self.escaped),
            "a traceback": "Traceback" not in self.err + self.out,
            f"{len(lines)} lines on the error stream, not one: {self.err[:300]!r}": len(lines) == 1,
            f"not told by multimix: {self.err[:200]!r}": all(line.startswith("multimix: ") for line in lines),
            f"an error of no known kind: {said[:200]}": "MULTIMIX_DEBUG" not in said,
            f"a class name is all it says: {said[:200]}": not _is_bare(said),
            f"does not name {' or '.join(wrong.about)}: {said[:300]}": _names(said, wrong.about),
            f"done outside the folder: {self.trespasses}": not elsewhere,
            f"files changed: {self.changed}": wrong.late or not self.changed,
        }
        return [what for what, kept in laws.items() if not kept]


def _is_bare(said: str) -> bool:
    """Whether a message is the name of an exception's class, alone or with a colon."""
    head = said.split(":")[0].strip()
    return not said.strip() or (head.isidentifier() and head.endswith(("Error", "Exception", "Warning")))


def _names(said: str, about: tuple[str, ...]) -> bool:
    plain = said.lower().replace("-", "_")
    return not about or any(word.lower().replace("-", "_") in plain for word in about)


def outcome(wrong: Wrong) -> Outcome:
    """Run a command line in this process, in an empty folder of its own."""
    seen: list[str] = []
    with tempfile.TemporaryDirectory(prefix="wrong-") as name, contextlib.chdir(name):
        if wrong.prepare is not None:
            wrong.prepare(Path(name))
        before = _state(name)
        raw, raw_errors = io.BytesIO(), io.BytesIO()
        # as a terminal has them: what cannot be encoded must not end the program
        out = io.TextIOWrapper(raw, encoding="utf-8", errors="strict", write_through=True)
        err = io.TextIOWrapper(raw_errors, encoding="utf-8", errors="backslashreplace", write_through=True)
        code, escaped = None, ""
        _watched.append((os.path.realpath(name), seen))
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
                code = main(list(wrong.arguments))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            escaped = f"{type(error).__name__}: {error}"[:300]
        finally:
            _watched.pop()
        changed = sorted({path for path, _ in before.items() ^ _state(name).items()})
        said = (each.getvalue().decode("utf-8") for each in (raw, raw_errors))
        return Outcome(code, *said, escaped, tuple(dict.fromkeys(seen)), tuple(changed))


def _state(folder: str) -> dict[str, tuple[int, int, int]]:
    """Return kind, size and time of change of everything in a folder, by path."""
    found = {}
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            where = os.path.join(path, name)
            info = os.lstat(where)
            # that of a folder changes when a file beside it takes its place, and is put back with it
            times = (info.st_size, info.st_mtime_ns) if name in files else (0, 0)
            found[os.path.relpath(where, folder)] = (info.st_mode, *times)
    return found


_watched: list[tuple[str, list[str]]] = []  # the folder of the command line that runs, and what it did elsewhere


def _watch(event: str, given: tuple[Any, ...]) -> None:
    """Note what is written outside the folder, and every program that is started."""
    if not _watched or (event not in _PATHS and event not in _RUNS):
        return
    home, seen = _watched[-1]
    if event in _RUNS:
        seen.append(f"{event} {given[0]!r}"[:200])
    if event == "open" and not (isinstance(given[2], int) and given[2] & _WRITES):
        return
    for path in (given[at] for at in _PATHS.get(event, ())):
        if not isinstance(path, (str, bytes, os.PathLike)):
            continue
        where = os.path.realpath(os.fsdecode(path))
        if where != home and not where.startswith(home + os.sep) and not any(cache in where for cache in _CACHES):
            seen.append(f"{event} {where}"[:200])


sys.addaudithook(_watch)  # which cannot be taken off again
