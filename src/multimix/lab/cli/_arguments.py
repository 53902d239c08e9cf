"""Command lines: a few arguments of each command, and any field of a configuration."""

import contextlib
import io
import re
from collections.abc import Callable
from dataclasses import field, fields, make_dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeVar, cast

import tyro

from multimix.lab._code import find_made, program_of, split_reference
from multimix.lab.cli.data import table
from multimix.lab.recipes import for_data, is_own, recipe_named
from multimix.lab.runs.codec import code_of, method_from
from multimix.lab.train import SGD, AdamW, Cosine, Step, TrainConfig
from multimix.lab.train.objective import OBJECTIVES

T = TypeVar("T")
Say = Callable[..., None]

_CLASSES: dict[str, dict[str, Any]] = {
    field: {cls.__name__.lower(): cls for cls in classes}
    for field, classes in {
        "optimizer": (SGD, AdamW),
        "schedule": (Step, Cosine),
        "objective": tuple(OBJECTIVES),
    }.items()
}
"""Settings of which one of several classes is chosen by its name, in any case: ``--optimizer adamw``."""
_INSIDE = r"(?:method|first|then|otherwise|methods\.\d+)"
"""Where the methods inside a method are: in its fields of these names."""


def configured(
    recipe: str, method: str | None, arguments: list[str], *, prog: str, say: Say = lambda *_: None
) -> TrainConfig:
    """Return a recipe's configuration with another method, if named, and its fields overridden by arguments.

    ``say`` hears what a recipe that looks at data chose, and what the data hold.
    """
    if split_reference(recipe):
        config, file = find_made(recipe, "recipe", TrainConfig)
        config = replace(config, recipe=file)
    elif is_own(recipe):
        config = TrainConfig(recipe="folder", data=recipe)
        if not {"-h", "--help"} & set(arguments):
            config, lines = _chosen(override(config, _without_method(arguments), prog=prog))
            say(*lines)
    else:
        config = recipe_named(recipe)
    if method is not None:
        chosen, label = method_from(method)
        config = replace(config, method=cast("Any", chosen), label=label)
    # A method of the user's own, or around one, takes all its fields itself, as tyro does not see them.
    inside = r".+" if code_of(config.method) else rf"{_INSIDE}\..+"
    outer, inner = _parted(arguments, rf"--(method)\.({inside})")
    if inner:
        config = replace(config, method=_override_inside(config.method, inner["method"], prog=prog))
    return override(config, outer, prog=prog)


@lru_cache(maxsize=1)  # of several methods on one set, which is looked at once
def _chosen(config: TrainConfig) -> tuple[TrainConfig, tuple[str, ...]]:
    """Return a configuration for data of the user's, and what is said of both."""
    made = for_data(config)
    return made.config, (*(f"{config.data}: {reason}" for reason in made.reasons), *table(made.splits)[1:])


def _without_method(arguments: list[str]) -> list[str]:
    """Return arguments without those of fields of the method, which is not chosen yet."""
    return _parted(arguments, r"--(method)\.(.+)")[0]


def override(value: T, arguments: list[str], *, prog: str) -> T:
    """Return a dataclass with the fields that ``--name value`` arguments give; what is wrong is told in one line."""
    said = io.StringIO()
    for argument, after in pairwise([*arguments, "--"]):
        if after.startswith("--") and isinstance(getattr(value, argument.removeprefix("--"), None), tuple):
            raise ValueError(f"{argument} needs at least one value")  # tyro would take none of them
    value, arguments = _choose(value, arguments)
    form = _form(value)
    try:
        with contextlib.redirect_stderr(said):
            options = (tyro.conf.AvoidSubcommands,)
            changed = tyro.cli(
                type(form), default=form, args=arguments, config=options, prog=prog, description=_about(value)
            )
            return changed if form is value else _like(value, changed, type(value))
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(_one_line(said.getvalue())) from None


def _choose(value: T, arguments: list[str]) -> tuple[T, list[str]]:
    """Return a configuration with the classes that ``--FIELD CLASS`` names, and the arguments that are left."""
    rest, given = [], iter(arguments)
    for argument in given:
        name, equals, text = argument.partition("=")
        field, _, inside = name.removeprefix("--").partition(".")
        classes = _CLASSES.get(field, {}) if argument.startswith("--") and hasattr(value, field) else {}
        chosen: Any = None
        if classes and not inside:
            text = text if equals else next(given, "nothing")
            chosen = classes.get(re.sub("[-_]", "", text.lower()))
            if chosen is None:
                names = " or ".join(cls.__name__ for cls in classes.values())
                raise ValueError(f"--{field} must be {names}, got {text}")
        else:
            rest.append(argument)
            if classes and getattr(value, field) is None:  # the first that has such a field, or is told what it has
                having = (cls for cls in classes.values() if hasattr(cls, inside.replace("-", "_")))
                chosen = next(having, next(iter(classes.values())))
        if chosen and not isinstance(getattr(value, field), chosen):
            value = replace(cast("Any", value), **{field: chosen()})
    return value, rest


def _about(value: object) -> str:
    """Say in help which classes a configuration may hold."""
    choices = {field: [cls.__name__ for cls in found.values()] for field, found in _CLASSES.items()}
    lines = [f"--{field} {{{','.join(names)}}}" for field, names in choices.items() if hasattr(value, field)]
    return f"{'  '.join(lines)}  choose a class, --FIELD.NAME sets a field of it." if lines else ""


def _form(value: T) -> T:
    """Return a dataclass for tyro, whose annotations have the user's classes; what holds them deeper is left alone."""
    kind, fixed = cast("Any", type(value)), cast("Any", tyro.conf.Fixed)
    held = {f.name: getattr(value, f.name) for f in fields(kind)}
    own = {name: type(one) for name, one in held.items() if not isinstance(one, str) and code_of(one)}
    if not own:
        return value
    annotated = [(name, cls if program_of(cls) else fixed[Any], field(default=None)) for name, cls in own.items()]
    form = make_dataclass(kind.__name__, annotated, bases=(kind,), frozen=kind.__dataclass_params__.frozen, eq=False)
    return _like(value, value, form)


def _like(value: T, given: Any, kind: Any) -> T:
    """Return a ``kind`` with what ``given`` has in the fields of ``value``."""
    return cast("T", kind(**{f.name: getattr(given, f.name) for f in fields(cast("Any", value))}))


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
    message = message.partition(". Got errors:")[0].rstrip(".")
    hint = next((text for text in rest if text.startswith("Perhaps")), "")
    close = re.search(r" (--[\w.-]+)", hint) if message.startswith("Unrecognized") else None
    return f"{message}; did you mean {close[1]}?" if close else message


def _parted(arguments: list[str], pattern: str) -> tuple[list[str], dict[str, list[str]]]:
    """Part arguments ``--GROUP.REST``, as a pattern finds them, from all others: by GROUP, each as ``--REST``."""
    own: list[str] = []
    groups: dict[str, list[str]] = {}
    target = own
    for argument in arguments:
        if argument.startswith("--"):
            found = re.match(pattern, argument)
            target = groups.setdefault(found[1], []) if found else own
            argument = f"--{found[2]}{argument[found.end() :]}" if found else argument
        target.append(argument)
    return own, groups


def _override_inside(method: Any, arguments: list[str], *, prog: str, path: str = "method") -> Any:
    """Override fields of a method, named ``path``, and of those inside it, as in ``--method.methods.0.alpha``."""
    own, groups = _parted(arguments, rf"--({_INSIDE})\.(.+)")
    for name, group in groups.items():
        field, _, index = name.partition(".")
        held = {f.name: getattr(method, f.name) for f in fields(method)}
        if field not in held:
            raise ValueError(f"--{path}.{field} does not exist: {method.name} has no {field} inside")
        value = held[field]
        if index and int(index) >= len(value):
            there = f"there are {len(value)} methods, counted from 0"
            raise ValueError(f"--{path}.{field}.{index} does not exist: {there}")
        chosen = value[int(index)] if index else value
        changed = _override_inside(chosen, group, prog=prog, path=f"{path}.{name}")
        held[field] = tuple(changed if v is chosen else v for v in value) if index else changed
        method = type(method)(**held)
    try:
        return override(method, own, prog=prog) if own else method
    except ValueError as error:
        raise ValueError(str(error).replace("--", f"--{path}.")) from None
