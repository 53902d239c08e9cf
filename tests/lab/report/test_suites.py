"""What suites say of themselves, and their tables."""

import math

import numpy as np
import pytest

from multimix.lab import evaluate
from multimix.lab.about import NOT_METRICS, SUITES, metrics_of
from multimix.lab.report import metric, read_run, records, suites, summarise, table
from multimix.lab.report._tables import plans
from report.suites import all_suites
from report.test_tables import record

STEPS = {"examples": None, "steps": 20}


def measured(make_run, seeds=2, labels=("erm", "multimix")):
    return [
        read_run(make_run(label=label, seed=seed, evaluations=all_suites(seed, better=0.04 * place)))
        for place, label in enumerate(labels)
        for seed in range(seeds)
    ]


def attack(value, seed=0, settings=STEPS, label="mixup", name="pgd/linf/accuracy", **more):
    about = {"suite": "adversarial", "settings": settings, **more}
    return record(value, f"adversarial/{name}", label, seed, **about)


def test_every_suite_describes_itself():
    assert [suite.name for suite in evaluate.SUITES] == list(SUITES)
    assert all(described.meaning.endswith(".") for described in SUITES.values())


@pytest.mark.parametrize("name", sorted({name.rpartition("/")[2] for s in all_suites().values() for name in s.metrics}))
def test_every_metric_of_the_suites_is_described(name):
    known = metric(name)
    assert not known.meaning.startswith("Not described")
    assert known.title != name


def test_what_a_record_says_of_a_measurement_is_no_metric():
    about = dict.fromkeys(NOT_METRICS, 1)
    assert metrics_of({**about, "ece": 0.1, "flag": True, "note": "x", "none": None}) == {"ece": 0.1}
    assert metrics_of(about, "seconds") == {"seconds": 1}


@pytest.mark.parametrize(
    ("suite", "main", "more"),
    [
        ("calibration", [(["as trained", "scaled"], 6)], [(["as trained", "scaled"], 3)]),
        ("adversarial", [([""], 6)], [([""], 5), ([""], 2)]),
        ("ood", [(["MSP", "max logit", "energy", "ODIN", "kNN", "Mahalanobis"], 4)] * 2, [(["MSP"], 4)] * 3),
        ("corruption", [([""], 2)], [(["–"], 15), (list("12345"), 15)]),
        ("occlusion", [([""], 1)], [(["–"], 8)]),
        ("embedding", [([""], 5)], [([""], 2)]),
        ("intrusion", [(["own", "mixup", "manifold-mixup", "multimix"], 3)], []),
        ("localisation", [([""], 3)], [(["best iou30", "best mean", "–"], 2)]),
    ],
)
def test_tables_of_a_suite_hold_every_metric_once(suite, main, more):
    names = [f"{suite}/{name}" for name in all_suites()[suite].metrics]
    found = plans(suite, names)
    shown = [name for plan in found for _, line in plan.lines for name in line if name]
    assert sorted(shown) == sorted(names)
    for wanted, which in ((main, False), (more, True)):
        tables = [plan for plan in found if plan.more is which]
        assert [len(plan.columns) for plan in tables] == [columns for _, columns in wanted]
        for plan, (lines, _) in zip(tables, wanted, strict=True):
            assert [words for words, _ in plan.lines][: len(lines)] == lines
    assert table(summarise([record(0.5, name, suite=suite) for name in names], suite=suite), whole=True).count(
        "**digits, "
    ) == len(found)


@pytest.mark.parametrize("suite", [None, *SUITES, "nobody's"])
def test_tables_of_unheard_of_metrics_hold_them_all(suite):
    names = ["a", "a/b", "/", "", "a/b/c/d", "1/accuracy", "x/1/accuracy", "é/<b>/auroc", "a b/x", "a_b/x"]
    names = [f"{suite}/{name}" for name in (*names, *(f"{number}/loss" for number in range(9)))]
    shown = [name for plan in plans(suite, names) for _, line in plan.lines for name in line if name]
    assert sorted(shown) == sorted(names)
    rows = [record(0.5, name, suite=suite) for name in names]
    for fmt in ("markdown", "html", "csv", "latex", "plain"):
        assert table(summarise(rows, [*names], suite=suite), fmt, whole=True)


def test_headings_of_columns():
    def headings(suite, *paths):
        return plans(suite, [f"{suite}/{path}" for path in paths])[0].columns

    assert headings("ood", "svhn/msp/auroc", "mean/msp/auroc") == ("Mean", "SVHN")
    assert headings("occlusion", "50/accuracy", "12.5/accuracy", "0/accuracy") == ("0 %", "12.5 %", "50 %")
    assert headings("calibration", "ece", "temperature") == ("ECE (%) ↓", "Temperature")
    assert plans("ood", ["ood/svhn/msp/fpr95"])[0].title == "FPR95 (%) ↓"
    grades = ["corruption/fog/10/accuracy", "corruption/fog/9/accuracy"]
    assert [words for words, _ in plans("corruption", grades)[0].lines] == ["9", "10"]


def test_the_main_table_is_no_wider_for_suites(make_run):
    rows = records(measured(make_run))
    plain = [row for row in rows if row["suite"] in ("accuracy", "cost")]
    assert table(summarise(rows)) == table(summarise(plain))
    assert suites(plain) == ()
    assert suites([record(1, suite="own"), *rows]) == (*list(SUITES)[1:], "own")


def test_means_and_spreads_over_seeds_by_hand(make_run):
    rows = records(measured(make_run, seeds=3, labels=("erm",)))
    values = [all_suites(seed)["ood"].metrics["digits/msp/auroc"] for seed in range(3)]
    (comparison,) = summarise(rows, suite="ood").comparisons
    cell = comparison.rows[0].cells["ood/digits/msp/auroc"]
    assert (cell.mean, cell.std) == pytest.approx((np.mean(values), np.std(values, ddof=1)), abs=1e-12)
    shown = f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f}"
    assert shown in table(summarise(rows, suite="ood"))


def test_a_table_with_keys_to_the_letter():
    rows = [
        record(value + place / 100, f"ood/{name}/{score}/auroc", label, suite="ood")
        for place, label in enumerate(("a", "b"))
        for name, score, value in (("digits", "msp", 0.8), ("digits", "knn", 0.7), ("mean", "msp", 0.5))
    ]
    assert table(summarise(rows, suite="ood")) == (
        "**digits, resnet, 20 epochs, ood: AUROC (%) ↑; last epoch, no spread, n = 1 seed.** "
        "Bold: best mean of its column among lines of equal score, which says nothing about significance.\n\n"
        "| Method | Score | n | Mean | Digits |\n"
        "| :--- | :--- | ---: | ---: | ---: |\n"
        "| a | MSP | 1 | 50.0 | 80.0 |\n"
        "| b | MSP | 1 | **51.0** | **81.0** |\n"
        "| a | kNN | 1 | – | 70.0 |\n"
        "| b | kNN | 1 | – | **71.0** |\n"
    )
    plain = table(summarise(rows, suite="ood"), "plain").splitlines()
    assert plain[2:5] == [
        "Method   Score   n   Mean   Digits",
        "------   -----   -   ----   ------",
        "a        MSP     1   50.0     80.0",
    ]
    assert r"\begin{tabular}{llrrr}" in table(summarise(rows, suite="ood"), "latex")


def test_unequal_settings_of_a_suite_are_never_averaged():
    rows = [attack(0.4), attack(0.5, seed=1), attack(0.2, settings={"steps": 40}), attack(0.1, label="erm")]
    (comparison,) = summarise(rows, suite="adversarial").comparisons
    assert [row.name for row in comparison.rows] == ["mixup (steps 20)", "mixup (steps 40)", "erm"]
    assert [next(iter(row.cells.values())).values for row in comparison.rows] == [(0.4, 0.5), (0.2,), (0.1,)]
    assert comparison.unequal == ("steps",)
    assert "Not measured alike: rows differ in steps." in table(summarise(rows, suite="adversarial"))
    csv = table(summarise(rows, suite="adversarial"), "csv").splitlines()
    assert csv[0].startswith("data,model,epochs,label,config,settings,n,adversarial/pgd/linf/accuracy_mean")
    assert '""steps"": 40' in csv[2]


def test_a_setting_that_is_not_set_is_none():
    rows = [attack(0.4), attack(0.6, seed=1, settings={"steps": 20}), attack(0.3, label="erm", settings={"steps": 40})]
    (comparison,) = summarise(rows, suite="adversarial").comparisons
    assert [(row.name, row.variant) for row in comparison.rows] == [("mixup", ""), ("erm", "")]
    assert comparison.rows[0].cells["adversarial/pgd/linf/accuracy"].mean == 0.5
    assert comparison.unequal == ("steps",)


def test_the_cost_of_a_run_goes_with_its_accuracy():
    rows = [
        record(0.9, seed=0, settings={"examples": None}, suite="accuracy"),
        record(0.5, seed=1, settings={"examples": 100}, suite="accuracy"),
        *(record(seconds, "seconds", seed=seed, suite="cost") for seed, seconds in enumerate((10.0, 20.0))),
    ]
    (comparison,) = summarise(rows).comparisons
    found = {row.name: {name: cell.values for name, cell in row.cells.items()} for row in comparison.rows}
    assert found == {
        "mixup (examples none)": {"accuracy": (0.9,), "seconds": (10.0,)},
        "mixup (examples 100)": {"accuracy": (0.5,), "seconds": (20.0,)},
    }


def test_metrics_of_several_suites_may_share_a_table():
    rows = [record(0.9), attack(math.nan)]
    names = ["adversarial/pgd/linf/accuracy", "accuracy"]
    assert table(summarise(rows, names)).splitlines()[-1] == "| mixup | 1 | nan | 90.0 |"


@pytest.mark.bad_input
@pytest.mark.parametrize(("others", "there"), [(["adversarial"], "adversarial"), ([], "none with a table of its own")])
def test_a_suite_that_measured_nothing(others, there):
    with pytest.raises(ValueError, match=f"suite: no record of 'ood'; there are {there}"):
        summarise([record(0.9), *(record(0.4, suite=name) for name in others)], suite="ood")
