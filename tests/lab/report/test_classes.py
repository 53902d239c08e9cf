"""How right each class is, which is taken for which, and the mistakes as pictures."""

import base64

import numpy as np
import pytest

from multimix.lab.report import records, summarise
from multimix.lab.report._page import _article
from report.factory import measured, seeds_of
from report.suites import Suite, picture
from report.test_figures import texts
from report.test_page import written

ABC = ["a", "b", "c"]


def article_of(runs):
    return _article(summarise(records(runs)).comparisons[0], "accuracy", runs)


def figures_of(make_run, *seeds, label="mixup", **more):
    """Figures of one method's seeds, each given as figures' data by name."""
    runs = []
    for seed, data in enumerate(seeds):
        suite = Suite({"accuracy": 0.9, "nll": 0.1}, data)
        runs.append(make_run(label=label, seed=seed, evaluations={"accuracy": suite}, **more))
    article = article_of(runs)
    assert article.left_out == []
    return article.figures


def test_accuracy_by_class_is_the_mean_over_seeds(make_run):
    data = [{"classes": ABC, "accuracy": [0.5, share, None], "count": [10, 20, 0]} for share in (0.9, 0.7)]
    (figure,) = figures_of(make_run, *({"classes": one} for one in data))
    assert figure.alt == "Dot plot: Accuracy of every class, one mark a method. Lowest: a 50.0; b 80.0."
    assert figure.caption == "Accuracy by class, mean of 2 seeds. A class has 0 to 20 test images."
    assert {*ABC, "Accuracy (%)"} <= set(texts(figure))


def test_of_many_classes_the_lowest_are_drawn(make_run):
    names = [f"class {place}" for place in range(100)]
    shares = [(37 * place % 100) / 100 for place in range(100)]
    (figure,) = figures_of(make_run, {"classes": {"classes": names, "accuracy": shares}})
    lowest = [names[place] for place in np.argsort(shares)[:15]]
    assert [text for text in texts(figure) if text.startswith("class")] == lowest
    assert "The 15 lowest of 100 classes." in figure.caption


def test_labels_of_several_an_image_have_no_confusion_matrix_and_it_says_so(make_run):
    (figure,) = figures_of(make_run, {"labels": {"classes": ABC, "average_precision": [0.5, 0.25, None]}})
    assert figure.caption == "Average precision by class. Of several labels an image there is no confusion matrix."


def test_a_confusion_matrix_sums_seeds(make_run):
    one = {"classes": ABC, "true": [0, 0, 1], "predicted": [0, 1, 1], "count": [7, 3, 5]}
    two = {"classes": ABC, "true": [0, 2], "predicted": [1, 0], "count": [2, 4]}
    (figure,) = figures_of(make_run, {"confusion": one}, {"confusion": two})
    assert figure.alt == (
        "Confusion matrix of mixup: 12 of 21 images right. Most often, a is taken for b (5) and c is taken for a (4)."
    )
    assert figure.caption.startswith("mixup, 2 seeds pooled: the true class of test images (lines)")
    assert sorted(text for text in texts(figure) if text.isdigit()) == ["4", "5", "5", "7"]
    none = {"classes": ABC, "true": [0], "predicted": [0], "count": [9]}
    assert figures_of(make_run, {"confusion": none})[0].alt.endswith("No image is taken for another class.")


def test_a_matrix_of_a_hundred_classes_is_light_and_of_more_the_pairs_are_drawn(make_run):
    def data(k):
        true, predicted = np.divmod(np.arange((k + 2) % 3, k * k, 3), k)  # the pair (1, 2) is among them
        count = np.where(true == predicted, 90, 1) + 5 * ((true == 1) & (predicted == 2))
        about = {"classes": [f"class {place}" for place in range(k)]}
        return {"confusion": about | {"true": true.tolist(), "predicted": predicted.tolist(), "count": count.tolist()}}

    (figure,) = figures_of(make_run, data(100))
    assert len(figure.svg) < 250_000
    assert "class 1 is taken for class 2 (6)" in figure.alt
    (pairs,) = figures_of(make_run, data(101))
    assert pairs.alt.endswith("Most often: class 2 for class 1.")
    assert "The 15 most frequent mistakes of 101 classes" in pairs.caption


def test_mistakes_are_pictures_of_the_lowest_seed(make_run):
    def mistakes(shade):
        shot = {"pictures": [picture(shade)], "names": [f"cat/{shade}.png"], "true": ["cat"], "predicted": ["dog"]}
        return {"mistakes": shot | {"probability": [0.987]}}

    (gallery,) = figures_of(make_run, mistakes(1), mistakes(2))
    (shot,) = gallery.pictures
    assert base64.b64decode(shot.source.removeprefix("data:image/png;base64,")) == base64.b64decode(picture(1))
    assert (shot.width, shot.height) == (128, 128)
    assert (shot.words, shot.name) == ("cat taken for dog, 98.7\N{NO-BREAK SPACE}%", "cat/1.png")
    assert gallery.caption.endswith("of the highest probability first. Seed 0 of 2 seeds.")


def test_the_page_shows_them_and_a_run_without_them_as_before(make_run, tmp_path):
    found = written(measured(make_run, "accuracy"), tmp_path)
    found.check()
    assert "<h3>Class by class</h3>" in found.html
    assert len(found.all("img")) == 16
    assert "Class by class" not in written(seeds_of(make_run, "erm", 0.9, 0.8), tmp_path).html


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"classes": ABC, "accuracy": [1.0]}, "accuracy: expected 3 numbers, got 1"),
        (
            {"classes": ABC, "true": [3], "predicted": [0], "count": [1]},
            "true: expected numbers of classes, got [3.0]",
        ),
        (
            {"pictures": ["x"], "names": ["x"], "true": ["a"], "predicted": ["b"], "probability": [1]},
            "pictures: expected PNG pictures in base64, got 'x'",
        ),
    ],
)
def test_figures_of_another_form_say_why_they_are_left_out(make_run, data, why):
    runs = [make_run(evaluations={"accuracy": Suite({"accuracy": 0.9}, {"odd": data})})]
    assert article_of(runs).left_out == [f"The figure odd cannot be drawn: {why}."]
