"""What a suite says of itself for people: its metrics, its tables and its figures, each of a known kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal


@dataclass(frozen=True)
class Metric:
    """How a metric is shown, and what it means."""

    name: str
    """The name in the records."""
    title: str
    """The name for people."""
    meaning: str
    """One sentence."""
    unit: str = ""
    """Unit as shown, after ``factor``."""
    better: Literal["higher", "lower"] | None = None
    """Which values are better; None where nobody can say."""
    factor: float = 1.0
    """From the record's unit to the shown one."""
    digits: int | None = None
    """Decimals as shown; None chooses them by the size of the values."""

    @property
    def quantity(self) -> str:
        """Title and unit, for an axis."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def heading(self) -> str:
        """Title, unit and an arrow in the better direction, for a column."""
        arrow = {"higher": " ↑", "lower": " ↓", None: ""}[self.better]
        return self.quantity + arrow


def percent(
    name: str, title: str, meaning: str, better: Literal["higher", "lower"] | None = None, digits: int = 1
) -> Metric:
    """Return a metric that is recorded as a fraction and shown in percent."""
    return Metric(name, title, meaning, "%", better, 100.0, digits)


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table: it shows the metrics whose path matches its pattern, as far as no table before it does.

    The pattern's named groups say where a metric stands. ``line`` names the line of a method, ``metric`` or ``column``
    the column, headed by what is known of that metric or by the words of the path. Without any of them, every metric
    is a column of its own.
    """

    pattern: str
    """Regular expression for the whole path of a metric, which is its name without the suite's."""
    title: str = ""
    """What the table shows, with ``{metric}`` for the metric's heading; empty where its columns say it."""
    key: str = ""
    """Heading of what tells the lines of one method apart."""
    bare: str = "–"
    """The line of metrics whose path has no words for it."""
    column: str = "{}"
    """Heading of a column made of its words."""
    first: str | None = None
    """The column that stands before the others."""
    more: bool = False
    """Whether it is for those who want to know everything."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure for the data that a suite records under a name."""

    name: str = "*"
    """Shell pattern of the names."""
    _keys: ClassVar[str]

    @property
    def keys(self) -> set[str]:
        """What the data must hold."""
        return set(self._keys.format_map(vars(self)).split())


@dataclass(frozen=True, kw_only=True)
class Curve(Figure):
    """Accuracy over something that grows, one line a method."""

    x: str
    """Key of the places."""
    axis: str
    """Words below; ``{key}`` stands for what the data say."""
    title: str
    """What is shown; ``{key}`` as above."""
    factor: float = 1.0
    """From the recorded places to the shown ones."""
    words: Mapping[str, str] = field(default_factory=dict)
    """The keys that stand in axis and title, each with what to say where the data do not agree."""
    levels: tuple[str, str] | None = None
    """(Key, value): data that have it are differences of pixels, shown in levels of 1/255."""
    _keys = "{x} accuracy"


@dataclass(frozen=True, kw_only=True)
class HeatMap(Figure):
    """Accuracy by line and column with the numbers written in, one figure a method."""

    lines: str
    """Key of the lines' names."""
    line: str
    """What a line is."""
    columns: str
    """Key of the columns' names."""
    column: str
    """What a column is."""
    reference: str
    """Key of the accuracy without any of it."""
    _keys = "{lines} {columns} accuracy"


@dataclass(frozen=True, kw_only=True)
class Reliability(Figure):
    """Accuracy beside confidence in bins of confidence, one figure a method."""

    when: str
    """Of which probabilities."""
    _keys = "edges confidence accuracy count"


@dataclass(frozen=True, kw_only=True)
class Scores(Figure):
    """Scores of test images and of another set's: ROC curves of the best score, and histograms."""

    by: str
    """The metric that tells which score is best."""
    _keys = "scores"


@dataclass(frozen=True, kw_only=True)
class Scatter(Figure):
    """Examples as points in the plane, told apart by class, one figure a method."""

    what: str
    """What the points are."""
    _keys = "x y label"


@dataclass(frozen=True, kw_only=True)
class Histogram(Figure):
    """How often values lie in bins, one line for every key but the edges, one figure a method."""

    axis: str
    """What the values are."""
    title: str
    """What is shown."""
    _keys = "edges"


@dataclass(frozen=True, kw_only=True)
class Description:
    """Everything that is said of a suite, in any place: command line, records and report take it from here."""

    name: str
    """The suite's name on the command line and in records."""
    suite: str
    """The class that measures, by its name in ``multimix.lab.evaluate``."""
    title: str
    """Heading of its section."""
    meaning: str
    """What it does and how to read it, in one paragraph."""
    metrics: tuple[Metric, ...] = ()
    """The metrics that no other suite has, by the last word of their paths."""
    tables: tuple[Table, ...] = ()
    """Its tables; a metric that none of them shows stands in one more."""
    figures: tuple[Figure, ...] = ()
    """Its figures; the first that fits the data draws them."""
    words: Mapping[str, str] = field(default_factory=dict)
    """How words of its paths and data are written, where they are not simply taken over."""
    note: Callable[[Mapping[str, Any]], str] | None = None
    """Returns what a reader of its tables has to know of its settings."""
