"""Words from the data, made harmless to print."""

import difflib
import re
from collections.abc import Iterable, Sequence

# Control characters, line and paragraph separators, turns of the writing direction, halves of pairs, no characters.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def clean(text: str) -> str:
    """Return text without what could move a cursor, break a line, turn the direction of writing, or not be encoded."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def counted(number: int, what: str) -> str:
    """Return ``1 seed``, ``2 seeds``."""
    return f"{number} {what}{'s' * (number != 1)}"


def listed(words: Sequence[str]) -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def shortened(words: str, limit: int) -> str:
    """Return words, cut with an ellipsis where they are longer than fits."""
    return words if len(words) <= limit else words[: limit - 1] + "…"


def unknown(argument: str, given: str, known: Iterable[str]) -> str:
    """Return what an error says of a name that nothing has: the argument, the names there are, and what came."""
    known = list(dict.fromkeys(known))
    near = difflib.get_close_matches(given, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return clean(f"{argument}: expected one of {', '.join(known)}, got {given!r}{hint}")
