import csv
import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_rel

from multimix.lab.report import paired, paired_table, summarise
from multimix.lab.report._paired import stands, verdict
from report.test_tables import cells_of, record, three


def compared(rows, metrics=None):
    (comparison,) = summarise(rows, metrics).comparisons
    return comparison


def only(rows, metric="accuracy", against="erm"):
    (found,) = paired(compared(rows), metric, against)
    return found


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_mean_and_interval_are_those_of_a_paired_t_test(seeds):
    draw = np.random.default_rng(seeds)
    values = {label: draw.normal(0.9, 0.02, seeds) for label in ("mixup", "erm", "cutmix")}
    rows = [one for label, given in values.items() for one in three(*given, label=label)]
    found = paired(compared(rows), "accuracy", "erm")
    assert [one.label for one in found] == ["mixup", "cutmix"]
    for one in found:
        theirs = ttest_rel(values[one.label], values["erm"])
        interval = theirs.confidence_interval(0.95)
        assert (one.low, one.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
        differences = values[one.label] - values["erm"]
        assert (one.mean, one.std) == pytest.approx((differences.mean(), differences.std(ddof=1)), rel=1e-9)
        assert one.mean / (one.std / math.sqrt(seeds)) == pytest.approx(theirs.statistic, rel=1e-9)
        assert (one.n, one.seeds, one.values) == (seeds, tuple(range(seeds)), tuple(differences))


def test_only_seeds_that_both_have_count_by_hand():
    found = only([*three(0.5, 0.7, 0.9, 0.1, label="erm"), *three(0.51, 0.72, 0.93), record(0.4, seed=5)])
    assert (found.n, found.seeds, found.values) == (3, (0, 1, 2), pytest.approx((0.01, 0.02, 0.03)))
    assert (found.mean, found.std) == pytest.approx((0.02, 0.01))
    half = 4.302653 * 0.01 / math.sqrt(3)  # t of a printed table, 2 degrees of freedom
    assert (found.low, found.high) == pytest.approx((0.02 - half, 0.02 + half), abs=1e-8)


def test_one_shared_seed_has_no_interval():
    rows = [*three(0.5, 0.6, label="erm"), record(0.75, seed=1)]
    found = only(rows)
    assert (found.n, found.std, found.low, found.high) == (1, None, None, None)
    text = paired_table(summarise(rows), "erm")
    assert "| mixup | 1 | +15.00 |" in text
    assert "no interval, since no two seeds are shared.**\n" in text


def test_no_shared_seed_is_no_number():
    rows = [record(0.5, label="erm"), record(0.75, seed=1), *three(0.5, 0.6, name="nll", label="erm")]
    found = only(rows)
    assert (found.n, found.std, found.low, found.values) == (0, None, None, ())
    assert math.isnan(found.mean)
    assert only(rows, "nll").n == 0  # mixup has none of it
    assert "| mixup | 0 | – | – |" in paired_table(summarise(rows), "erm")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_spoils_its_own_difference_alone(bad):
    rows = [*three(0.5, 0.5, 0.5, label="erm"), *three(0.6, bad, 0.7), *three(0.6, 0.61, 0.62, label="cutmix")]
    first, second = paired(compared(rows), "accuracy", "erm")
    assert all(math.isnan(value) for value in (first.mean, first.std, first.low, first.high))
    assert second.low > 0
    assert "| mixup | 3 | nan \\[nan, nan\\] |" in paired_table(summarise(rows), "erm")


# Against erm: better, worse and undecided in accuracy, where higher is better; in NLL, where lower is.
FOUR = [
    *three(0.90, 0.91, 0.92, label="erm"),
    *three(0.92, 0.931, 0.939, label="up"),
    *three(0.88, 0.891, 0.899, label="down"),
    *three(0.90, 0.95, 0.88, label="either"),
    *three(0.3, 0.3, 0.3, name="nll", label="erm"),
    *three(0.4, 0.41, 0.42, name="nll", label="up"),
    *three(0.2, 0.21, name="nll", label="down"),
    *three(1.0, 1.0, 1.0, name="novelty", label="erm"),
    *three(2.0, 2.1, 2.2, name="novelty", label="up"),
]


def test_the_markdown_table_to_the_letter():
    # Half widths by hand: t(2) = 4.302653, t(1) = 12.706205; e.g. 2.00 points: sd 0.1, 4.302653 * 0.1 / sqrt(3) = 0.248
    assert paired_table(summarise(FOUR), "erm") == (
        "**digits, resnet, 20 epochs: difference to erm with the same seed, mean \\[95 % interval\\].** "
        "Bold: the interval lies on the better side of 0; ▼: on the worse side; "
        "†: so it does after Holm's correction for the comparisons of its column.\n\n"
        "| Method | n | Δ accuracy (points) ↑ | Δ NLL ↓ |\n"
        "| :--- | ---: | ---: | ---: |\n"
        "| up | 3 | **+2.00 \\[+1.75, +2.25\\] †** | +0.1100 \\[+0.0852, +0.1348\\] ▼ † |\n"
        "| down | 3 | -2.00 \\[-2.25, -1.75\\] ▼ † | **-0.0950 \\[-0.1585, -0.0315\\] (n = 2) †** |\n"
        "| either | 3 | 0.00 \\[-9.94, +9.94\\] | – |\n"
    )


def test_holms_correction_steps_down_from_the_smallest_p():
    # p = 0.0072 and 0.0429: among two, the first is below 0.05 / 2 and then the other below 0.05; among four, the first
    # is below 0.05 / 4 and the other not below 0.05 / 3.
    rows = [
        *three(0.5, 0.5, 0.5, label="erm"),
        *three(0.59, 0.60, 0.62, label="a"),
        *three(0.55, 0.60, 0.61, label="b"),
    ]
    a, b = paired(compared(rows), "accuracy", "erm")
    assert [one.p for one in (a, b)] == pytest.approx(
        [ttest_rel(x, [0.5] * 3).pvalue for x in ((0.59, 0.60, 0.62), (0.55, 0.60, 0.61))], rel=1e-9
    )
    assert stands([a, b]) == stands([b, a]) == (True, True)
    no = replace(a, mean=0.0)
    assert stands([a, b, no, no]) == (True, False, False, False)
    assert stands([replace(a, std=None), replace(a, mean=math.nan), b]) == (False, False, True)


def test_what_has_no_direction_or_no_difference_is_not_marked():
    text = paired_table(summarise(FOUR), "erm", metrics=["novelty"])
    assert "| Method | n | Δ novelty |" in text
    assert "| up | 3 | +1.10 \\[+0.85, +1.35\\] |" in text
    rows = [*three(0.9, 0.8, label="erm"), *three(0.9, 0.8)]
    assert "| mixup | 2 | 0.00 \\[0.00, 0.00\\] |" in paired_table(summarise(rows), "erm")


@pytest.mark.parametrize(
    ("fmt", "said"),
    [
        ("plain", ["+2.00 [+1.75, +2.25] †*", "-2.00 [-2.25, -1.75] ▼ †", "\n*: the interval lies on the better side"]),
        ("latex", [r"\textbf{+2.00 [+1.75, +2.25] $\dagger$}", r"-2.00 [-2.25, -1.75] $\bigtriangledown$ $\dagger$"]),
        ("latex", [r"$\Delta$ accuracy (points) $\uparrow$"]),
        ("html", ["<strong>+2.00 [+1.75, +2.25] †</strong>", "-2.00 [-2.25, -1.75] ▼ †"]),
    ],
)
def test_formats_mark_the_same_cells(fmt, said):
    text = paired_table(summarise(FOUR), "erm", fmt=fmt)
    assert all(words in text for words in said)


def test_csv_is_exact_in_the_units_of_the_records_and_no_spreadsheet_runs_it():
    rows = [*FOUR, *three(0.9, label='=cmd|"x",1'), *three(0.8, data="cifar10")]
    with pytest.warns(UserWarning, match="no differences are given of cifar10, resnet, 20 epochs: there is not erm"):
        found = list(csv.DictReader(io.StringIO(paired_table(summarise(rows), "erm", fmt="csv"))))
    assert [row["label"] for row in found] == ["up", "down", "either", '\'=cmd|"x",1']
    up = paired(summarise(rows).comparisons[0], "accuracy", "erm")[0]
    for part in ("mean", "std", "low", "high", "n"):
        assert float(found[0][f"accuracy_difference_{part}"]) == getattr(up, part)
    assert {(row["data"], row["against"]) for row in found} == {("digits", "erm")}
    assert [found[2][f"nll_difference_{part}"] for part in ("mean", "low", "n")] == ["", "", "0"]
    assert [found[3][f"accuracy_difference_{part}"] for part in ("std", "low", "n")] == ["", "", "1"]


def test_metrics_of_any_suite_make_columns():
    values, name = {"erm": (0.8, 0.7), "mixup": (0.9, 0.9)}, "ood/digits/msp/auroc"
    rows = [row for label, given in values.items() for row in three(*given, label=label)]
    for steps, (label, given) in enumerate(values.items()):
        rows += three(*given, name=name, label=label, suite="ood", settings={"steps": steps})
    text = paired_table(summarise(rows, [name, "accuracy"]), "erm", metrics=[name, "accuracy"], fmt="html")
    assert cells_of(text)[0] == ["Method", "n", "Δ OOD digits MSP AUROC (points) ↑", "Δ accuracy (points) ↑"]
    assert cells_of(text)[1][2].startswith("+15.00 [")
    of_suite = paired_table(summarise(rows, suite="ood"), "erm", metrics=[name])
    assert of_suite.startswith("**digits, resnet, 20 epochs, ood: difference to erm")
    assert "Not measured alike: rows differ in steps." in of_suite


def test_a_method_with_other_settings_is_compared_by_its_full_name():
    rows = [*three(0.9, 0.8, config="aaaaaaaaaa"), *three(0.5, 0.5, config="bbbbbbbbbb"), *three(0.7, 0.7, label="erm")]
    found = paired(compared(rows), "accuracy", "mixup [bbbbbb]")
    assert {one.label: round(one.mean, 9) for one in found} == {"mixup [aaaaaa]": 0.35, "erm": 0.2}
    said = r"^against: expected the name of one row, got 'mixup', which in digits.* names 2 .*: mixup \[aaaaaa\], mixup"
    with pytest.raises(ValueError, match=said):
        paired(compared(rows), "accuracy", "mixup")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("rows", "against", "options", "said"),
    [
        (FOUR, "emr", {}, "against: expected one of erm, up, down, either, got 'emr'; did you mean erm?"),
        (FOUR, "erm", {"metrics": ["f1"]}, "metrics: expected one of accuracy, nll, novelty, got 'f1'"),
        (FOUR, "erm", {"metrics": []}, "metrics: expected some of accuracy, nll, novelty, got none"),
        (FOUR, "erm", {"fmt": "pdf"}, "fmt must be one of markdown, html, csv, latex, plain, got 'pdf'"),
        ([], "erm", {}, "nothing to compare: no finished run has a record"),
        (FOUR[:3], "erm", {}, "against: expected a method that another can be compared with, got 'erm' alone"),
        (FOUR[-6:], "erm", {}, "metrics: expected some of novelty, got none, and accuracy, nll"),
    ],
)
def test_wrong_arguments_of_a_table(rows, against, options, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        paired_table(summarise(rows), against, **options)


@pytest.mark.bad_input
def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"^metric: expected one of accuracy, nll, novelty, got 'f1'$"):
        paired(compared(FOUR), "f1", "erm")
    with pytest.raises(ValueError, match=r"^against: expected one of erm, .*, got 'eiter'; did you mean either\?$"):
        paired(compared(FOUR), "accuracy", "eiter")


def test_runs_of_different_length_are_paired_where_asked_for():
    rows = [*three(0.9, label="erm"), *three(0.8, label="puzzlemix", epochs=9)]
    with pytest.raises(ValueError, match="that another can be compared with"):
        paired_table(summarise(rows), "erm")
    text = paired_table(summarise(rows, any_length=True), "erm")
    assert "9 to 20 epochs: difference to erm (20 epochs) with the same seed" in text
    assert "| puzzlemix (9 epochs) |" in text


@pytest.mark.parametrize(
    ("rows", "against", "said"),
    [
        (
            FOUR,
            None,
            [
                "up is 2.00 points above erm (95 % interval +1.75 to +2.25 over 3 paired seeds).",
                "down is 2.00 points below erm (95 % interval -2.25 to -1.75 over 3 paired seeds).",
                "either is not told apart from erm (0.00 points, 95 % interval -9.94 to +9.94 over 3 paired seeds).",
                "Accuracy on the test split, seed by seed; intervals are Student's t, not corrected for the 3 "
                "comparisons, and speak of other seeds, not of other images or settings.",
            ],
        ),
        (FOUR[:6], "up", ["erm is 2.00 points below up (95 % interval -2.25 to -1.75 over 3 paired seeds)."]),
        (
            [*three(0.9, 0.8, label="b"), *three(0.95, 0.85, label="a")],
            None,
            ["a differs from b by +5.00 points in each of 2 seeds alike, which makes no interval."],
        ),
        (
            [*FOUR[:6], *three(0.9, label="one"), *three(0.9, math.nan, label="bad")],
            "erm",
            [
                "up is 2.00 points above erm (95 % interval +1.75 to +2.25 over 3 paired seeds).",
                "one cannot be compared with erm: they share 1 seed.",
                "bad cannot be compared with erm: a value is not finite.",
            ],
        ),
        (
            [*three(0.9, label="a"), *three(0.8, label="b")],
            None,
            ["No verdict: one seed a method says nothing of how much results vary from seed to seed."],
        ),
        (
            [*three(0.9, 0.8, label="a"), *three(0.9, label="b")],
            None,
            ["No verdict: no other method shares two seeds with a."],
        ),
        (
            [*three(0.9, 0.8, label="a"), *three(0.9, 0.8, label="b", settings={"examples": 9})],
            None,
            ["No verdict, as methods were not measured alike: rows differ in examples."],
        ),
        (FOUR[:3], None, []),
        (FOUR[-6:], None, []),
    ],
    ids=["three", "against", "equal", "few", "one seed", "unshared", "unlike", "alone", "unjudged"],
)
def test_a_verdict_in_words_claims_no_more_than_the_intervals(rows, against, said):
    found = verdict(compared(rows), against)
    assert found[: len(said)] == said
    assert len(found) <= len(said) + 1


def test_seeds_may_have_images_of_their_own_to_train_on():
    def rows(other):
        given = [("erm", 0, "a"), ("erm", 1, "b"), ("mixup", 0, "a"), ("mixup", 1, other)]
        return [record(0.9, label=label, seed=s, images={"train": train, "test": "t"}) for label, s, train in given]

    assert summarise(rows("b")).comparisons[0].unequal == ()
    assert summarise(rows("b")[:3]).comparisons[0].unequal == ()
    assert summarise(rows("c")).comparisons[0].unequal == ("train images",)
    assert summarise([rows("b")[0], rows("b")[3]]).comparisons[0].unequal == ("train images",)
