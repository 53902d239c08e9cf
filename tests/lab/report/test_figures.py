import math
import re
from xml.etree import ElementTree

import pytest

from multimix.lab.report import learning_curves, read_run, records, seed_dots, summarise
from multimix.lab.report._figures import look
from report.factory import ended, epoch, outcome

SVG = "{http://www.w3.org/2000/svg}"


def curve(*values):
    return [epoch(number, validation_accuracy=value) for number, value in enumerate(values, start=1)]


def texts(figure):
    return [text.text for text in ElementTree.fromstring(figure.svg).iter(f"{SVG}text")]


def runs_of(make_run, *labels, seeds=2):
    events = [*curve(0.5, 0.8), outcome(0.9, nll=0.1), ended()]
    return [read_run(make_run(label=label, seed=seed, events=events)) for label in labels for seed in range(seeds)]


def dots_of(runs, name="accuracy"):
    return seed_dots(summarise(records(runs)).comparisons[0], name)


def test_curves_tell_the_mean_in_words(make_run):
    runs = [read_run(make_run(seed=seed, events=curve(0.5, last))) for seed, last in enumerate((0.7, 0.8))]
    figure = learning_curves(runs)
    assert figure.alt == (
        "Line chart: Validation accuracy (%) over epochs, one line a method. Mean at the last epoch drawn: mixup 75.0."
    )
    assert figure.caption == (
        "Validation accuracy over epochs: mean of 2 seeds; the band spans the lowest to the highest seed."
    )
    assert ElementTree.fromstring(figure.svg).get("aria-label") == figure.alt
    assert {"Epoch", "Validation accuracy (%)", "mixup"} <= set(texts(figure))
    longer = read_run(make_run(seed=2, events=curve(0.5, 0.9, 0.1)))
    assert "mixup 80.0" in learning_curves([*runs, longer]).alt  # a mean never changes its seeds along the way


def test_the_axis_leaves_a_steep_beginning_and_says_so(make_run):
    steep = [0.1, 0.5, 0.8, *(0.9 + index / 1000 for index in range(9))]
    even = [index / 12 for index in range(12)]
    figures = [learning_curves([read_run(make_run(epochs=12, events=curve(*values)))]) for values in (steep, even)]
    assert ["The axis spans the last two thirds" in figure.caption for figure in figures] == [True, False]
    assert "0.0" not in " ".join(filter(None, texts(figures[0])))
    assert {"80", "60"} & set(texts(figures[1]))
    assert not {"80", "60"} & set(texts(figures[0]))


@pytest.mark.parametrize("values", [(math.nan, 0.5), (0.5, math.inf), (math.nan, math.nan), (0.5,) * 9])
def test_curves_of_odd_values_are_drawn(make_run, values):
    assert learning_curves([read_run(make_run(epochs=len(values), events=curve(*values)))]).svg.startswith("<svg")


def test_one_seed_has_no_band_and_training_losses_are_not_compared(make_run):
    run = read_run(make_run())
    assert learning_curves([run]).caption == "Validation accuracy over epochs, one seed."
    assert "compare shapes, not levels" in learning_curves([run], "train_loss").caption
    assert dots_of([run]).caption == "Accuracy on the test split at the last epoch: a dot a seed."


def test_nothing_to_draw_is_no_figure(make_run):
    assert learning_curves([]) is None
    runs = [read_run(make_run(events=[epoch(1), outcome(math.nan), {"event": "end"}]))]
    assert [learning_curves(runs), dots_of(runs), dots_of(runs, "nll")] == [None] * 3


def test_dots_tell_every_mean_and_spread(make_run):
    events = [[outcome(value), ended()] for value in (0.9, 0.8, 0.7)]
    runs = [read_run(make_run(seed=seed, events=one)) for seed, one in enumerate(events)]
    figure = dots_of(runs)
    assert figure.alt == "Dot plot: Accuracy (%) of every seed, one line a method. Means: mixup 80.0 ± 10.0 (n = 3)."
    assert {"mixup", "Accuracy (%)"} <= set(texts(figure))


def test_methods_differ_by_more_than_colour():
    looks = [look(index) for index in range(280)]
    assert len({str(one) for one in looks}) == 280
    assert len({(str(one["linestyle"]), one["marker"]) for one in looks[:35]}) == 35


def test_figures_fetch_nothing_share_no_ids_and_take_the_ink_of_the_page(make_run):
    runs = runs_of(make_run, "a", "b")
    figures = [learning_curves(runs), learning_curves(runs, "train_loss"), dots_of(runs)]
    assert figures == [learning_curves(runs), learning_curves(runs, "train_loss"), dots_of(runs)]
    found = [element.get("id") for figure in figures for element in ElementTree.fromstring(figure.svg).iter()]
    ids = [one for one in found if one]
    assert len(ids) == len(set(ids)) > 20
    for figure in figures:
        assert "http" not in figure.inline
        assert "currentColor" in figure.svg
        assert "#010203" not in figure.svg
        references = re.findall(r'href="([^"]*)"', figure.svg) + re.findall(r"url\(([^)]*)\)", figure.svg)
        assert references
        assert set(references) <= {f"#{one}" for one in ids}
        tags = {element.tag for element in ElementTree.fromstring(figure.svg).iter()}
        assert not {f"{SVG}style", f"{SVG}script", f"{SVG}image", f"{SVG}metadata"} & tags


@pytest.mark.parametrize(
    "label", ["$x$ $\\frac{$", "_hidden", "<script>alert(1)</script>", "漢字 🙂", "a\x1bb\ufffe\nc", "m" * 500]
)
def test_labels_are_drawn_to_the_letter_and_cut(make_run, label):
    runs = runs_of(make_run, label)
    shown = re.sub("[\x1b\ufffe\n]", "\N{REPLACEMENT CHARACTER}", label)
    dots = dots_of(runs)
    assert (shown if len(shown) <= 24 else shown[:23] + "…") in texts(dots)
    assert (shown if len(shown) <= 38 else shown[:37] + "…") in texts(learning_curves(runs))
    assert "<script" not in dots.svg


@pytest.mark.bad_input
def test_curves_of_different_experiments_are_refused(make_run):
    runs = [read_run(make_run(epochs=2)), read_run(make_run(epochs=3))]
    with pytest.raises(ValueError, match="runs: expected one data set, model and number of epochs, got"):
        learning_curves(runs)
