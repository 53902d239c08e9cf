"""Configurations as JSON in which every dataclass carries the name of its class."""

from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from multimix.distill import SelfDistilled
from multimix.lab.train.config import SGD, AdamW, Cosine, Step, TrainConfig
from multimix.methods import METHODS, Alternate, Chain, Until

_WRITTEN = (*METHODS, Alternate, Chain, Until, SelfDistilled, SGD, AdamW, Step, Cosine, TrainConfig)
_CLASSES = {cls.__name__: cls for cls in _WRITTEN}


def to_json(value: Any) -> Any:
    """Return a configuration, or a part of one, as what ``json.dumps`` takes."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__, **{f.name: to_json(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


def from_json(value: Any) -> Any:
    """Return the configuration that :func:`to_json` wrote.

    Raises:
        ValueError: If a class or field is unknown, a field is missing, or a value is refused by its class.
    """
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    if not isinstance(value, dict):
        return value
    name = value.get("type")
    if not isinstance(name, str) or name not in _CLASSES:
        raise ValueError(f"a configuration must name a known class in 'type', got {name!r}")
    cls = _CLASSES[name]
    given = {key: from_json(item) for key, item in value.items() if key != "type"}
    _check_fields(cls, given)
    return cls(**given)


def _check_fields(cls: type, given: dict[str, Any]) -> None:
    known = {f.name: f for f in fields(cls)}
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(known)}")
    needed = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in given]
    if needed:
        raise ValueError(f"{cls.__name__} needs {', '.join(needed)}")
