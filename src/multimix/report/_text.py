"""Words from the data, made harmless to print."""

import re
from collections.abc import Sequence

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
