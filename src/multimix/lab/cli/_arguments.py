"""Command lines: a few arguments of each command, and any field of a configuration."""

import contextlib
import io
import re
from dataclasses import field, fields, is_dataclass, make_dataclass, replace
from typing import Any, TypeVar, cast

import tyro

from multimix.lab._code import find_made, program_of, split_reference
from multimix.lab.recipes import recipe_named
from multimix.lab.train import TrainConfig
from multimix.lab.train.config import TrainingMethod
from multimix.lab.train.own import code_of, method_from
from multimix.protocols import Method

T = TypeVar("T")


def configured(recipe: str, method: str | None, arguments: list[str], *, prog: str) -> TrainConfig:
    """Return a recipe's configuration with another method, if named, and its fields overridden by arguments.

    Raises:
        ValueError: If a name, a field or a value is wrong.
    """
    config = _recipe(recipe)
    if method is not None:
        chosen, label = method_from(method)
        config = replace(config, method=cast("TrainingMethod", chosen), label=label)
    inner, outer = _split(arguments, _OWN if code_of(config.method) else _INSIDE)
    if inner:
        config = replace(config, method=_override_inside(config.method, inner, prog=prog))
    return override(config, outer, prog=prog)


def _recipe(text: str) -> TrainConfig:
    """Return the configuration of a recipe by its name or in a file of the user's."""
    if not split_reference(text):
        return recipe_named(text)
    config, file = find_made(text, "recipe", TrainConfig)
    return replace(config, recipe=file)


def override(value: T, arguments: list[str], *, prog: str) -> T:
    """Return a dataclass with the fields that ``--name value`` arguments give.

    Raises:
        ValueError: If a field or a value is wrong, in one line.
        SystemExit: After ``--help``.
    """
    said = io.StringIO()
    form = _form(value)
    try:
        with contextlib.redirect_stderr(said):
            options = (tyro.conf.AvoidSubcommands,)
            changed = tyro.cli(type(form), default=form, args=arguments, config=options, prog=prog, description="")
            return changed if form is value else _like(value, changed)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_one_line(said.getvalue())) from None


def _form(value: T) -> T:
    """Return a dataclass for tyro, whose annotations have the user's classes; what holds them deeper is left alone."""
    held = [f.name for f in fields(cast("Any", value)) if _holds_own(getattr(value, f.name))]
    if not held:
        return value
    kind: Any = type(value)
    fixed: Any = tyro.conf.Fixed
    kinds = {name: type(getattr(value, name)) for name in held}
    own: list[tuple[str, Any, Any]] = [
        (name, cls if program_of(cls) else fixed[Any], field(default=None)) for name, cls in kinds.items()
    ]
    form = make_dataclass(kind.__name__, own, bases=(kind,), frozen=kind.__dataclass_params__.frozen, eq=False)
    return _like(value, value, form)


def _holds_own(value: object) -> bool:
    return not isinstance(value, str) and bool(code_of(value))


def _like(value: T, given: Any, kind: Any = None) -> T:
    """Return a ``kind``, by default that of ``value``, with what ``given`` has in its fields."""
    return cast("T", (kind or type(value))(**{f.name: getattr(given, f.name) for f in fields(cast("Any", value))}))


def _one_line(box: str) -> str:
    """Return the message inside the box that tyro prints, whose rules are of dashes where Unicode is not at hand."""
    blocks: list[list[str]] = [[]]
    for row in (row.strip(" │") for row in box.splitlines()):
        if row.startswith(("╭", "╰")) or re.fullmatch(r"[─-]{5,}", row):
            blocks.append([])
        elif row:
            blocks[-1].append(row)
    texts = [" ".join(block) for block in blocks if block]
    message, *rest = texts if box.startswith("╭") else texts[1:]  # with Unicode, the title is part of a rule
    message = message.rstrip(".")
    hint = next((text for text in rest if text.startswith("Perhaps")), "")
    close = re.search(r" (--[\w.-]+)", hint) if message.startswith("Unrecognized") else None
    return f"{message}; did you mean {close[1]}?" if close else message


_INSIDE = r"(method|first|then|methods\.\d+)\.(.+)"
"""Where the methods inside a method are: in its fields of these names."""
_OWN = r"(.+)"
"""A method of the user's own, or around one, takes all fields itself, which tyro does not see."""


def _split(arguments: list[str], inside: str) -> tuple[list[str], list[str]]:
    """Part the arguments ``--method.INSIDE``, less ``method.``, from all others."""
    inner: list[str] = []
    outer: list[str] = []
    target = outer
    for argument in arguments:
        if argument.startswith("--"):
            found = re.match(rf"--method\.({inside})", argument)
            target = inner if found else outer
            argument = f"--{found[1]}" if found else argument
        target.append(argument)
    return inner, outer


def _override_inside(method: Any, arguments: list[str], *, prog: str, path: str = "method") -> Any:
    """Override fields of a method and of those inside it, at any depth.

    The command line calls the method ``path`` and what it is made of ``--method.method.tuples`` and
    ``--method.methods.0.alpha``.
    """
    own, groups = _grouped(arguments)
    for name, group in groups.items():
        field, _, index = name.partition(".")
        value = _inside(method, field, index, path)
        chosen = value[int(index)] if index else value
        changed = _override_inside(chosen, group, prog=prog, path=f"{path}.{name}")
        method = _with(method, field, tuple(changed if v is chosen else v for v in value) if index else changed)
    try:
        return override(method, own, prog=prog) if own else method
    except ValueError as error:
        raise ValueError(str(error).replace("--", f"--{path}.")) from None


def _grouped(arguments: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Part a method's own arguments from those of each method inside it, less its name."""
    own: list[str] = []
    groups: dict[str, list[str]] = {}
    target = own
    for argument in arguments:
        if argument.startswith("--"):
            inside = re.match(f"--{_INSIDE}", argument)
            target = groups.setdefault(inside[1], []) if inside else own
            argument = f"--{inside[2]}" if inside else argument
        target.append(argument)
    return own, groups


def _inside(method: Method, field: str, index: str, path: str) -> Any:
    """Return what a method holds in a field, if it does."""
    if not is_dataclass(method) or field not in {f.name for f in fields(method)}:
        raise ValueError(f"--{path}.{field} does not exist: {method.name} has no {field} inside")
    value = getattr(method, field)
    if index and int(index) >= len(value):
        raise ValueError(f"--{path}.{field}.{index} does not exist: there are {len(value)} methods, counted from 0")
    return value


def _with(method: Any, field: str, value: Any) -> Any:
    given = {f.name: getattr(method, f.name) for f in fields(method)}
    return type(method)(**{**given, field: value})
