"""Command lines: a few arguments of each command, and any field of a configuration."""

import contextlib
import io
import re
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

import tyro

from multimix.protocols import Method
from multimix.recipes import method_named, recipe_named
from multimix.train import TrainConfig
from multimix.train.config import TrainingMethod

T = TypeVar("T")


def configured(recipe: str, method: str | None, arguments: list[str], *, prog: str) -> TrainConfig:
    """Return a recipe's configuration with another method, if named, and its fields overridden by arguments.

    Raises:
        ValueError: If a name, a field or a value is wrong.
    """
    config = recipe_named(recipe)
    if method is not None:
        config = replace(config, method=cast("TrainingMethod", method_named(method)), label=method)
    inner, outer = _split(arguments)
    if inner:
        config = replace(config, method=_override_inside(config.method, inner, prog=prog))
    return override(config, outer, prog=prog)


def override(value: T, arguments: list[str], *, prog: str) -> T:
    """Return a dataclass with the fields that ``--name value`` arguments give.

    Raises:
        ValueError: If a field or a value is wrong, in one line.
        SystemExit: After ``--help``.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = (tyro.conf.AvoidSubcommands,)
            return tyro.cli(type(value), default=value, args=arguments, config=options, prog=prog, description="")
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_one_line(said.getvalue())) from None


def _one_line(box: str) -> str:
    """Return the message inside the box that tyro prints."""
    rows = [re.sub(r"^│\s?|\s*│$", "", row).strip() for row in box.splitlines() if row[:1] not in "╭╰"]
    ruler = next((at for at, row in enumerate(rows) if row.startswith("──")), len(rows))
    message = " ".join(rows[:ruler]).rstrip(".")
    if not message.startswith("Unrecognized"):
        return message
    close = next((f"; did you mean {found[1]}?" for row in rows if (found := re.match(r"(--[\w.-]+) ", row))), "")
    return message + close


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Part the arguments that reach into a method inside a method from all others."""
    inner: list[str] = []
    outer: list[str] = []
    target = outer
    for argument in arguments:
        if argument.startswith("--"):
            inside = re.match(r"--(no-)?method\.(method|then|methods\.\d+)\.", argument)
            target = inner if inside else outer
        target.append(argument)
    return inner, outer


def _override_inside(method: Any, arguments: list[str], *, prog: str) -> Any:
    """Override fields of a method's own methods: ``--method.method.tuples 5``, ``--method.methods.0.alpha 1``."""
    groups: dict[str, list[str]] = {}
    name = ""
    for argument in arguments:
        if argument.startswith("--"):
            match = re.match(r"--(no-)?method\.(method|then|methods\.\d+)\.(.*)", argument)
            negated, name, rest = match.groups() if match else ("", name, "")
            argument = f"--{negated or ''}{rest}"
        groups.setdefault(name, []).append(argument)
    for name, group in groups.items():
        field, _, index = name.partition(".")
        _require_field(method, field)
        value = getattr(method, field)
        if index:
            changed = list(value)
            if int(index) >= len(changed):
                raise ValueError(f"--method.{name} does not exist: there are {len(changed)} methods, counted from 0")
            changed[int(index)] = override(changed[int(index)], group, prog=prog)
            method = _with(method, field, tuple(changed))
        else:
            method = _with(method, field, override(value, group, prog=prog))
    return method


def _require_field(method: Method, field: str) -> None:
    if not is_dataclass(method) or field not in {f.name for f in fields(method)}:
        raise ValueError(f"--method.{field} does not exist: {method.name} has no {field} inside")


def _with(method: Any, field: str, value: Any) -> Any:
    given = {f.name: getattr(method, f.name) for f in fields(method)}
    return type(method)(**{**given, field: value})
