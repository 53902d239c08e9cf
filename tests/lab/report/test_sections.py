"""The page's sections of evaluation suites."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from multimix.lab.report import page, read_run, records, suites, summarise
from multimix.lab.report._sections import sections
from multimix.lab.report._words import in_words
from report.factory import ended, outcome
from report.suites import SCORES, Suite, all_suites
from report.test_page import EVIL, Page, written

SVG = "{http://www.w3.org/2000/svg}"
TITLES = (
    *("Calibration", "Robustness", "Out-of-distribution detection", "Corruptions", "Occlusion", "Embedding"),
    *("Manifold intrusion", "Localisation"),
)


def runs_of(make_run, names=None, labels=("erm", "multimix"), seeds=2, change=None):
    found = []
    for place, label in enumerate(labels):
        for seed in range(seeds):
            kept = {
                name: one for name, one in all_suites(seed, better=0.04 * place).items() if name in (names or [name])
            }
            for one in kept.values():
                if change:
                    change(one)
            found.append(read_run(make_run(label=label, seed=seed, evaluations=kept)))
    return found


def sections_of(runs):
    rows = records(runs)
    return sections({suite: summarise(rows, suite=suite) for suite in suites(rows)}, runs)


def article_of(runs):
    (section,) = sections_of(runs)
    return section.articles[0]


def figures_of(runs):
    article = article_of(runs)
    assert article.left_out == []
    return [*article.figures, *article.more_figures]


def texts(figure):
    return [text.text for text in ElementTree.fromstring(figure.svg).iter(f"{SVG}text")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A page of two methods, two seeds each, with all suites; and the runs."""
    from report.factory import write_run

    base = tmp_path_factory.mktemp("whole")
    count = iter(range(100))
    runs = runs_of(lambda **options: write_run(base / "runs" / str(next(count)), **options))
    return runs, page(runs, base / "report.html")


def test_every_suite_has_a_section_and_a_link(whole):
    html = whole[1].read_text(encoding="utf-8")
    for title in TITLES:
        assert f"<h2>{title}</h2>" in html
        assert re.search(rf'<a href="#suite-\d">{title}</a>', html)
    assert "cannot be drawn" not in html
    assert "Expected calibration error" in html
    assert "Area under the ROC curve" in html
    assert html.count("<dt>Accuracy (%)</dt>") == 1
    assert '<summary><span class="name">Evaluation: Robustness</span></summary>' in html
    assert "<div><dt>steps</dt><dd>20</dd></div>" in html
    assert len(html.encode()) < 2_000_000


def test_without_suites_there_is_no_section(make_run, tmp_path: Path):
    found = written([read_run(make_run())], tmp_path)
    assert not [one for one in found.all("section") if (one.get("id") or "").startswith("suite")]
    assert "Evaluation:" not in found.text


def test_the_page_of_suites_is_whole_and_fetches_nothing(whole):
    html = whole[1].read_text(encoding="utf-8")
    found = Page(html)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "http://" not in html
    assert "https://" not in html
    references = {*re.findall(r'href="#([^"]*)"', html), *re.findall(r"url\(#([^)]*)\)", html)}
    assert references <= set(ids)
    assert not {"image", "script"} & {tag for tag, _ in found.tags}
    assert all(len(figure["aria-label"] or "") > 40 for figure in found.all("svg"))
    downloads = [link["download"] for link in found.all("a") if "download" in link]
    assert {"records.jsonl", "table.csv", "table-ood.csv", "table-adversarial.csv"} <= set(downloads)


def test_the_same_runs_give_the_same_page(whole):
    script = "import sys; from multimix.lab.report import *; page([read_run(f) for f in sys.argv[2:]], sys.argv[1])"
    runs, first = whole
    again = first.with_name("again.html")
    command = [sys.executable, "-W", "error", "-c", script, str(again), *(str(run.folder) for run in runs)]
    subprocess.run(command, check=True, env={"PYTHONHASHSEED": "7", "HOME": str(first.parent)})
    assert again.read_bytes() == first.read_bytes()


def test_reliability_pools_seeds_by_hand(make_run):
    bins = {"edges": [0.0, 0.5, 1.0], "confidence": [0.4, None], "accuracy": [0.3, None], "count": [10, 0]}
    other = {"edges": [0.0, 0.5, 1.0], "confidence": [0.1, 0.9], "accuracy": [0.0, 0.7], "count": [30, 60]}
    runs = [
        read_run(make_run(seed=seed, evaluations={"calibration": Suite({"ece": 0.1}, {"reliability": data})}))
        for seed, data in enumerate((bins, other))
    ]
    (figure,) = figures_of(runs)
    # (10 * 0.4 + 30 * 0.1) / 40 = 0.175 and 0.075; gap 0.1 on 40 and 0.2 on 60 of 100 examples: 0.16
    assert "18 % sure, 8 % right; 90 % sure, 70 % right" in figure.alt
    assert "Mean gap 16.0 %" in figure.caption
    assert "2 seeds pooled" in figure.caption
    assert {"Confidence (%)", "Accuracy (%)", "Examples (%)"} <= set(texts(figure))


def test_curves_are_means_over_seeds(make_run):
    figure = figures_of(runs_of(make_run, ["adversarial"]))[0]
    first, second = (all_suites(seed)["adversarial"].figures["epsilon_curve"]["accuracy"][0] for seed in range(2))
    assert f"erm {50 * (first + second):.1f} to" in figure.alt
    assert "Radius of the l-inf ball (1/255) from 0 to 16" in figure.alt
    assert figure.caption.startswith("Accuracy under PGD over the radius of the l-inf ball: mean of 2 seeds")
    assert {"erm", "multimix", "Accuracy (%)"} <= set(texts(figure))


def test_how_strong_the_attacks_are_stands_below_their_table(make_run, tmp_path):
    suite = all_suites()["adversarial"]
    known = {"pgd_epsilon": 4 / 255, "pgd_step": 2 / 255, "l2_epsilon": 0.5, "restarts": 2}
    told = replace(suite, settings={**suite.settings, **known})
    whole = page([read_run(make_run(evaluations={"adversarial": told}))], tmp_path / "told.html").read_text()
    assert "FGSM moves a pixel by 8/255, PGD by up to 4/255, in steps of 2/255." in whole
    assert "a length of up to 0.5. PGD takes 20 steps, with 2 starts." in whole
    bare = page([read_run(make_run(evaluations={"adversarial": suite}))], tmp_path / "bare.html").read_text()
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


def test_ood_draws_curves_of_the_best_score_and_histograms(make_run):
    runs = runs_of(make_run, ["ood"])
    article = article_of(runs)
    assert [figure.alt[:10] for figure in article.figures] == ["ROC curves"] * 3
    assert len(article.more_figures) == 6
    found = [all_suites(seed, better=better)["ood"].metrics for better in (0.0, 0.04) for seed in range(2)]
    means = {score: sum(one[f"mean/{score}/auroc"] for one in found) for score in SCORES}
    best = in_words(max(means, key=lambda score: means[score]))
    assert f"Gaussian-noise, score {best}, which has the highest mean AUROC here: share" in article.figures[0].caption
    assert article.figures[0].caption.endswith("Seed 0 of 2 seeds.")
    assert {"test images", "gaussian-noise"} <= set(texts(article.more_figures[0]))
    assert len(article.tables) == 2
    assert len(article.more_tables) == 3


def test_what_is_drawn_differs_by_more_than_colour(make_run):
    """In black and white: dashes and markers of lines, markers of classes, fill against outline, hatches."""
    curve = ElementTree.fromstring(figures_of(runs_of(make_run, ["occlusion"]))[0].svg)
    lines = [path.get("style", "") for path in curve.iter(f"{SVG}path") if "stroke-width: 1.6" in path.get("style", "")]
    assert len({re.sub("stroke: #[0-9a-f]{6}", "", style) for style in lines}) == 2
    cloud = ElementTree.fromstring(figures_of(runs_of(make_run, ["embedding"]))[0].svg)
    shapes = {path.get("d") for defs in cloud.iter(f"{SVG}defs") for path in defs.iter(f"{SVG}path")}
    assert len(shapes) >= 10
    diagram = figures_of(runs_of(make_run, ["calibration"]))[0].svg
    assert "<pattern" in diagram
    assert "stroke-dasharray" in diagram
    histogram = article_of(runs_of(make_run, ["ood"])).more_figures[0].svg
    assert "stroke-dasharray" in histogram


def test_many_points_are_light_and_no_more_than_the_page_bears(make_run):
    points = all_suites(points=5000)["embedding"]
    (figure,) = figures_of([read_run(make_run(evaluations={"embedding": points}))])
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


def test_colours_stay_with_their_method(make_run):
    """A method that only some suites measured looks the same in all of them."""
    runs = [*runs_of(make_run, ["corruption"], labels=("a",)), *runs_of(make_run, ["occlusion"], labels=("b",))]
    occlusion = next(one for one in sections_of(runs) if one.title == "Occlusion").articles[0].figures[0].svg
    assert "#d9771e" in occlusion
    assert "#3b7dd8" not in occlusion


def test_figures_of_unlike_settings_are_not_averaged(make_run):
    runs = []
    for seed, steps in enumerate((20, 20, 40)):
        suite = all_suites(seed)["adversarial"]
        suite.settings = {"steps": steps}
        runs.append(read_run(make_run(seed=seed, evaluations={"adversarial": suite})))
    article = article_of(runs)
    assert {"mixup (steps 20)", "mixup (steps 40)"} <= set(texts(article.figures[0]))
    assert "Not measured alike: rows differ in steps." in article.tables[0]
    assert "mean of 1 to 2 seeds" in article.figures[0].caption


def test_settings_that_differ_name_their_methods(make_run, tmp_path: Path):
    runs = []
    for label, steps in (("a", 20), ("b", 40)):
        suite = all_suites()["adversarial"]
        suite.settings = {"steps": steps, "seed": 0}
        runs.append(read_run(make_run(label=label, evaluations={"adversarial": suite})))
    text = written(runs, tmp_path).text
    assert "steps 20 (a); 40 (b)" in text
    assert "seed 0" in text


BROKEN: dict[str, Any] = {
    "text": "many",
    "short": [0.5],
    "texts": ["a", "b"],
}


@pytest.mark.parametrize("suite", ["adversarial", "ood", "calibration", "corruption", "embedding", "intrusion"])
@pytest.mark.parametrize("value", BROKEN.values(), ids=BROKEN)
def test_figures_of_another_form_never_stop_the_page(make_run, suite, value):
    one = all_suites()[suite]
    name, data = next(iter(one.figures.items()))
    for key in data:
        changed = Suite(one.metrics, {name: {**data, key: value}, "odd": {"what": [1]}, "none": {}})
        (section,) = sections_of([read_run(make_run(evaluations={suite: changed}))])
        assert section.articles[0].tables
        assert all("\n" not in reason for reason in section.articles[0].left_out)


def test_a_figure_that_cannot_be_drawn_says_why(make_run):
    def cut(suite):
        suite.figures["occlusion"]["accuracy"].pop()

    article = article_of(runs_of(make_run, ["occlusion"], change=cut))
    assert article.left_out == ["The figure occlusion cannot be drawn: accuracy: expected 8 numbers, got 7."]
    assert article.figures == []


def test_a_suite_nobody_described_is_shown_as_recorded(make_run, tmp_path: Path):
    figure = all_suites()["occlusion"].figures["occlusion"]
    suite = Suite({"images_per_second": 12.5, "words/loss": 2.0}, {"curve": figure})
    text = written([read_run(make_run(evaluations={"speed_test": suite}))], tmp_path).text
    assert "Speed test" in text
    assert "A suite that this version of MultiMix does not describe" in text
    assert "images_per_second" in text
    assert "Accuracy over the share of the image that is hidden" in text


def test_every_string_from_a_suite_is_text(make_run, tmp_path: Path):
    figures = {
        **all_suites()["corruption"].figures,
        EVIL: {"edges": [0, 1, 2], EVIL: [1, 2]},
        f"ood/{EVIL}": {"scores": {EVIL: {"edges": [0, 1], "in": [1], "out": [1], "fpr": [0, 1], "tpr": [0, 1]}}},
        "picture": {"x": [0, 1], "y": [0, 1], "label": [0, 1], "classes": [EVIL, "$x_{$"], "method": EVIL},
        "broken": {"edges": EVIL},
    }
    figures["corruption"]["corruptions"][0] = EVIL
    suite = Suite({EVIL: 1.0, f"{EVIL}/x/auroc": 0.5, "é\x00\u202e/accuracy": 0.5}, figures, {EVIL: EVIL, "date": EVIL})
    found = written([read_run(make_run(evaluations={EVIL.replace("/", ""): suite}))], tmp_path)
    assert "script" not in {tag for tag, _ in found.tags}
    assert "{{ 7 * 7 }}" in found.text
    assert "49" not in "".join(found.words[:200])
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert not set("\x00\u202e") & set(found.text)
    assert "The figure broken cannot be drawn" in found.text


def test_unfinished_runs_show_no_suite(make_run, tmp_path: Path):
    one = all_suites()["occlusion"]
    run = read_run(make_run(events=[outcome(0.9), one.event("occlusion")], evaluations={"occlusion": one}))
    assert "Occlusion" not in written([run], tmp_path).text


def test_a_suite_measured_twice_counts_once(make_run):
    old, new = all_suites(0)["occlusion"], all_suites(1)["occlusion"]
    old.date = "2025-04-01T00:00:00"
    folder = make_run(
        events=[outcome(0.9), ended(), old.event("occlusion"), new.event("occlusion")], evaluations={"occlusion": new}
    )
    rows = [row for row in records([read_run(folder)]) if row["suite"] == "occlusion"]
    assert {row["metric"].removeprefix("occlusion/"): row["value"] for row in rows} == new.metrics
    json.dumps(rows)


def test_a_way_of_interpolating_looks_the_same_for_every_method(make_run):
    def without_own(suite):
        if suite.metrics["own/intrusion_rate"] == 0.2:  # of the first method
            del suite.figures["intrusion"]["own"]

    first, second = figures_of(runs_of(make_run, ["intrusion"], seeds=1, change=without_own))
    styles = [
        {path.get("style") for path in ElementTree.fromstring(figure.svg).iter(f"{SVG}path")}
        for figure in (first, second)
    ]
    lines = [{style for style in found if style and "stroke-width: 1.6" in style} for found in styles]
    assert lines[0] < lines[1]
