"""Configurations as JSON in which every dataclass carries the name of its class."""

from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from multimix.distill import SelfDistilled
from multimix.lab._code import Code, Reference, program_of, split_reference
from multimix.lab.train.config import SGD, AdamW, Cosine, Step, TrainConfig
from multimix.lab.train.own import NotRun
from multimix.methods import METHODS, Alternate, Chain, Until

_WRITTEN = (*METHODS, Alternate, Chain, Until, SelfDistilled, SGD, AdamW, Step, Cosine, TrainConfig)
_CLASSES = {cls.__name__: cls for cls in _WRITTEN}

_RENAMED = {"probability": "prob"}
"""Fields of methods by the name that earlier records have, with the name of today."""


_FILES = ("data", "recipe")
"""Fields of a configuration that may name a file of the user's."""


def to_json(value: Any) -> Any:
    """Return a configuration, or a part of one, as what ``json.dumps`` takes.

    Raises:
        ValueError: If a value is none that JSON has.
    """
    if isinstance(value, NotRun):
        return dict(value.written)
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": _name(type(value)), **{f.name: to_json(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ValueError(f"a setting must be a number, a text, None, a tuple or a dataclass of such, got {value!r}")


def _name(cls: type) -> str:
    found = program_of(cls)
    return found[1] if found else cls.__name__


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
    given = {_today(cls, key): from_json(item, code) for key, item in value.items() if key != "type"}
    _check_fields(cls, given)
    if cls is TrainConfig and code is not None:
        given |= {key: _bound(given[key], code) for key in _FILES if key in given}
    return cls(**given)


def _class(name: Any, code: Code | None) -> type:
    if code is not None and isinstance(name, str) and split_reference(name):
        found = code.resolve(name)
        if not isinstance(found, type) or not is_dataclass(found):
            raise ValueError(f"{name} must be a dataclass, got {found!r}")
        return found
    if not isinstance(name, str) or name not in _CLASSES:
        raise ValueError(f"a configuration must name a known class in 'type', got {name!r}")
    return _CLASSES[name]


def _bound(text: Any, code: Code) -> Any:
    """Return a text that names one of the files together with them."""
    found = split_reference(text) if isinstance(text, str) else None
    return Reference(text, code) if found and found[0] in code.sources else text


def _today(cls: type, key: str) -> str:
    """Return the name that a class has today for what a record calls ``key``."""
    known = {f.name for f in fields(cls)}
    new = _RENAMED.get(key)
    return new if new in known and key not in known else key


def _check_fields(cls: type, given: dict[str, Any]) -> None:
    known = {f.name: f for f in fields(cls)}
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(known)}")
    needed = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in given]
    if needed:
        raise ValueError(f"{cls.__name__} needs {', '.join(needed)}")
