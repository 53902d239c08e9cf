"""Methods by name: every class of the one list with its defaults, the published forms, and self-distilled ones."""

import difflib
from collections.abc import Callable

from multimix.distill import SelfDistilled
from multimix.methods import METHODS, Alternate, DenseMultiMix, Mixup, MultiMix
from multimix.protocols import Method


def multimix_paper() -> Alternate:
    """Return MultiMix as published: alpha in (0.5, 2), n = 1000 on each device, half of the steps input mixup."""
    return Alternate((MultiMix(alpha=(0.5, 2.0), tuples_over="device"), Mixup(alpha=2.0)), (0.5, 0.5))


def dense_multimix_paper() -> Alternate:
    """Return Dense MultiMix as published: as MultiMix, at every position, weighed by GAP attention."""
    return Alternate((DenseMultiMix(alpha=(0.5, 2.0), tuples_over="device"), Mixup(alpha=2.0)), (0.5, 0.5))


def multimix_balanced() -> MultiMix:
    """Return MultiMix with the published concentration, n = 4000, and its gradient balanced."""
    return MultiMix(alpha=(0.5, 2.0), tuples=4000, balanced=True)


def multimix_recommended() -> MultiMix:
    """Return the balanced form, half of the loss clean, its logits scaled to tend to a confidence of 0.9."""
    return MultiMix.recommended()


_METHODS: dict[str, Callable[[], Method]] = {
    **{cls.name: cls for cls in METHODS},
    "multimix-balanced": multimix_balanced,
    "multimix-recommended": multimix_recommended,
    "multimix-paper": multimix_paper,
    "dense-multimix-paper": dense_multimix_paper,
}

METHOD_NAMES: tuple[str, ...] = tuple(_METHODS)
"""Every name that :func:`method_named` knows; each also with ``distilled-`` before it."""


def about_method(name: str) -> str:
    """Return what a name stands for, in one line."""
    return (_METHODS[name].__doc__ or "").strip().splitlines()[0].removeprefix("Return ")


def method_named(name: str) -> Method:
    """Return the method of a name; ``distilled-NAME`` is NAME, self-distilled. ValueError if the name is unknown."""
    plain = name.lower().replace("_", "-")
    if plain.startswith("distilled-"):
        return SelfDistilled(method_named(plain.removeprefix("distilled-")))
    if plain in _METHODS:
        return _METHODS[plain]()
    near = difflib.get_close_matches(plain, METHOD_NAMES, n=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else ";"
    raise ValueError(f"unknown method {name!r}{hint} known are {', '.join(METHOD_NAMES)}, each also as distilled-NAME")
