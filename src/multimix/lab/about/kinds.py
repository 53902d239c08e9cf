"""What a suite says of itself for people: its metrics, its tables and its figures, each of a known kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Metric:
    """How a metric is shown, and what it means."""

    name: str
    """The name in the records."""
    title: str
    """The name for people."""
    meaning: str
    """One sentence."""
    better: Better | None = None
    """Which values are better; None where nobody can say."""
    digits: int | None = None
    """Decimals as shown; None chooses them by the size of the values."""
    unit: str = ""
    """Unit as shown, after ``factor``."""
    factor: float = 1.0
    """From the record's unit to the shown one."""

    @property
    def quantity(self) -> str:
        """Title and unit, for an axis."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def spoken(self) -> str:
        """Title as it stands inside a sentence: ``accuracy``, but ``NLL``."""
        return self.title if self.title[1:2].isupper() else self.title[:1].lower() + self.title[1:]

    def of(self, value: float) -> str:
        """Title and a value, in a line of text: ``accuracy 97.12 %``, ``NLL 0.1021``."""
        return f"{self.spoken} {self.factor * value:.2f} {self.unit}" if self.unit else f"{self.spoken} {value:.4f}"

    @property
    def heading(self) -> str:
        """Title, unit and an arrow in the better direction, for a column."""
        return self.quantity + {"higher": " ↑", "lower": " ↓", None: ""}[self.better]


def percent(name: str, title: str, meaning: str, better: Better | None = None, digits: int = 1) -> Metric:
    """Return a metric that is recorded as a fraction and shown in percent."""
    return Metric(name, title, meaning, better, digits, unit="%", factor=100.0)


@dataclass(frozen=True)
class Table:
    """One table: it shows the metrics whose path, their name without the suite's, matches its pattern and is new.

    The pattern's named groups say where a metric stands. ``line`` names the line of a method, ``metric`` or ``column``
    the column, headed by what is known of that metric or by the words of the path. Without any of them, every metric
    is a column of its own.
    """

    pattern: str
    title: str = ""  # what the table shows, with ``{metric}`` for the metric's heading; empty where its columns say it
    key: str = ""  # heading of what tells the lines of one method apart
    bare: str = "–"  # the line of metrics whose path has no words for it
    column: str = "{}"  # heading of a column made of its words
    first: str | None = None  # the column that stands before the others
    more: bool = False  # whether it is for those who want to know everything


@dataclass(frozen=True)
class Figure:
    """A figure for data that a suite records under a name that fits the shell pattern ``name``."""

    name: str = field(default="*", kw_only=True)
    _keys: ClassVar[str]

    @property
    def keys(self) -> set[str]:
        """What the data must hold."""
        return set(self._keys.format_map(vars(self)).split())


@dataclass(frozen=True)
class Curve(Figure):
    """Accuracy over the numbers under ``x``, one line a method.

    ``{key}`` in axis and title stands for what the data say under that key of ``words``, whose value is said where they
    do not agree. Data that hold ``levels`` (key, value) are differences of pixels, shown in levels of 1/255.
    """

    x: str
    axis: str
    title: str
    factor: float = 1.0
    words: Mapping[str, str] = field(default_factory=dict)
    levels: tuple[str, str] | None = None
    _keys = "{x} accuracy"


@dataclass(frozen=True, kw_only=True)
class HeatMap(Figure):
    """Accuracy by line and column with the numbers written in, and without any of it, one figure a method."""

    lines: str
    line: str
    columns: str
    column: str
    reference: str
    _keys = "{lines} {columns} accuracy"


@dataclass(frozen=True)
class Reliability(Figure):
    """Accuracy beside confidence in bins of confidence, one figure a method; ``when`` says of which probabilities."""

    when: str
    _keys = "edges confidence accuracy count"


@dataclass(frozen=True)
class Scores(Figure):
    """ROC curves of the score that is best ``by`` a metric, and its histograms on the test set and on another."""

    by: str
    _keys = "scores"


@dataclass(frozen=True)
class Scatter(Figure):
    """Examples as points in the plane, told apart by class, one figure a method."""

    what: str
    _keys = "x y label"


@dataclass(frozen=True)
class Histogram(Figure):
    """How often values lie in bins, one line for every key but the edges, one figure a method."""

    axis: str
    title: str
    _keys = "edges"


@dataclass(frozen=True)
class PerClass(Figure):
    """A share of every class under ``key``, a line a class and a mark a method; ``note`` is said below."""

    key: str
    title: str
    note: str = ""
    _keys = "classes {key}"


@dataclass(frozen=True)
class Confusion(Figure):
    """How often images of one class are taken for another, as counts of pairs, one figure a method."""

    _keys = "classes true predicted count"


@dataclass(frozen=True)
class Gallery(Figure):
    """PNG pictures as base64 text with true class, predicted class and its probability, one figure a method."""

    title: str
    _keys = "pictures names true predicted probability"


@dataclass(frozen=True)
class Description:
    """Everything that is said of a suite, in any place: command line, records and report take it from here."""

    title: str
    meaning: str  # what the suite does and how to read it, in one paragraph
    measure: str = ""  # the class that measures, as "module:class"
    metrics: tuple[Metric, ...] = ()  # the metrics that no other suite has, by the last word of their paths
    tables: tuple[Table, ...] = ()  # its tables; a metric that none of them shows stands in one more
    figures: tuple[Figure, ...] = ()  # its figures; the first that fits the data draws them
    words: Mapping[str, str] = field(default_factory=dict)  # how words of its paths and data are spelt
    note: Callable[[Mapping[str, Any]], str] | None = None  # says what a reader has to know of its settings
    says: Callable[[Mapping[str, Any]], str] | None = None  # puts its record of a run into words
