import csv
import io
import math
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

from multimix.lab import evaluate
from multimix.lab.about import NOT_METRICS, SUITES, metrics_of
from multimix.lab.report import metric, read_records, records, suites, summarise, table
from multimix.lab.report._tables import plans
from report.factory import measured
from report.suites import all_suites

DATA = Path(__file__).parent / "data"
NASTY = '<script>alert(1)</script> a_b *c* |d| $e$ 50% & \\f ~~g~~ `h` [i](j) "k"'


def record(value, name="accuracy", label="mixup", seed=0, config="c0ffee0000", **more):
    about = {"data": "digits", "model": "resnet", "epochs": 20, "method": "Mixup", "date": "2025-05-01", **more}
    return {"metric": name, "value": value, "seed": seed, "label": label, "config": config, **about}


def three(*values, **more):
    return [record(value, seed=seed, **more) for seed, value in enumerate(values)]


def cell(rows, name="accuracy"):
    return summarise(rows).comparisons[0].rows[0].cells[name]


def cells_of(html):
    """The texts of a table's cells, row by row."""
    rows = re.findall(r"<tr.*?</tr>", html, re.DOTALL)
    cells = [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in rows]
    return [[unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in row] for row in cells]


def test_mean_and_spread():
    by_hand = cell(three(0.9, 0.8, 0.7))
    assert (by_hand.n, by_hand.mean, by_hand.std) == (3, pytest.approx(0.8), pytest.approx(0.1))
    values = np.random.default_rng(0).normal(1e6, 1e-3, 7)
    found = cell(three(*values))
    assert found.mean == pytest.approx(values.mean(), rel=1e-15)
    assert found.std == pytest.approx(values.std(ddof=1), rel=1e-6)
    assert cell(three(0.7, 0.8, 0.9)[::-1]) == cell(three(0.7, 0.8, 0.9))


def test_a_single_seed_has_no_spread():
    assert cell([record(0.9)]).std is None
    assert "n = 1 seed" in table(summarise([record(0.9)]))
    assert "±" not in table(summarise([record(0.9)]))
    assert "over n = 2 to 3 seeds" in table(summarise([*three(1, 1, label="a"), *three(1, 1, 1, label="b")]))


def test_what_is_not_finite_spoils_its_own_mean_alone():
    rows = [*three(math.nan, 0.9, label="a"), *three(0.8, 0.8, label="b"), *three(math.inf, 0.7, label="c")]
    text = table(summarise(rows), "markdown")
    assert "| a | 2 | nan ± nan |" in text
    assert "| c | 2 | nan ± nan |" in text
    assert "**" not in text.split("| :---")[1]  # one row with a number: nothing to be best of


def test_runs_with_unequal_settings_are_never_averaged():
    rows = [*three(0.9, 0.9, config="aaaaaaaaaa"), *three(0.5, config="bbbbbbbbbb"), *three(0.7, label="erm")]
    (comparison,) = summarise(rows).comparisons
    assert [row.name for row in comparison.rows] == ["mixup [aaaaaa]", "mixup [bbbbbb]", "erm"]
    assert [row.cells["accuracy"].mean for row in comparison.rows] == [0.9, 0.5, 0.7]


def test_no_seed_weighs_twice():
    again = record(0.7, seed=1)
    assert cell([record(0.9, date="2025-05-02"), record(0.1, date="2025-05-01"), again]).values == (0.9, 0.7)
    assert cell([record(0.9), record(0.1), again]).values == (0.1, 0.7)


def test_data_model_and_length_have_tables_of_their_own():
    rows = [record(0.9), record(0.8, data="cifar10"), record(0.7, model="vit"), record(0.6, epochs=1)]
    titles = ["digits, resnet, 20 epochs", "cifar10, resnet, 20 epochs", "digits, vit, 20 epochs"]
    titles.append("digits, resnet, 1 epoch")
    assert [comparison.title for comparison in summarise(rows).comparisons] == titles
    for fmt in ("markdown", "plain", "html", "latex"):
        assert all(f"{title}: last epoch" in table(summarise(rows), fmt) for title in titles)


def test_columns_stand_in_order_and_may_be_chosen():
    rows = [record(1.0, name) for name in ("peak_mib", "novelty", "ece", "step_seconds", "accuracy", "seconds", "nll")]
    in_order = ("accuracy", "nll", "ece", "novelty", "step_seconds", "seconds", "peak_mib")
    assert summarise(rows).comparisons[0].metrics == in_order
    assert summarise(rows, ["seconds", "accuracy"]).comparisons[0].metrics == ("seconds", "accuracy")


def test_the_markdown_table_to_the_letter():
    rows = [
        *three(0.97, 0.972, 0.968, label="erm"),
        *three(0.98, 0.984, 0.976, label="multimix"),
        *three(0.1, 0.1, 0.1, name="ece", label="erm"),
        *three(0.0302, 0.0302, 0.0302, name="step_seconds", label="erm"),
        *three(0.0304, 0.0305, 0.0306, name="step_seconds", label="multimix"),
        *three(1.25, 1.25, name="novelty", label="multimix"),
    ]
    assert table(summarise(rows)) == (
        "**digits, resnet, 20 epochs: last epoch, mean ± sample standard deviation over n = 3 seeds.** "
        "Bold: best mean of its column, which says nothing about significance.\n\n"
        "| Method | n | Accuracy (%) ↑ | ECE (%) ↓ | novelty | Step (ms) ↓ |\n"
        "| :--- | ---: | ---: | ---: | ---: | ---: |\n"
        "| erm | 3 | 97.0 ± 0.2 | 10.0 ± 0.0 | – | **30.2 ± 0.0** |\n"
        "| multimix | 3 | **98.0 ± 0.4** | – | 1.25 ± 0.00 (n = 2) | 30.5 ± 0.1 |\n"
    )


def test_best_is_marked_by_direction_and_only_where_rows_differ_as_shown():
    rows = [
        *[record(value, "nll", label) for label, value in (("a", 0.2), ("b", 0.1))],
        *[record(value, "accuracy", label) for label, value in (("a", 0.90001), ("b", 0.90002))],
        *[record(value, "novelty", label) for label, value in (("a", 1.0), ("b", 2.0))],
    ]
    body = table(summarise(rows)).splitlines()[-2:]
    assert body == ["| a | 1 | 90.0 | 0.200 | 1.00 |", "| b | 1 | 90.0 | **0.100** | 2.00 |"]
    assert table(summarise([*rows, record(0.5, label="c")])).count("**90.0**") == 2  # equally good, as shown


@pytest.mark.parametrize(("value", "shown"), [(1e300, "1e+300"), (-2.5e15, "-2.5e+15"), (1.5, "1.500")])
def test_huge_numbers_take_no_more_room_than_others(value, shown):
    assert f"| {shown} |" in table(summarise([record(value, "nll"), record(value, "")]), "markdown")


def test_html_and_markdown_show_strings_as_text():
    html = table(summarise([record(0.9, label=NASTY), record(0.8, "<img src=x onerror=y>", label=NASTY)]), "html")
    assert cells_of(html) == [["Method", "n", "Accuracy (%) ↑", "<img src=x onerror=y>"], [NASTY, "1", "90.0", "0.800"]]
    markdown = table(summarise([record(0.9, label=NASTY), record(0.8, label="__init__"), record(0.7, label="a_b_")]))
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)
    assert [row[0] for row in cells_of(html)] == ["Method", NASTY, "__init__", "a_b_"]
    assert "| a_b\\_ |" in markdown


def test_latex_shows_strings_as_text():
    latex = table(summarise(three(0.9, 0.8, label=r"a_b & 5% $x$ #{1} ^~\<>|")), "latex")
    signs = ["textasciicircum", "textasciitilde", "textbackslash", "textless", "textgreater", "textbar"]
    wanted = r"a\_b \& 5\% \$x\$ \#\{1\} " + "".join(f"\\{sign}{{}}" for sign in signs)
    assert f"{wanted} & 2 & 85.0 $\\pm$ 7.1 \\\\" in latex
    assert latex.count("{") == latex.count("}")
    assert r"\begin{tabular}{lrr}" in latex


def test_plain_text_moves_no_cursor_and_columns_stand_under_each_other():
    rows = [
        *three(0.97, 0.972, label="erm"),
        *three(0.98, 0.984, label="a-long\x1b\u202e"),
        *three(1, 2, name="seconds", label="erm"),
    ]
    odd = "\N{REPLACEMENT CHARACTER}"
    assert table(summarise(rows), "plain") == (
        "digits, resnet, 20 epochs: last epoch, mean ± sample standard deviation over n = 2 seeds\n\n"
        "Method     n   Accuracy (%) ↑   Training (s) ↓\n"
        "--------   -   --------------   --------------\n"
        "erm        2       97.1 ± 0.1      1.50 ± 0.71\n"
        f"a-long{odd}{odd}   2       98.2 ± 0.3*               –\n"
        "*: best mean of its column, which says nothing about significance.\n"
    )


def test_csv_is_exact_and_no_spreadsheet_runs_it():
    rows = [*three(0.9, 0.8, 0.7, label='=cmd|"x",1'), record(0.5, "nll", data="cifar10")]
    (first, second) = csv.DictReader(io.StringIO(table(summarise(rows), "csv")))
    assert first["label"] == '\'=cmd|"x",1'
    assert (float(first["accuracy_mean"]), first["accuracy_n"], first["n"]) == (cell(rows).mean, "3", "3")
    assert float(first["accuracy_std"]) == cell(rows).std
    assert (first["nll_mean"], first["nll_std"], first["nll_n"]) == ("", "", "0")
    assert (second["data"], second["nll_mean"], second["nll_std"]) == ("cifar10", "0.5", "")


def test_a_table_rebuilt_from_committed_records_is_the_committed_table():
    assert table(summarise(read_records(DATA / "records.jsonl"))) == (DATA / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("teacher_accuracy", "Teacher accuracy (%) ↑"),
        ("ema_ece", "EMA ECE (%) ↓"),
        ("validation_nll", "Validation NLL ↓"),
        ("fgsm_linf_accuracy", "Fgsm linf accuracy (%) ↑"),
        ("novelty", "novelty"),
        ("step_seconds", "Step (ms) ↓"),
        ("peak_mib", "Peak memory (MiB)"),
        ("adversarial/pgd/linf/accuracy", "Robustness PGD l-inf accuracy (%) ↑"),
        ("ood/digits/msp/fpr95", "OOD digits MSP FPR95 (%) ↓"),
        ("calibration/temperature", "Calibration temperature"),
        ("knn_accuracy", "kNN accuracy (%) ↑"),
        ("digits/novelty", "digits/novelty"),
        ("a/", "a/"),
    ],
)
def test_metrics_have_headings_and_a_meaning(name, heading):
    assert metric(name).heading == heading
    assert metric(name).meaning.endswith(".")


@pytest.mark.bad_input
def test_wrong_arguments():
    summary = summarise([record(0.9)])
    with pytest.raises(ValueError, match="fmt must be one of markdown, html, csv, latex, plain, got 'pdf'"):
        table(summary, "pdf")
    with pytest.raises(ValueError, match="nothing to tabulate"):
        table(summarise([]))
    with pytest.raises(ValueError, match="metrics: no record of 'f1'; there are accuracy"):
        summarise([record(0.9)], ["f1"])


def test_runs_of_different_length_are_compared_where_asked_for():
    rows = [record(0.9, label="erm"), record(0.6, label="puzzlemix", epochs=9), record(0.7, data="cifar10")]
    assert len(summarise(rows).comparisons) == 3
    first, second = summarise(rows, any_length=True).comparisons
    assert [row.name for row in first.rows] == ["erm (20 epochs)", "puzzlemix (9 epochs)"]
    assert first.title == "digits, resnet, 9 to 20 epochs"
    assert [row.name for row in second.rows] == ["mixup"]  # of one length, which the title says
    assert second.title == "cifar10, resnet, 20 epochs"


STEPS = {"examples": None, "steps": 20}


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
    whole = table(summarise([record(0.5, name, suite=suite) for name in names], suite=suite), whole=True)
    assert whole.count("**digits, ") == len(found)


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
    lines = table(summarise(rows, suite="adversarial"), "csv").splitlines()
    assert lines[0].startswith("data,model,epochs,label,config,settings,n,adversarial/pgd/linf/accuracy_mean")
    assert '""steps"": 40' in lines[2]


@pytest.mark.parametrize(
    ("erm", "mixup", "said"),
    [
        ({"train": "40 a", "test": "10 b"}, {"train": "40 a", "test": "10 c"}, "rows differ in test images."),
        ({"train": "40 a", "test": "10 b"}, {"train": "30 d", "test": "9 c"}, "in test images and train images."),
        ({"train": "40 a", "test": "10 b"}, None, ""),  # of a run that did not write it down
        ({"train": "40 a", "test": "10 b"}, {"train": "40 a", "test": "10 b"}, ""),
    ],
)
def test_it_is_said_where_the_images_were_not_the_same(erm, mixup, said):
    rows = [record(0.9, label="erm", images=erm), record(0.8, images=mixup), record(2, "seconds", suite="cost")]
    note = table(summarise(rows), "plain").splitlines()[-1]
    assert ("Not measured alike" in note) == bool(said)
    assert note.endswith(said or "significance.")
    few = [record(0.9, label="erm", examples=10), record(0.8, examples=9), record(1, "validation_accuracy", examples=5)]
    assert summarise(few, ["accuracy", "validation_accuracy"]).comparisons[0].unequal == ("examples",)


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
