"""Configurations as JSON in which every dataclass carries the name of its class, and the user's own code in them.

A class from a user's file is written as ``FILE.py:CLASS``; the run folder keeps the file, and runs it again only when
trusted.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from inspect import isclass, signature
from typing import Any, TypeVar, cast

from multimix.distill import SelfDistilled
from multimix.lab._code import Code, Reference, find, program_of, split_reference
from multimix.lab.data import own_data
from multimix.lab.runs.optim import SGD, AdamW, Cosine, Step
from multimix.methods import METHODS, Alternate, Chain, Ramp, Until
from multimix.names import AROUND, method_named, parted
from multimix.protocols import Losses, Method

C = TypeVar("C")

_CLASSES: dict[str, type] = {
    cls.__name__: cls for cls in (*METHODS, Alternate, Chain, Ramp, Until, SelfDistilled, SGD, AdamW, Step, Cosine)
}
_RENAMED = {"probability": "prob", "tensorboard": "logger"}
"""Fields by the name that earlier records have, with the name of today."""


def register(cls: type[C]) -> type[C]:
    """Let :func:`from_json` read a dataclass; a decorator."""
    _CLASSES[cls.__name__] = cls
    return cls


@dataclass(frozen=True)
class NotRun:
    """Stands for a method of a user's own whose file nobody has said may be run; whatever needs no training goes on."""

    written: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return the file and the class."""
        return str(self.written["type"])

    def __call__(self, *_: Any, **__: Any) -> Losses:
        """Raise ValueError."""
        raise ValueError(f"{self.name} is code of a run's own, which is not run without trust_code=True")


def to_json(value: Any) -> Any:
    """Return a configuration, or a part of one, as what ``json.dumps`` takes.

    Raises:
        ValueError: If a value is none that JSON has.
    """
    if isinstance(value, NotRun):
        return dict(value.written)
    if is_dataclass(value) and not isclass(value):
        found = program_of(type(value))
        name = found[1] if found else type(value).__name__
        return {"type": name, **{f.name: to_json(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ValueError(f"a setting must be a number, a text, None, a tuple or a dataclass of such, got {value!r}")


def from_json(value: Any, code: Code | None = None) -> Any:
    """Return the configuration that :func:`to_json` wrote.

    Args:
        value: What was written.
        code: The user's own files, which are run where a class is from one; without them :class:`NotRun` stands for
            such a method, and nothing is run.

    Raises:
        ValueError: If a class or field is unknown, a field is missing, or a value is refused by its class.
    """
    if isinstance(value, list):
        return tuple(from_json(item, code) for item in value)
    if not isinstance(value, dict):
        return value
    name = value.get("type")
    if code is None and isinstance(name, str) and split_reference(name):
        return NotRun(value)
    cls = _class(name, code)
    known = {f.name: f for f in fields(cls)}
    given: dict[str, Any] = {}
    for key, item in value.items():
        today = _RENAMED.get(key)
        item = ["tensorboard"] * item if key == "tensorboard" else item  # True or False in older records
        given[today if today in known and key not in known else key] = from_json(item, code)
    del given["type"]
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(known)}")
    needed = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in given]
    if needed:
        raise ValueError(f"{cls.__name__} needs {', '.join(needed)}")
    return cls(**{key: _bound(key, item, code) for key, item in given.items()})


def _bound(field: str, value: Any, code: Code | None) -> Any:
    """Return a text that names one of the user's files together with them."""
    if code is None or field not in ("data", "recipe") or not isinstance(value, str):
        return value
    found = split_reference(value)
    return Reference(value, code) if found and found[0] in code.sources else value


def _class(name: Any, code: Code | None) -> Any:
    if isinstance(name, str) and code is not None and split_reference(name):
        found = code.resolve(name)
        if not isclass(found) or not is_dataclass(found):
            raise ValueError(f"{name} must be a dataclass, got {found!r}")
        return found
    if not isinstance(name, str) or name not in _CLASSES:
        raise ValueError(f"a configuration must name a known class in 'type', got {name!r}")
    return _CLASSES[name]


def code_of(*parts: Any) -> dict[str, bytes]:
    """Return every file of the user's that configurations, or parts of them, are made of."""
    code: dict[str, bytes] = {}
    for name, source in _sources(parts):
        if code.setdefault(name, source) != source:
            raise ValueError(f"two files of a run must not both be called {name}: rename one of them")
    return code


def _sources(value: Any) -> Iterator[tuple[str, bytes]]:
    inner: Iterable[Any] = value if isinstance(value, tuple) else ()
    if isinstance(value, Reference):
        yield from value.code.sources.items()
    elif is_dataclass(value) and not isclass(value):
        if found := program_of(type(value)):
            yield from found[0].sources.items()
        inner = (getattr(value, f.name) for f in fields(value))
    for item in inner:
        yield from _sources(item)


def named_files(written: Any) -> set[str]:
    """Return the files of the user's that a reference, or a part of a configuration as JSON, names."""
    if isinstance(written, str):
        found = split_reference(written)
        return {found[0]} if found else set()
    if isinstance(written, dict):
        inner = [item for key, item in written.items() if key == "type" or isinstance(item, (dict, list))]
    else:
        inner = [item for item in written if isinstance(item, (dict, list))] if isinstance(written, list) else []
    return {file for item in inner for file in named_files(item)}


def with_own_data(config: Any) -> Any:
    """Return a configuration whose data, where they are ``FILE.py:FUNCTION``, are bound to that file as it is now."""
    if not isinstance(config.data, Reference) and split_reference(config.data):
        config = replace(config, data=own_data(config.data))
    code_of(config)  # which finds files of the same name before anything is run for hours
    return config


def method_from(text: str) -> tuple[Method, str]:
    """Return the method of a name or of ``FILE.py:CLASS``, or around one as ``until-`` is, and what tables call it."""
    if not split_reference(text):
        return method_named(text), text
    around, inside = parted(text)
    if around:
        inner, label = method_from(inside)
        return AROUND[around](inner), f"{around}-{label}"
    reference = find(text, "method (a dataclass with a name and a __call__)", _is_method)
    cls = reference.resolve()
    if not _is_method(cls):
        raise ValueError(
            f"{reference} must be a method: a dataclass with the text name and"
            f" __call__(network, inputs, targets, *, generator=None, teacher=None); got {cls!r}"
        )
    if not re.fullmatch(r"[\w.+-]+", cls.name):
        raise ValueError(
            f"{reference}: name must be letters, digits and . _ + -, as it names folders; got {cls.name!r}"
        )
    try:
        method = cls()
    except TypeError as error:
        raise ValueError(f"{reference}: every field must have a default: {error}") from error
    return method, method.name


def _is_method(value: Any) -> bool:
    if not (isclass(value) and is_dataclass(value) and isinstance(getattr(value, "name", None), str)):
        return False
    try:
        signature(cast("Any", value).__call__).bind(None, "network", "inputs", "targets", generator=None, teacher=None)
    except (TypeError, ValueError):
        return False
    return True
