"""What the page says and shows of every suite that measured something."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from multimix.lab.report._evaluations import Evaluation
from multimix.lab.report._layout import suite_title
from multimix.lab.report._runs import Run
from multimix.lab.report._suites._data import Drawn, Measured, of_figure
from multimix.lab.report._suites._heatmap import heat_maps
from multimix.lab.report._suites._intrusion import distances
from multimix.lab.report._suites._over import epsilon_curve, localisation_curve, occlusion_curve
from multimix.lab.report._suites._picture import pictures
from multimix.lab.report._suites._reliability import reliability
from multimix.lab.report._suites._scores import best_score, histograms, roc
from multimix.lab.report._suites._words import WORDS, setting_words
from multimix.lab.report._summary import Comparison, Row, Summary
from multimix.lab.report._svg import Figure
from multimix.lab.report._tables import html_tables
from multimix.lab.report._text import clean
from multimix.lab.report._variants import Kind, variant

_VISIBLE = 6  # figures of one kind that stand open


@dataclass
class Article:
    """One comparison's part of a section."""

    title: str
    tables: list[Markup]
    more_tables: list[Markup]
    figures: list[Figure] = field(default_factory=list)
    more_figures: list[Figure] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Why a figure is not there."""
    note: str = ""
    """How the suite was set."""


@dataclass(frozen=True)
class Section:
    """One suite on the page."""

    anchor: str
    title: str
    words: str
    articles: list[Article]


def sections(summaries: Mapping[str, Summary], runs: Sequence[Run]) -> list[Section]:
    """Return a section for every suite.

    Args:
        summaries: What each suite found, by its name, in the page's order.
        runs: The finished runs behind them.
    """
    return [
        Section(
            anchor=f"suite-{number}",
            title=suite_title(suite),
            words=WORDS.get(suite, "A suite that this version of MultiMix does not describe; shown as recorded."),
            articles=[_article(comparison, runs) for comparison in summaries[suite].comparisons],
        )
        for number, suite in enumerate(summaries, start=1)
    ]


def _article(comparison: Comparison, runs: Sequence[Run]) -> Article:
    article = Article(
        title=clean(comparison.title),
        tables=html_tables(comparison),
        more_tables=html_tables(comparison, more=True),
    )
    rows = _measured(comparison, runs)
    said = (setting_words(str(comparison.suite), one.settings) for row in rows for _, one in row.seeds)
    article.note = clean(next(said, ""))
    names = dict.fromkeys(name for row in rows for _, one in row.seeds for name in one.figures)
    for name in names:
        try:
            _add(article, name, of_figure(rows, name), comparison)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            article.left_out.append(clean(f"The figure {name} cannot be drawn: {error}."))
    return article


def _measured(comparison: Comparison, runs: Sequence[Run]) -> list[Measured]:
    """Return the rows with their seeds' figures; a method looks the same in all sections of a comparison."""
    setting = (comparison.data, comparison.model, comparison.epochs)
    own = [run for run in runs if (run.config["data"], run.config["model"], run.config["epochs"]) == setting]
    kinds = list(dict.fromkeys((run.label, run.settings_hash) for run in own))
    taken: set[int] = set()
    rows = []
    for row in comparison.rows:
        index = kinds.index((row.label, row.config)) if (row.label, row.config) in kinds else len(kinds)
        while index in taken:
            index = max(index, len(kinds) - 1) + 1
        taken.add(index)
        rows.append(Measured(clean(row.name), index, _seeds(row, str(comparison.suite), own)))
    return rows


def _seeds(row: Row, suite: str, runs: Sequence[Run]) -> tuple[tuple[int, Evaluation], ...]:
    kind: Kind = (row.label, row.config)
    found = [
        (run.config["seed"], run.evaluations[suite])
        for run in runs
        if (run.label, run.settings_hash) == kind and suite in run.evaluations
    ]
    return tuple(
        sorted(
            ((seed, one) for seed, one in found if row.variant in ("", variant(one.settings))),
            key=lambda pair: pair[0],
        )
    )


def _add(article: Article, name: str, rows: Sequence[Drawn], comparison: Comparison) -> None:
    """Draw a figure by the form of its data, as a suite that nobody described may have drawn it, too."""
    keys = set.intersection(*(set(data) for row in rows for _, data in row.seeds))
    if "scores" in keys:
        score = best_score(comparison)
        article.figures += roc(name, rows, score)
        article.more_figures += histograms(name, rows, score)
        return
    for form, paint in _FORMS:
        if form <= keys:
            drawn = paint(name, rows)
            article.figures += drawn[:_VISIBLE]
            article.more_figures += drawn[_VISIBLE:]
            return


_FORMS: Sequence[tuple[set[str], Callable[[str, Sequence[Drawn]], list[Figure]]]] = (
    ({"edges", "confidence", "accuracy", "count"}, reliability),
    ({"epsilon", "accuracy"}, epsilon_curve),
    ({"fraction", "accuracy"}, occlusion_curve),
    ({"threshold", "accuracy"}, localisation_curve),
    ({"corruptions", "severities", "accuracy"}, heat_maps),
    ({"x", "y", "label"}, pictures),
    ({"edges"}, distances),
)
