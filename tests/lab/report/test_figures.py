"""Figures, and the page's sections of evaluation suites."""

import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from multimix.lab.about import SUITES
from multimix.lab.report import learning_curves, page, read_run, records, seed_dots, suites, summarise
from multimix.lab.report._figures import look
from multimix.lab.report._page import sections
from multimix.lab.report._words import in_words
from report.factory import epoch, measured, outcome, seeds_of, write_run
from report.suites import SCORES, Suite, all_suites
from report.test_page import Page, assert_repeats, written

SVG = "{http://www.w3.org/2000/svg}"


def curve(*values):
    return [epoch(number, validation_accuracy=value) for number, value in enumerate(values, start=1)]


def texts(figure):
    return [text.text for text in ElementTree.fromstring(figure.svg).iter(f"{SVG}text")]


def dots_of(runs, name="accuracy"):
    return seed_dots(summarise(records(runs)).comparisons[0], name)


def test_curves_tell_the_mean_in_words(make_run):
    runs = [make_run(seed=seed, epochs=3, events=curve(0.5, last)) for seed, last in enumerate((0.7, 0.8))]
    figure = learning_curves(runs)
    assert figure.alt == (
        "Line chart: Validation accuracy (%) over epochs, one line a method. Mean at the last epoch drawn: mixup 75.0."
    )
    assert figure.caption == (
        "Validation accuracy over epochs: mean of 2 seeds; the band spans the lowest to the highest seed."
    )
    assert ElementTree.fromstring(figure.svg).get("aria-label") == figure.alt
    assert {"Epoch", "Validation accuracy (%)", "mixup"} <= set(texts(figure))
    longer = make_run(seed=2, epochs=3, events=curve(0.5, 0.9, 0.1))
    assert "mixup 80.0" in learning_curves([*runs, longer]).alt  # a mean never changes its seeds along the way


def test_the_axis_leaves_a_steep_beginning_and_says_so(make_run):
    steep = [0.1, 0.5, 0.8, *(0.9 + index / 1000 for index in range(9))]
    even = [index / 12 for index in range(12)]
    figures = [learning_curves([make_run(epochs=12, events=curve(*values))]) for values in (steep, even)]
    assert ["The axis spans the last two thirds" in figure.caption for figure in figures] == [True, False]
    assert "0.0" not in " ".join(filter(None, texts(figures[0])))
    assert [bool({"80", "60"} & set(texts(figure))) for figure in figures] == [False, True]


@pytest.mark.parametrize(
    "values", [(math.nan, 0.5), (0.5, math.inf), (math.nan, math.nan), (0.5,) * 9, (0.5, 1e308), (0.5, 10**400)]
)
def test_curves_of_odd_values_are_drawn(make_run, values):
    assert learning_curves([make_run(epochs=len(values), events=curve(*values))]).svg.startswith("<svg")


def test_one_seed_has_no_band_and_training_losses_are_not_compared(make_run):
    run = make_run()
    assert learning_curves([run]).caption == "Validation accuracy over epochs, one seed."
    short = learning_curves([make_run(epochs=1, events=curve(0.5))])
    assert [text for text in texts(short) if text.startswith(("0.9", "1"))] == ["1"]  # there is no epoch 0.98
    assert "compare shapes, not levels" in learning_curves([run], "train_loss").caption
    assert dots_of([run]).caption == "Accuracy on the test split at the last epoch: a dot a seed."


@pytest.mark.filterwarnings("ignore:.*metrics.jsonl")
def test_nothing_to_draw_is_no_figure(make_run):
    assert learning_curves([]) is None
    runs = [make_run(events=[epoch(1), outcome(math.nan), {"event": "end"}])]
    assert [learning_curves(runs), dots_of(runs), dots_of(runs, "nll")] == [None] * 3


def test_dots_tell_every_mean_and_spread(make_run):
    figure = dots_of(seeds_of(make_run, "mixup", 0.9, 0.8, 0.7))
    assert figure.alt == "Dot plot: Accuracy (%) of every seed, one line a method. Means: mixup 80.0 ± 10.0 (n = 3)."
    assert {"mixup", "Accuracy (%)"} <= set(texts(figure))


def test_methods_differ_by_more_than_colour():
    looks = [look(index) for index in range(280)]
    assert len({str(one) for one in looks}) == 280
    assert len({(str(one["linestyle"]), one["marker"]) for one in looks[:35]}) == 35


def test_figures_fetch_nothing_share_no_ids_and_take_the_ink_of_the_page(make_run):
    runs = [*seeds_of(make_run, "a", 0.9, 0.8), *seeds_of(make_run, "b", 0.9, 0.7)]
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
    runs = seeds_of(make_run, label, 0.9, 0.9)
    shown = re.sub("[\x1b\ufffe\n]", "\N{REPLACEMENT CHARACTER}", label)
    dots = dots_of(runs)
    assert (shown if len(shown) <= 24 else shown[:23] + "…") in texts(dots)
    assert (shown if len(shown) <= 38 else shown[:37] + "…") in texts(learning_curves(runs))
    assert "<script" not in dots.svg


@pytest.mark.bad_input
def test_curves_of_different_experiments_are_refused(make_run):
    runs = [make_run(epochs=2), make_run(data="other")]
    with pytest.raises(ValueError, match="runs: expected one data set, model and number of epochs, got"):
        learning_curves(runs)


def run_with(make_run, name, figure, data, **options):
    return make_run(evaluations={name: Suite({"x/y/auroc": 0.5}, {figure: data})}, **options)


def articles_of(runs):
    rows = records(runs)
    found = sections({suite: summarise(rows, suite=suite) for suite in suites(rows)}, runs)
    return {section["suite"].title: article for section in found for article in section["articles"]}


def article_of(runs):
    (article,) = articles_of(runs).values()
    return article


def figures_of(runs):
    article = article_of(runs)
    assert article.left_out == []
    return [*article.figures, *article.more_figures]


def lines_of(figure):
    styles = [path.get("style", "") for path in ElementTree.fromstring(figure.svg).iter(f"{SVG}path")]
    return [style for style in styles if "stroke-width: 1.6" in style]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A page of two methods, two seeds each, with all suites; and the runs."""
    base = tmp_path_factory.mktemp("whole")
    count = iter(range(100))
    runs = measured(lambda **options: read_run(write_run(base / "runs" / str(next(count)), **options)))
    return runs, page(runs, base / "report.html")


def test_every_suite_has_a_section_and_a_link(whole):
    found = Page(whole[1].read_text(encoding="utf-8"))
    found.check()
    for described in list(SUITES.values())[1:]:
        assert f"<h2>{described.title}</h2>" in found.html
        assert re.search(rf'<a href="#suite-\d">{described.title}</a>', found.html)
        assert described.meaning in found.text
    assert "cannot be drawn" not in found.html
    assert "Area under the ROC curve" in found.html
    assert found.html.count("<dt>Accuracy (%)</dt>") == 1
    assert '<summary><span class="name">Evaluation: Robustness</span></summary>' in found.html
    assert "<div><dt>steps</dt><dd>20</dd></div>" in found.html
    assert len(found.html.encode()) < 2_000_000
    assert all(len(figure["aria-label"] or "") > 40 for figure in found.all("svg"))
    assert_repeats(*whole)
    downloads = {link["download"] for link in found.all("a") if "download" in link}
    assert {"records.jsonl", "table.csv", "table-ood.csv", "table-adversarial.csv"} <= downloads


def test_reliability_pools_seeds_by_hand(make_run):
    bins = {"edges": [0.0, 0.5, 1.0], "confidence": [0.4, None], "accuracy": [0.3, None], "count": [10, 0]}
    other = {"edges": [0.0, 0.5, 1.0], "confidence": [0.1, 0.9], "accuracy": [0.0, 0.7], "count": [30, 60]}
    one, two = (run_with(make_run, "calibration", "reliability", data, seed=i) for i, data in enumerate((bins, other)))
    (figure,) = figures_of([one, two])
    # (10 * 0.4 + 30 * 0.1) / 40 = 0.175 and 0.075; gap 0.1 on 40 and 0.2 on 60 of 100 examples: 0.16
    assert figure.alt.startswith("Reliability diagram of mixup, as trained: accuracy by confidence.")
    assert "18 % sure, 8 % right; 90 % sure, 70 % right" in figure.alt
    assert "Mean gap 16.0 %" in figure.caption
    assert "2 seeds pooled" in figure.caption
    assert {"Confidence (%)", "Accuracy (%)", "Examples (%)"} <= set(texts(figure))
    (scaled,) = figures_of([run_with(make_run, "calibration", "reliability_scaled", bins)])
    assert scaled.alt.startswith("Reliability diagram of mixup, after temperature scaling")


def test_curves_are_means_over_seeds(make_run):
    figure = figures_of(measured(make_run, "adversarial"))[0]
    first, second = (all_suites(seed)["adversarial"].figures["epsilon_curve"]["accuracy"][0] for seed in range(2))
    assert f"erm {50 * (first + second):.1f} to" in figure.alt
    assert "Radius of the l-inf ball (1/255) from 0 to 16" in figure.alt
    assert figure.caption.startswith("Accuracy under PGD over the radius of the l-inf ball: mean of 2 seeds")
    assert figure.caption.endswith(" Measured on 200 test images.")
    assert {"erm", "multimix", "Accuracy (%)"} <= set(texts(figure))


@pytest.mark.parametrize(
    ("suite", "data", "words"),
    [
        ("adversarial", {"epsilon": [0, 2], "norm": "l2"}, "Accuracy under the attack over the radius of the l2 ball"),
        ("adversarial", {"epsilon": [0, 2], "norm": "l2"}, "Radius of the l2 ball from 0 to 2"),
        ("occlusion", {"fraction": [0, 0.25]}, "Hidden share of the image (%) from 0 to 25: mixup 90.0 to 50.0."),
        ("localisation", {"threshold": [0.1, 0.3]}, "Threshold from 0.1 to 0.3: mixup 90.0 to 50.0."),
    ],
)
def test_what_a_curve_is_over(make_run, suite, data, words):
    (figure,) = figures_of([run_with(make_run, suite, "curve", {**data, "accuracy": [0.9, 0.5]})])
    assert words in figure.alt


def test_how_strong_the_attacks_are_stands_below_their_table(make_run):
    def told(suite):
        suite.settings |= {"pgd_epsilon": 4 / 255, "pgd_step": 2 / 255, "l2_epsilon": 0.5, "restarts": 2}

    note = article_of(measured(make_run, "adversarial", change=told)).note
    assert "FGSM moves a pixel by 8/255, PGD by up to 4/255, in steps of 2/255." in note
    assert "a length of up to 0.5. PGD takes 20 steps, with 2 starts." in note
    bare = article_of(measured(make_run, "adversarial")).note
    assert "FGSM moves a pixel by 8/255, PGD by up to ?, in steps of ?." in bare


def test_a_heat_map_says_every_number(make_run):
    figures = figures_of(measured(make_run, "corruption"))
    assert len(figures) == 2
    cells = [all_suites(seed)["corruption"].figures["corruption"]["accuracy"] for seed in range(2)]
    means = [f"{100 * mean:.0f}" for mean in np.mean(cells, axis=0).flat]
    assert texts(figures[0]).count("JPEG compression") == 1
    assert sorted(text for text in texts(figures[0]) if text in means and len(text) == 2) == sorted(means)
    assert "Without corruption 95.0 %" in figures[0].caption
    grid = {"corruptions": ["fog", "snow"], "severities": [1, 3], "accuracy": [[0.9, 0.3], [0.5, None]]}
    (figure,) = figures_of([run_with(make_run, "corruption", "corruption", grid)])
    assert figure.alt.endswith("Mean over corruptions: severity 1 70.0; severity 3 30.0. Hardest: Snow 50.0.")


def test_ood_draws_curves_of_the_best_score_and_histograms(make_run):
    article = article_of(measured(make_run, "ood"))
    assert [figure.alt[:10] for figure in article.figures] == ["ROC curves"] * 3
    assert len(article.more_figures) == 6
    found = [all_suites(seed, better=better)["ood"].metrics for better in (0.0, 0.04) for seed in range(2)]
    best = in_words(max(SCORES, key=lambda score: sum(one[f"mean/{score}/auroc"] for one in found)))
    assert f"Gaussian-noise, score {best}, which has the highest mean AUROC here: share" in article.figures[0].caption
    assert article.figures[0].caption.endswith("Seed 0 of 2 seeds.")
    assert {"test images", "gaussian-noise"} <= set(texts(article.more_figures[0]))
    assert (len(article.tables), len(article.more_tables)) == (2, 3)


def test_scores_by_hand(make_run):
    one = {"edges": [0, 1, 2, 4], "in": [0, 1, 3], "out": [3, 1, 0]}
    data = {"scores": {"msp": {**one, "fpr": [0, 0.05, 0.2, 1], "tpr": [0.4, 0.6, 0.9, 1]}}}
    curve, histogram = figures_of([run_with(make_run, "ood", "ood/svhn", data)])
    assert curve.alt.startswith("ROC curves for SVHN by MSP, one line a method.")
    assert curve.alt.endswith("5 % of SVHN do: mixup 60 %.")
    assert histogram.alt.endswith("test images around 3, SVHN around 0.5; 25 % of the areas in common.")


def test_histograms_pool_seeds_and_a_way_looks_the_same_for_every_method(make_run):
    def without_own(suite):
        if suite.metrics["own/intrusion_rate"] == 0.2:  # of the first method
            del suite.figures["intrusion"]["own"]

    first, second = figures_of(measured(make_run, "intrusion", seeds=1, change=without_own))
    assert set(lines_of(first)) < set(lines_of(second))
    counts = [{"edges": [0, 1, 3], "own": [3, 1], "mixup": [0, 2]}, {"edges": [0, 1, 3], "own": [0, 9]}]
    runs = [run_with(make_run, "intrusion", "intrusion", data, seed=seed) for seed, data in enumerate(counts)]
    (figure,) = figures_of(runs)  # own: 75 and 0 % in the first bin, 25 and 100 % in the second
    assert figure.alt.endswith("Distance to the nearest clean embedding. Most frequent: own 2; mixup 2.")
    assert figure.caption.startswith("mixup, 2 seeds pooled: distance of interpolated embeddings")


def test_what_is_drawn_differs_by_more_than_colour(make_run):
    """In black and white: dashes and markers of lines, markers of classes, fill against outline, hatches."""
    lines = lines_of(figures_of(measured(make_run, "occlusion"))[0])
    assert len({re.sub("stroke: #[0-9a-f]{6}", "", style) for style in lines}) == 2
    cloud = ElementTree.fromstring(figures_of(measured(make_run, "embedding"))[0].svg)
    shapes = {path.get("d") for defs in cloud.iter(f"{SVG}defs") for path in defs.iter(f"{SVG}path")}
    assert len(shapes) >= 10
    diagram = figures_of(measured(make_run, "calibration"))[0].svg
    assert "<pattern" in diagram
    assert "stroke-dasharray" in diagram
    assert "stroke-dasharray" in article_of(measured(make_run, "ood")).more_figures[0].svg


def test_many_points_are_light_and_no_more_than_the_page_bears(make_run):
    (figure,) = figures_of([make_run(evaluations={"embedding": all_suites(points=5000)["embedding"]})])
    assert "embeddings in the plane (t-SNE): 1500 images" in figure.alt
    assert "1500 of 5000 test images are drawn, some of every class." in figure.caption
    assert len(figure.svg) < 150_000
    assert len(list(ElementTree.fromstring(figure.svg).iter(f"{SVG}use"))) >= 1500


def test_of_many_points_no_class_is_lost(make_run):
    """Two classes of one point each among 4,000, where every third point is of neither."""
    x, label = list(range(4000)), [0] * 4000
    label[1], label[3998] = 1, 2
    data = {"x": x, "y": x, "label": label, "classes": ["a", "b", "c"], "examples": 9000}
    (figure,) = figures_of([run_with(make_run, "embedding", "picture", data)])
    assert "of 3 classes: a, b and c" in figure.alt
    assert re.search("150[0-2] of 9000 test images are drawn", figure.caption)


def test_more_classes_than_a_legend_tells_apart_have_none(make_run):
    def many(suite):
        suite.figures["picture"]["label"] = [place % 100 for place in range(300)]
        suite.figures["picture"]["classes"] = [f"class {place}" for place in range(100)]

    figure = figures_of(measured(make_run, "embedding", change=many))[0]
    assert texts(figure) == []
    assert "300 images of 100 classes." in figure.alt


def test_a_method_that_only_some_suites_measured_looks_the_same_in_all(make_run):
    runs = [*measured(make_run, "corruption", labels=("a",)), *measured(make_run, "occlusion", labels=("b",))]
    figure = articles_of(runs)["Occlusion"].figures[0]
    assert "#d9771e" in figure.svg
    assert "#3b7dd8" not in figure.svg


def test_figures_of_unlike_settings_are_not_averaged(make_run, tmp_path: Path):
    runs = []
    for seed, steps, label in ((0, 20, "mixup"), (1, 20, "mixup"), (2, 40, "mixup"), (2, 40, "a")):
        suite = replace(all_suites(seed)["adversarial"], settings={"steps": steps, "seed": 0})
        runs.append(make_run(label=label, seed=seed, evaluations={"adversarial": suite}))
    article = article_of(runs)
    assert {"mixup (steps 20)", "mixup (steps 40)"} <= set(texts(article.figures[0]))
    assert "Not measured alike: rows differ in steps." in article.tables[0].words
    assert "mean of 1 to 2 seeds" in article.figures[0].caption
    assert "steps 20 (mixup); 40 (mixup and a) seed 0" in written(runs, tmp_path).text


@pytest.mark.parametrize("suite", ["adversarial", "ood", "calibration", "corruption", "embedding", "intrusion"])
@pytest.mark.parametrize("value", ["many", {"a": 1}], ids=str)
def test_figures_of_another_form_never_stop_the_page(make_run, suite, value):
    one = all_suites()[suite]
    name, data = next(iter(one.figures.items()))
    for key in data:
        changed = Suite(one.metrics, {name: {**data, key: value}, "odd": {"what": [1]}, "none": {}})
        article = article_of([make_run(evaluations={suite: changed})])
        assert article.tables
        assert all("\n" not in reason for reason in article.left_out)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"fraction": [0, 1], "accuracy": [1.0]}, "accuracy: expected 2 numbers, got 1"),
        ({"fraction": [0, 1], "accuracy": "x"}, "accuracy: expected a list of numbers, got 'x'"),
        ({"corruptions": ["a"], "severities": [1], "accuracy": []}, "accuracy: expected 1 x 1 numbers, got 0"),
        ({"corruptions": "a", "severities": [], "accuracy": []}, "corruptions: expected a list of texts, got 'a'"),
        ({"edges": [0, 2, 1], "own": [1, 1]}, "edges: expected ascending edges of bins, got [0.0, 2.0, 1.0]"),
        ({"edges": [0, 1, 2], "own": [1, None]}, "own: expected numbers of at least 0, got [1.0, nan]"),
        ({"edges": [0, 1, 2], "own": [1, -1]}, "own: expected numbers of at least 0, got [1.0, -1.0]"),
        ({"scores": 3}, "scores: expected data by score, got 3"),
        ({"x": [0], "y": [0], "label": [0.5]}, "label: expected numbers of classes, got [0.5]"),
    ],
)
def test_a_figure_that_cannot_be_drawn_says_why(make_run, data, why):
    article = article_of([run_with(make_run, "occlusion", "odd", data)])
    assert article.left_out == [f"The figure odd cannot be drawn: {why}."]
    assert article.figures == []


def test_a_suite_nobody_described_is_shown_as_recorded(make_run, tmp_path: Path):
    suite = Suite({"images_per_second": 12.5}, {"curve": all_suites()["occlusion"].figures["occlusion"]})
    text = written([make_run(evaluations={"speed_test": suite})], tmp_path).text
    assert "Speed test A suite that this version of MultiMix does not describe" in text
    assert "images_per_second" in text
    assert "Accuracy over the share of the image that is hidden" in text
