"""Methods by name: every class of the one list with its defaults, the published forms, and self-distilled ones."""

import difflib
from collections.abc import Callable
from typing import Any

from multimix.distill import SelfDistilled
from multimix.methods import METHODS, Alternate, CutMix, DecoupledMixup, DenseMultiMix, Mixup, MultiMix, Ramp, Until
from multimix.protocols import Method


def multimix_paper() -> Alternate:
    """Return MultiMix as published: alpha in (0.5, 2), n = 1000 on each device, half of the steps input mixup."""
    published = MultiMix(alpha=(0.5, 2.0), balanced=False, tuples_over="device")
    return Alternate((published, Mixup(alpha=2.0)), (0.5, 0.5))


def dense_multimix_paper() -> Alternate:
    """Return Dense MultiMix as published: as MultiMix, at every position, weighed by GAP attention."""
    return Alternate((DenseMultiMix(alpha=(0.5, 2.0), tuples_over="device"), Mixup(alpha=2.0)), (0.5, 0.5))


def multimix_balanced() -> MultiMix:
    """Return MultiMix with the published concentration, n = 4000, and its gradient balanced."""
    return MultiMix(alpha=(0.5, 2.0), tuples=4000, balanced=True)


def multimix_recommended() -> MultiMix:
    """Return what our studies prefer as a loss alone: MultiMix with its defaults."""
    return MultiMix.recommended()


def mixup_or_cutmix() -> Alternate:
    """Return what our studies prefer on mixed inputs: Mixup or CutMix by the flip of a coin in every step."""
    return Alternate((Mixup(alpha=0.5), CutMix()))


_METHODS: dict[str, Callable[[], Method]] = {
    **{cls.name: cls for cls in METHODS},
    "multimix-balanced": multimix_balanced,
    "multimix-recommended": multimix_recommended,
    "mixup-or-cutmix": mixup_or_cutmix,
    "multimix-paper": multimix_paper,
    "dense-multimix-paper": dense_multimix_paper,
}

METHOD_NAMES: tuple[str, ...] = tuple(_METHODS)
"""Every name that :func:`method_named` knows; each also behind those of :data:`AROUND`, as in ``until-mixup``."""

AROUND: dict[str, Callable[[Any], Method]] = {
    **{cls.name.removeprefix("self-"): cls for cls in (SelfDistilled, Ramp, Until)},
    "decoupled": DecoupledMixup,
}
"""What a method may be put into by name, with its defaults: any, and one that mixes pairs into the last."""


def about_method(name: str) -> str:
    """Return what a name stands for, in one line."""
    return (_METHODS[name].__doc__ or "").strip().splitlines()[0].removeprefix("Return ")


def parted(name: str) -> tuple[str, str]:
    """Return what a name is put into by what it begins with, or nothing, and the name inside."""
    first, dash, rest = name.partition("-")
    return (first, rest) if dash and first in AROUND else ("", name)


def method_named(name: str) -> Method:
    """Return the method of a name; ``distilled-NAME`` is NAME, self-distilled.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If a method cannot be put into the other, as one that mixes no pairs into ``decoupled-``.
    """
    around, plain = parted(name.lower().replace("_", "-"))
    if around:
        return AROUND[around](method_named(plain))
    if plain in _METHODS:
        return _METHODS[plain]()
    near = difflib.get_close_matches(plain, METHOD_NAMES, n=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else ";"
    forms = " or ".join(f"{around}-NAME" for around in AROUND)
    raise ValueError(f"unknown method {name!r}{hint} known are {', '.join(METHOD_NAMES)}, also as {forms}")
