"""The page's sections of evaluation suites."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from multimix.lab.about import SUITES
from multimix.lab.report import page, read_run, records, suites, summarise
from multimix.lab.report._page import sections
from multimix.lab.report._words import in_words
from report.factory import write_run
from report.suites import SCORES, Suite, all_suites
from report.test_page import EVIL, Page, assert_repeats, written

SVG = "{http://www.w3.org/2000/svg}"


def runs_of(make_run, names=None, labels=("erm", "multimix"), seeds=2, change=None):
    found = []
    for place, label in enumerate(labels):
        for seed in range(seeds):
            every = all_suites(seed, better=0.04 * place)
            kept = {name: suite for name, suite in every.items() if names is None or name in names}
            for suite in kept.values():
                if change:
                    change(suite)
            found.append(read_run(make_run(label=label, seed=seed, evaluations=kept)))
    return found


def run_with(make_run, name, figure, data, **options):
    return read_run(make_run(evaluations={name: Suite({"x/y/auroc": 0.5}, {figure: data})}, **options))


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


def texts(figure):
    return [text.text for text in ElementTree.fromstring(figure.svg).iter(f"{SVG}text")]


def lines_of(figure):
    styles = [path.get("style", "") for path in ElementTree.fromstring(figure.svg).iter(f"{SVG}path")]
    return [style for style in styles if "stroke-width: 1.6" in style]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A page of two methods, two seeds each, with all suites; and the runs."""
    base = tmp_path_factory.mktemp("whole")
    count = iter(range(100))
    runs = runs_of(lambda **options: write_run(base / "runs" / str(next(count)), **options))
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
    runs = [
        run_with(make_run, "calibration", "reliability", data, seed=seed) for seed, data in enumerate((bins, other))
    ]
    (figure,) = figures_of(runs)
    # (10 * 0.4 + 30 * 0.1) / 40 = 0.175 and 0.075; gap 0.1 on 40 and 0.2 on 60 of 100 examples: 0.16
    assert figure.alt.startswith("Reliability diagram of mixup, as trained: accuracy by confidence.")
    assert "18 % sure, 8 % right; 90 % sure, 70 % right" in figure.alt
    assert "Mean gap 16.0 %" in figure.caption
    assert "2 seeds pooled" in figure.caption
    assert {"Confidence (%)", "Accuracy (%)", "Examples (%)"} <= set(texts(figure))
    (scaled,) = figures_of([run_with(make_run, "calibration", "reliability_scaled", bins)])
    assert scaled.alt.startswith("Reliability diagram of mixup, after temperature scaling")


def test_curves_are_means_over_seeds(make_run):
    figure = figures_of(runs_of(make_run, ["adversarial"]))[0]
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

    note = article_of(runs_of(make_run, ["adversarial"], change=told)).note
    assert "FGSM moves a pixel by 8/255, PGD by up to 4/255, in steps of 2/255." in note
    assert "a length of up to 0.5. PGD takes 20 steps, with 2 starts." in note
    bare = article_of(runs_of(make_run, ["adversarial"])).note
    assert "FGSM moves a pixel by 8/255, PGD by up to ?, in steps of ?." in bare


def test_a_heat_map_says_every_number(make_run):
    figures = figures_of(runs_of(make_run, ["corruption"]))
    assert len(figures) == 2
    cells = [all_suites(seed)["corruption"].figures["corruption"]["accuracy"] for seed in range(2)]
    means = [
        f"{50 * (a + b):.0f}" for first, second in zip(*cells, strict=True) for a, b in zip(first, second, strict=True)
    ]
    assert texts(figures[0]).count("JPEG compression") == 1
    assert sorted(text for text in texts(figures[0]) if text in means and len(text) == 2) == sorted(means)
    assert "Without corruption 95.0 %" in figures[0].caption
    grid = {"corruptions": ["fog", "snow"], "severities": [1, 3], "accuracy": [[0.9, 0.3], [0.5, None]]}
    (figure,) = figures_of([run_with(make_run, "corruption", "corruption", grid)])
    assert figure.alt.endswith("Mean over corruptions: severity 1 70.0; severity 3 30.0. Hardest: Snow 50.0.")


def test_ood_draws_curves_of_the_best_score_and_histograms(make_run):
    article = article_of(runs_of(make_run, ["ood"]))
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

    first, second = figures_of(runs_of(make_run, ["intrusion"], seeds=1, change=without_own))
    assert set(lines_of(first)) < set(lines_of(second))
    counts = [{"edges": [0, 1, 3], "own": [3, 1], "mixup": [0, 2]}, {"edges": [0, 1, 3], "own": [0, 9]}]
    runs = [run_with(make_run, "intrusion", "intrusion", data, seed=seed) for seed, data in enumerate(counts)]
    (figure,) = figures_of(runs)  # own: 75 and 0 % in the first bin, 25 and 100 % in the second
    assert figure.alt.endswith("Distance to the nearest clean embedding. Most frequent: own 2; mixup 2.")
    assert figure.caption.startswith("mixup, 2 seeds pooled: distance of interpolated embeddings")


def test_what_is_drawn_differs_by_more_than_colour(make_run):
    """In black and white: dashes and markers of lines, markers of classes, fill against outline, hatches."""
    lines = lines_of(figures_of(runs_of(make_run, ["occlusion"]))[0])
    assert len({re.sub("stroke: #[0-9a-f]{6}", "", style) for style in lines}) == 2
    cloud = ElementTree.fromstring(figures_of(runs_of(make_run, ["embedding"]))[0].svg)
    shapes = {path.get("d") for defs in cloud.iter(f"{SVG}defs") for path in defs.iter(f"{SVG}path")}
    assert len(shapes) >= 10
    diagram = figures_of(runs_of(make_run, ["calibration"]))[0].svg
    assert "<pattern" in diagram
    assert "stroke-dasharray" in diagram
    assert "stroke-dasharray" in article_of(runs_of(make_run, ["ood"])).more_figures[0].svg


def test_many_points_are_light_and_no_more_than_the_page_bears(make_run):
    (figure,) = figures_of([read_run(make_run(evaluations={"embedding": all_suites(points=5000)["embedding"]}))])
    assert "embeddings in the plane (t-SNE): 1250 images" in figure.alt
    assert "1250 of 5000 points are drawn." in figure.caption
    assert len(figure.svg) < 120_000
    assert len(list(ElementTree.fromstring(figure.svg).iter(f"{SVG}use"))) >= 1250


def test_more_classes_than_a_legend_tells_apart_have_none(make_run):
    def many(suite):
        suite.figures["picture"]["label"] = [place % 100 for place in range(300)]
        suite.figures["picture"]["classes"] = [f"class {place}" for place in range(100)]

    figure = figures_of(runs_of(make_run, ["embedding"], change=many))[0]
    assert texts(figure) == []
    assert "300 images of 100 classes." in figure.alt


def test_a_method_that_only_some_suites_measured_looks_the_same_in_all(make_run):
    runs = [*runs_of(make_run, ["corruption"], labels=("a",)), *runs_of(make_run, ["occlusion"], labels=("b",))]
    figure = articles_of(runs)["Occlusion"].figures[0]
    assert "#d9771e" in figure.svg
    assert "#3b7dd8" not in figure.svg


def test_figures_of_unlike_settings_are_not_averaged(make_run, tmp_path: Path):
    runs = []
    for seed, steps, label in ((0, 20, "mixup"), (1, 20, "mixup"), (2, 40, "mixup"), (2, 40, "a")):
        suite = all_suites(seed)["adversarial"]
        suite.settings = {"steps": steps, "seed": 0}
        runs.append(read_run(make_run(label=label, seed=seed, evaluations={"adversarial": suite})))
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
        article = article_of([read_run(make_run(evaluations={suite: changed}))])
        assert article.tables
        assert all("\n" not in reason for reason in article.left_out)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"fraction": [0, 1], "accuracy": [1.0]}, "accuracy: expected 2 numbers, got 1"),
        ({"fraction": [0, 1], "accuracy": "x"}, "accuracy: expected a list of numbers, got 'x'"),
        (
            {"corruptions": ["a"], "severities": [1, 2], "accuracy": [[1.0]]},
            "accuracy: expected 1 x 2 numbers, got 1 x 1",
        ),
        (
            {"corruptions": "a", "severities": [1], "accuracy": [[1.0]]},
            "corruptions: expected a list of texts, got 'a'",
        ),
        ({"edges": [0, 2, 1], "own": [1, 1]}, "edges: expected ascending edges of bins, got [0.0, 2.0, 1.0]"),
        ({"x": [0], "y": [0], "label": [0.5]}, "label: expected numbers of classes, got [0.5]"),
    ],
)
def test_a_figure_that_cannot_be_drawn_says_why(make_run, data, why):
    article = article_of([run_with(make_run, "occlusion", "odd", data)])
    assert article.left_out == [f"The figure odd cannot be drawn: {why}."]
    assert article.figures == []


def test_a_suite_nobody_described_is_shown_as_recorded(make_run, tmp_path: Path):
    suite = Suite({"images_per_second": 12.5}, {"curve": all_suites()["occlusion"].figures["occlusion"]})
    text = written([read_run(make_run(evaluations={"speed_test": suite}))], tmp_path).text
    assert "Speed test A suite that this version of MultiMix does not describe" in text
    assert "images_per_second" in text
    assert "Accuracy over the share of the image that is hidden" in text


def test_every_string_from_a_suite_is_text(make_run, tmp_path: Path):
    figures: dict[str, Any] = {
        **all_suites()["corruption"].figures,
        EVIL: {"edges": [0, 1, 2], EVIL: [1, 2]},
        f"ood/{EVIL}": {"scores": {EVIL: {"edges": [0, 1], "in": [1], "out": [1], "fpr": [0, 1], "tpr": [0, 1]}}},
        "picture": {"x": [0, 1], "y": [0, 1], "label": [0, 1], "classes": [EVIL, "$x_{$"], "method": EVIL},
        "broken": {"edges": EVIL},
    }
    figures["corruption"]["corruptions"][0] = EVIL
    suite = Suite({EVIL: 1.0, f"{EVIL}/x/auroc": 0.5, "é\x00\u202e/accuracy": 0.5}, figures, {EVIL: EVIL, "date": EVIL})
    found = written([read_run(make_run(evaluations={EVIL.replace("/", ""): suite}))], tmp_path)
    found.check()
    assert "{{ 7 * 7 }}" in found.text
    assert "49" not in "".join(found.words[:200])
    assert not set("\x00\u202e") & set(found.text)
    assert "The figure broken cannot be drawn" in found.text
