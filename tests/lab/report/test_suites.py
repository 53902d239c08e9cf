"""Records, settings and tables of evaluation suites."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from multimix.lab.report import metric, read_records, read_run, records, suites, summarise, table, write_records
from multimix.lab.report._tables import plans
from report.factory import ended, outcome
from report.suites import Suite, all_suites
from report.test_tables import record

STEPS = {"examples": None, "steps": 20}


def measured(make_run, seeds=2, labels=("erm", "multimix"), **more):
    return [
        read_run(make_run(label=label, seed=seed, evaluations=all_suites(seed, better=0.04 * place), **more))
        for place, label in enumerate(labels)
        for seed in range(seeds)
    ]


def attack(value, seed=0, settings=STEPS, label="mixup", name="pgd/linf/accuracy", **more):
    about = {"suite": "adversarial", "settings": settings, **more}
    return record(value, f"adversarial/{name}", label, seed, **about)


def test_figures_are_read_with_the_run(make_run):
    run = read_run(make_run(evaluations=all_suites()))
    assert set(run.evaluations) == set(all_suites())
    found = run.evaluations["adversarial"]
    assert (found.suite, found.weights, found.date) == ("adversarial", "0123456789abcdef", "2025-05-01T11:00:00")
    assert found.settings == all_suites()["adversarial"].settings
    assert found.figures == all_suites()["adversarial"].figures


@pytest.mark.parametrize(
    "change",
    [{"weights": "fedcba"}, {"settings": {"steps": 1}}, {"suite": "other"}, {"network": "teacher"}],
    ids=lambda change: next(iter(change)),
)
def test_figures_of_another_measurement_than_the_newest_are_left_out(make_run, change):
    suite = all_suites()["occlusion"]
    event = {"event": "test", "weights": suite.weights, "settings": suite.settings, "suite": "occlusion", **change}
    folder = make_run(events=[outcome(0.9), ended(), event], evaluations={"occlusion": suite})
    assert read_run(folder).evaluations == {}
    events = [outcome(0.9), ended(), event, suite.event("occlusion")]
    folder = make_run(events=events, evaluations={"occlusion": suite})
    assert set(read_run(folder).evaluations) == {"occlusion"}


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "expected a JSON object, got list"),
        ('{"suite": 1, "figures": {}}', "suite: expected str, got 1"),
        ('{"suite": "ood"}', "figures: expected dict, got None"),
        ('{"suite": "ood", "figures": {}, "settings": 3}', "settings: expected .*dict.*, got 3"),
        ('{"suite": "ood", "figures": {"a": [1]}}', "figures.a: expected an object, got"),
    ],
)
def test_a_damaged_file_of_figures_is_named_in_one_line(make_run, text, message):
    folder = make_run(evaluations=all_suites())
    (folder / "evaluation" / "ood.json").write_text(text)
    with pytest.raises(ValueError, match=f"ood.json: {message}") as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


def test_metrics_of_suites_carry_their_name_and_settings(make_run):
    rows = records([read_run(make_run(evaluations=all_suites()))])
    names, wanted = [row["metric"] for row in rows], all_suites()
    assert len(names) == len(set(names)) > 250
    assert {"accuracy", "clean/accuracy", "ece"} & set(names) == {"accuracy"}
    for row in rows:
        own = row["suite"] not in ("accuracy", "cost")
        assert row["metric"].startswith(f"{row['suite']}/") is own
        assert row["settings"] == (wanted[row["suite"]].settings if own else None)


def test_records_of_suites_survive_the_file(make_run, tmp_path: Path):
    runs = measured(make_run, seeds=1)
    write_records(tmp_path / "r.jsonl", runs)
    rows = read_records(tmp_path / "r.jsonl")
    assert rows == records(runs)
    for suite in suites(rows):
        assert table(summarise(rows, suite=suite)) == table(summarise(records(runs), suite=suite))


def test_the_main_table_is_no_wider_for_suites(make_run):
    rows = records(measured(make_run))
    plain = [row for row in rows if row["suite"] in ("accuracy", "cost")]
    assert table(summarise(rows)) == table(summarise(plain))
    assert suites(plain) == ()
    assert suites(rows)[:3] == ("calibration", "adversarial", "ood")


def test_means_and_spreads_over_seeds_by_hand(make_run):
    runs = measured(make_run, seeds=3, labels=("erm",))
    values = [all_suites(seed)["ood"].metrics["digits/msp/auroc"] for seed in range(3)]
    (comparison,) = summarise(records(runs), suite="ood").comparisons
    cell = comparison.rows[0].cells["ood/digits/msp/auroc"]
    assert (cell.mean, cell.n) == (pytest.approx(np.mean(values), abs=1e-12), 3)
    assert cell.std == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f}" in table(
        summarise(records(runs), suite="ood")
    )


def test_no_table_of_a_suite_leaves_out_a_metric(make_run):
    rows = records(measured(make_run, seeds=1))
    for suite in suites(rows):
        names = {row["metric"] for row in rows if row["suite"] == suite}
        shown = [name for plan in plans(suite, sorted(names)) for _, line in plan.lines for name in line if name]
        assert sorted(shown) == sorted(names)
        assert table(summarise(rows, suite=suite), whole=True).count("**digits, ") == len(plans(suite, sorted(names)))


@pytest.mark.parametrize("suite", [None, "ood", "corruption", "occlusion", "adversarial", "calibration", "nobody's"])
def test_tables_of_unheard_of_metrics_hold_them_all(suite):
    names = [
        f"{suite}/{name}" for name in ("a", "a/b", "/", "", "a/b/c/d", "1/accuracy", "x/1/accuracy", "é/<b>/auroc")
    ]
    names += [f"{suite}/{number}/loss" for number in range(9)]
    shown = [name for plan in plans(suite, names) for _, line in plan.lines for name in line if name]
    assert sorted(shown) == sorted(names)
    rows = [record(0.5, name, suite=suite) for name in names]
    for fmt in ("markdown", "html", "csv", "latex", "plain"):
        assert table(summarise(rows, [*names], suite=suite), fmt, whole=True)


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
    assert plain[2:6] == [
        "Method   Score   n   Mean   Digits",
        "------   -----   -   ----   ------",
        "a        MSP     1   50.0     80.0",
        "b        MSP     1   51.0*    81.0*",
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
    rows = [attack(0.4), attack(0.6, seed=1, settings={"steps": 20})]
    (row,) = summarise(rows, suite="adversarial").comparisons[0].rows
    assert row.cells["adversarial/pgd/linf/accuracy"].mean == 0.5
    assert row.variant == ""


def test_methods_measured_unlike_are_rows_and_it_is_said():
    rows = [attack(0.4), attack(0.3, label="erm", settings={"steps": 40})]
    (comparison,) = summarise(rows, suite="adversarial").comparisons
    assert [row.name for row in comparison.rows] == ["mixup", "erm"]
    assert comparison.unequal == ("steps",)


def test_the_cost_of_a_run_goes_with_its_accuracy():
    about = {"suite": "accuracy"}
    rows = [
        record(0.9, seed=0, settings={"examples": None}, **about),
        record(0.5, seed=1, settings={"examples": 100}, **about),
        *(record(seconds, "seconds", seed=seed, suite="cost") for seed, seconds in enumerate((10.0, 20.0))),
    ]
    (comparison,) = summarise(rows).comparisons
    found = {row.name: {name: cell.values for name, cell in row.cells.items()} for row in comparison.rows}
    assert found == {
        "mixup (examples none)": {"accuracy": (0.9,), "seconds": (10.0,)},
        "mixup (examples 100)": {"accuracy": (0.5,), "seconds": (20.0,)},
    }


def test_metrics_of_several_suites_may_share_a_table():
    rows = [record(0.9), attack(0.4)]
    (comparison,) = summarise(rows, ["adversarial/pgd/linf/accuracy", "accuracy"]).comparisons
    assert table(summarise(rows, [*comparison.metrics])).splitlines()[-1] == "| mixup | 1 | 40.0 | 90.0 |"


def test_what_is_not_finite_is_shown_as_it_is():
    assert "| mixup | 1 | nan |" in table(summarise([attack(math.nan)], suite="adversarial"))


@pytest.mark.bad_input
def test_a_suite_that_measured_nothing():
    with pytest.raises(ValueError, match="suite: no record of 'ood'; there are adversarial"):
        summarise([record(0.9), attack(0.4)], suite="ood")
    with pytest.raises(ValueError, match="suite: no record of 'ood'; there are none with a table of its own"):
        summarise([record(0.9)], suite="ood")


@pytest.mark.parametrize("name", sorted({name.rpartition("/")[2] for s in all_suites().values() for name in s.metrics}))
def test_every_metric_of_the_suites_is_described(name):
    known = metric(name)
    assert not known.meaning.startswith("Not described")
    assert known.title != name


def test_the_fractions_of_suites_are_shown_in_percent():
    assert metric("ood/digits/msp/fpr95").heading == "OOD digits MSP FPR95 (%) ↓"
    assert metric("calibration/temperature").better is None
    assert metric("adversarial/pgd/linf/loss").better == "lower"


def test_old_records_have_no_settings():
    rows = [json.loads(line) for line in (Path(__file__).parent / "data" / "records.jsonl").read_text().splitlines()]
    assert all("settings" not in row for row in rows)
    assert suites(rows) == ()


def test_a_suite_nobody_described_has_a_table(make_run):
    run = read_run(make_run(evaluations={"speed": Suite({"images_per_second": 12.5, "<b>": 1.0})}))
    assert table(summarise(records([run]), suite="speed")).splitlines()[-1] == "| mixup | 1 | 12.5 | 1.00 |"
