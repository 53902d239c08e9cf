"""What of a configuration is from files of a user's own, which a run keeps, and runs again only when trusted."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from inspect import isclass, signature
from typing import Any, cast

from multimix.distill import SelfDistilled
from multimix.lab._code import Reference, Sources, find, program_of, split_reference
from multimix.lab.data import own_data
from multimix.lab.train.config import TrainConfig
from multimix.names import method_named
from multimix.protocols import Losses, Method

_DISTILLED = "distilled-"


@dataclass(frozen=True)
class NotRun:
    """Stands for a method of a user's own whose file nobody has said may be run; whatever needs no training goes on."""

    written: Mapping[str, Any]
    """The method as JSON."""

    @property
    def name(self) -> str:
        """Return the file and the class."""
        return str(self.written["type"])

    def __call__(self, *_: Any, **__: Any) -> Losses:
        """Raise ValueError."""
        raise ValueError(f"{self.name} is code of a run's own, which is not run without trust_code=True")


def method_from(text: str) -> tuple[Method, str]:
    """Return the method of a name or of ``FILE.py:CLASS``, each also behind ``distilled-``, and what tables call it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the name is unknown, or the file holds no such method; in one line.
    """
    if not split_reference(text):
        return method_named(text), text
    if text.startswith(_DISTILLED):
        method, label = method_from(text.removeprefix(_DISTILLED))
        return SelfDistilled(cast("Any", method), warmup=True), f"{_DISTILLED}{label}"
    reference = find(text, "method (a dataclass with a name and a __call__)", _is_method)
    method = _made(reference, reference.resolve())
    return method, method.name


def _is_method(value: Any) -> bool:
    return isclass(value) and is_dataclass(value) and isinstance(getattr(value, "name", None), str) and _calls(value)


def _calls(cls: Any) -> bool:
    """Return whether instances can be called as methods are."""
    try:
        signature(cls.__call__).bind(None, "network", "inputs", "targets", generator=None, teacher=None)
    except (TypeError, ValueError):
        return False
    return True


def _made(reference: Reference, value: Any) -> Method:
    if not _is_method(value):
        raise ValueError(
            f"{reference} must be a method: a dataclass with the text name and"
            f" __call__(network, inputs, targets, *, generator=None, teacher=None); got {value!r}"
        )
    if not re.fullmatch(r"[\w.+-]+", value.name):
        raise ValueError(
            f"{reference}: name must be letters, digits and . _ + -, as it names folders; got {value.name!r}"
        )
    try:
        return value()
    except TypeError as error:
        raise ValueError(f"{reference}: every field must have a default: {error}") from error


def with_own_data(config: TrainConfig) -> TrainConfig:
    """Return a configuration whose data, where they are ``FILE.py:FUNCTION``, are bound to that file as it is now.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no such function, or two of the user's files have the same name; in one line.
    """
    if not isinstance(config.data, Reference) and split_reference(config.data):
        config = replace(config, data=own_data(config.data))
    code_of(config)  # which finds files of the same name before anything is run for hours
    return config


def code_of(*parts: Any) -> dict[str, bytes]:
    """Return every file of the user's that configurations, or parts of them, are made of.

    Raises:
        ValueError: If two files have the same name.
    """
    code: dict[str, bytes] = {}
    for sources in (sources for part in parts for sources in _sources(part)):
        for name, source in sources.items():
            if code.setdefault(name, source) != source:
                raise ValueError(f"two files of a run must not both be called {name}: rename one of them")
    return code


def _sources(value: Any) -> Iterator[Sources]:
    if isinstance(value, Reference):
        yield value.code.sources
    elif isinstance(value, tuple):
        for item in value:
            yield from _sources(item)
    elif is_dataclass(value) and not isinstance(value, type):
        if found := program_of(type(value)):
            yield found[0].sources
        for f in fields(value):
            yield from _sources(getattr(value, f.name))


def named_files(written: Any) -> set[str]:
    """Return the files of the user's that a reference, or a part of a configuration as JSON, names."""
    if isinstance(written, str):
        found = split_reference(written)
        return {found[0]} if found else set()
    inner: list[Any] = []
    if isinstance(written, dict):
        inner = [written.get("type"), *(item for item in written.values() if isinstance(item, (dict, list)))]
    elif isinstance(written, list):
        inner = [item for item in written if isinstance(item, (dict, list))]
    return {file for item in inner for file in named_files(item)}
