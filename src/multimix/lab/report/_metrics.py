"""What is known of a metric by its name, and in which order and with how many decimals metrics are shown."""

import math
from collections.abc import Iterable
from dataclasses import replace

from multimix.lab.report._known import COST, KNOWN, QUALITY, TRAINING, WORDS, Metric
from multimix.lab.report._text import clean

__all__ = ["Metric", "capital", "decimals", "in_order", "in_words", "metric", "spoken"]

_UNKNOWN = "Not described by this version of MultiMix; shown as recorded."
_OF = {
    "teacher": "Of the teacher, whose weights are a running average.",
    "ema": "Of the network with the running average of the weights.",
    "validation": "On the validation split.",
}


def metric(name: str) -> Metric:
    """Return what is known of a metric.

    ``pgd/linf/accuracy`` and ``teacher_accuracy`` take unit and direction from the metric they end with; a name that is
    wholly unknown is shown as it is, without a direction.
    """
    if name in KNOWN:
        return KNOWN[name]
    path, _, last = name.rpartition("/")
    if path and metric(last).meaning != _UNKNOWN:
        return _derived(name, in_words(path), metric(last))
    for base in QUALITY:
        prefix = name.removesuffix(f"_{base.name}")
        if prefix != name:
            return _derived(name, clean(prefix.replace("_", " ")), base, prefix)
    return Metric(name, clean(name), _UNKNOWN)


def in_words(path: str) -> str:
    """Return the words of a name for people: ``pgd/linf`` is ``PGD l-inf``."""
    return clean(" ".join(WORDS.get(word, word.replace("_", " ")) for word in path.split("/")))


def capital(words: str) -> str:
    """Return words with a capital in front, as a heading has it."""
    if words == "ema":
        return "EMA"
    return words if words[:1] == "k" and words[1:2].isupper() else words[:1].upper() + words[1:]


def spoken(title: str) -> str:
    """Return a title as it stands inside a sentence: ``accuracy``, but ``NLL``."""
    return title if title[1:2].isupper() else title[:1].lower() + title[1:]


def _derived(name: str, words: str, base: Metric, prefix: str = "") -> Metric:
    meaning = f"{base.meaning} {_OF.get(prefix, f'Under: {words}.')}"
    return replace(base, name=name, title=f"{capital(words)} {spoken(base.title)}", meaning=meaning)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return metric names as columns stand: quality first, then whatever else was measured, then cost."""
    first, last = [m.name for m in QUALITY], [m.name for m in (*TRAINING, *COST)]

    def place(name: str) -> tuple[int, int, str]:
        if name in first:
            return 0, first.index(name), name
        return (2, last.index(name), name) if name in last else (1, 0, name)

    return tuple(sorted(set(names), key=place))


def decimals(shown: Metric, values: Iterable[float]) -> int:
    """Return the decimals for values in the shown unit: the metric's own, else three significant digits."""
    if shown.digits is not None:
        return shown.digits
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest == 0.0:
        return 0
    return min(max(2 - math.floor(math.log10(largest)), 0), 8)
