"""Words of tables and figures: texts made harmless to print, and metrics with what is known of them."""

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from multimix.lab.about import SUITES
from multimix.lab.about.kinds import Description, Metric

# Control characters, line and paragraph separators, turns of the writing direction, halves of pairs, no characters.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_UNKNOWN = "Not described by this version of MultiMix; shown as recorded."
_OF = {
    "teacher": "Of the teacher, whose weights are a running average.",
    "ema": "Of the network with the running average of the weights.",
    "validation": "On the validation split.",
}
QUALITY = SUITES["accuracy"].metrics
COST = (
    Metric("train_loss", "Training loss", "What the method minimises, mean over an epoch.", "lower", 3),
    Metric(
        "step_seconds", "Step", "Training time divided by the number of batches.", "lower", unit="ms", factor=1000.0
    ),
    Metric("seconds", "Training", "Wall-clock time of training, without validation and test.", "lower", unit="s"),
    Metric(  # No direction: of runs in one process, the later ones show the earlier ones' peak.
        "peak_mib",
        "Peak memory",
        "Most memory held: the device's on a GPU, else the process's; earlier runs of the same process count.",
        digits=0,
        unit="MiB",
    ),
)
_KNOWN = {known.name: known for known in (*COST, *(known for suite in SUITES.values() for known in suite.metrics))}
_WORDS = {word: written for suite in SUITES.values() for word, written in suite.words.items()}


def clean(text: str) -> str:
    """Return text without what could move a cursor, break a line, turn the direction of writing, or not be encoded."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def counted(number: int, what: str) -> str:
    """Return ``1 seed``, ``2 seeds``."""
    return f"{number} {what}{'s' * (number != 1)}"


def spanned(numbers: Iterable[int]) -> str:
    """Return ``2``, or ``2 to 5``."""
    ends = sorted(set(numbers))
    return " to ".join(map(str, dict.fromkeys((ends[0], ends[-1]))))


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


def in_words(path: str) -> str:
    """Return the words of a name for people: ``pgd/linf`` is ``PGD l-inf``."""
    return clean(" ".join(_WORDS.get(word, word.replace("_", " ")) for word in path.split("/")))


def capital(words: str) -> str:
    """Return words with a capital in front, as a heading has it."""
    if words == "ema":
        return "EMA"
    return words if words[:1] == "k" and words[1:2].isupper() else words[:1].upper() + words[1:]


def suite_named(name: str) -> Description:
    """Return what a suite says of itself; one that nobody described has a title alone."""
    meaning = "A suite that this version of MultiMix does not describe; shown as recorded."
    return SUITES.get(name) or Description(capital(in_words(name)), meaning)


def metric(name: str) -> Metric:
    """Return what is known of a metric.

    ``pgd/linf/accuracy`` and ``teacher_accuracy`` take unit and direction from the metric they end with; a name that is
    wholly unknown is shown as it is, without a direction.
    """
    if name in _KNOWN:
        return _KNOWN[name]
    path, _, last = name.rpartition("/")
    if path and metric(last).meaning != _UNKNOWN:
        base, words, of = metric(last), in_words(path), ""
    elif found := [known for known in QUALITY if name.endswith(f"_{known.name}")]:
        base, of = found[0], name.removesuffix(f"_{found[0].name}")
        words = clean(of.replace("_", " "))
    else:
        return Metric(name, clean(name), _UNKNOWN)
    meaning = f"{base.meaning} {_OF.get(of, f'Under: {words}.')}"
    return replace(base, name=name, title=f"{capital(words)} {base.spoken}", meaning=meaning)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return metric names as columns stand: quality first, then whatever else was measured, then cost."""
    order = [*(known.name for known in QUALITY), "", *(known.name for known in COST)]
    return tuple(sorted(set(names), key=lambda name: (order.index(name if name in order else ""), name)))


def decimals(shown: Metric, values: Iterable[float]) -> int:
    """Return the decimals for values in the shown unit: the metric's own, else three significant digits."""
    if shown.digits is not None:
        return shown.digits
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return min(max(2 - math.floor(math.log10(largest)), 0), 8) if largest else 0
