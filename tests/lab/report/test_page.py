import base64
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import multimix
from multimix.lab.report import page, read_run, records
from report.factory import epoch, outcome, seeds_of
from report.suites import Suite, all_suites
from report.test_tables import cells_of

EVIL = "<script>alert(1)</script>\"'&{{ 7 * 7 }}"
FETCHING = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background", "formaction", "ping"}


class Page(HTMLParser):
    """Elements, attributes and text of a page, as a browser has them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]

    def check(self) -> None:
        """Assert that nothing is fetched, ids are there once, and links lead somewhere."""
        links = [value or "" for _, attributes in self.tags for name, value in attributes.items() if name in FETCHING]
        assert all(link.startswith(("data:", "#")) for link in links)
        assert not re.search("https?://|@import", self.html)
        assert {"script", "link", "iframe", "object", "embed", "image"}.isdisjoint(tag for tag, _ in self.tags)
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert {link[1:] for link in links if link[0] == "#"} <= set(ids)
        assert set(re.findall(r"url\(#([^)]*)\)", self.html)) <= set(ids)
        assert not [name for _, attributes in self.tags for name in attributes if name.startswith("on")]
        policy = {"http-equiv": "Content-Security-Policy"}
        policy["content"] = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        assert policy in self.all("meta")


def written(runs, tmp_path: Path, **options) -> Page:
    return Page(page(runs, tmp_path / "report.html", **options).read_text(encoding="utf-8"))


def assert_repeats(runs, first: Path) -> None:
    """Assert that another process writes the same page, byte for byte."""
    again = first.with_name("again.html")
    script = "import sys; from multimix.lab.report import *; page([read_run(f) for f in sys.argv[2:]], sys.argv[1])"
    command = [sys.executable, "-W", "error", "-c", script, str(again), *(str(run.folder) for run in runs)]
    source = str(Path(multimix.__file__).parents[1])
    subprocess.run(command, check=True, env={"PYTHONHASHSEED": "7", "HOME": str(first.parent), "PYTHONPATH": source})
    assert again.read_bytes() == first.read_bytes()


@pytest.fixture
def runs(make_run):
    return [
        *seeds_of(make_run, "erm", 0.95, 0.96, 0.97, method={"type": "ERM"}),
        *seeds_of(make_run, "mixup", 0.96, 0.97, 0.98, pictures={"mixed.png": "Eight mixed digits."}),
    ]


def test_the_page_says_what_was_run_and_what_came_out(runs, tmp_path: Path):
    found = written(runs, tmp_path)
    for words in (
        "erm and mixup on digits",
        "Trained on digits with preact_resnet18 for 2 epochs: erm and mixup; seeds 0, 1 and 2.",
        "Every number is that of the last epoch's network: mean ± sample standard deviation over n seeds.",
        "Methods 2 Seeds 3 Finished runs 6 of 6 Test examples 360 Device cpu PyTorch 2.14.1 Date 2025-05-01",
        "96.0 ± 1.0",
        "97.0 ± 1.0",
        "over n = 3 seeds",
        "All rows share every setting but the method's own.",
        "mixup , seed 0. Eight mixed digits.",
        "Expected calibration error",
        "multimix compare digits --seeds 3",
        "PyTorch 2.14.1",
        "Commit abc123",
        "method.alpha 1.0",
        "batch_size 128",
        "runs/run-5 mixup 2",
        "98.0 2025-05-01 10:00 finished",
    ):
        assert words in found.text, words
    assert found.text.count("Eight mixed digits.") == 1  # one seed is enough
    assert "unfinished" not in found.text
    assert not [one for one in found.all("section") if (one.get("id") or "").startswith("suite")]


def test_the_page_fetches_nothing_and_figures_and_pictures_have_words(runs, tmp_path: Path):
    found = written(runs, tmp_path)
    found.check()
    (image,) = found.all("img")
    assert image["alt"] == "mixup: Eight mixed digits."
    assert base64.b64decode((image["src"] or "").partition(",")[2]) == runs[3].pictures[0].path.read_bytes()
    assert [len(figure["aria-label"] or "") > 40 for figure in found.all("svg")] == [True] * 4


def test_every_string_from_the_data_is_text(make_run, tmp_path: Path):
    figures: dict[str, Any] = {
        **all_suites()["corruption"].figures,
        EVIL: {"edges": [0, 1, 2], EVIL: [1, 2]},
        f"ood/{EVIL}": {"scores": {EVIL: {"edges": [0, 1], "in": [1], "out": [1], "fpr": [0, 1], "tpr": [0, 1]}}},
        "picture": {"x": [0, 1], "y": [0, 1], "label": [0, 1], "classes": [EVIL, "$x_{$"], "method": EVIL},
        "broken": {"edges": EVIL},
    }
    figures["corruption"]["corruptions"][0] = EVIL
    suite = Suite({EVIL: 1.0, f"{EVIL}/x/auroc": 0.5, "é\x00\u202e/accuracy": 0.5}, figures, {EVIL: EVIL, "date": EVIL})
    options = {
        **dict.fromkeys(("label", "data", "model"), EVIL),
        "method": {"type": EVIL, EVIL: EVIL},
        "extra": {EVIL: [EVIL]},
        "environment": dict.fromkeys(("command", "device", "commit", "date", "torch"), EVIL),
        "pictures": {"mixed.png": EVIL},
        "evaluations": {EVIL.replace("/", ""): suite},
    }
    found = written([make_run(**options), make_run()], tmp_path)
    found.check()
    assert found.text.count("<script>alert(1)</script>") > 10
    assert "{{ 7 * 7 }}" in found.text
    assert "49" not in "".join(found.words[:200])
    assert not set("\x00\u202e") & set(found.text)
    assert "The figure broken cannot be drawn" in found.text


def test_unprintable_letters_do_no_harm(make_run, tmp_path: Path):
    odd = "a\x00\x1b\ud800\ufffe\u202e漢"
    options = {"environment": {"command": f"{odd}\nsecond"}, "pictures": {"m.png": odd}}
    found = written([make_run(label=odd, method={"type": odd}, **options)], tmp_path)
    assert "漢\nsecond" in found.html
    assert not set("\x00\x1b\u202e") & set(found.text)


def test_unfinished_runs_are_flagged_and_in_no_mean(runs, make_run, tmp_path: Path):
    options = {"label": "erm", "method": {"type": "ERM"}, "events": [epoch(1, validation_accuracy=0.1)]}
    with pytest.warns(UserWarning, match="cut short"):
        killed = make_run(seed=3, tail='{"ev', **options)
    text = written([*runs, killed], tmp_path).text
    for words in (
        "metrics.jsonl, line 2 is cut short and left out",
        "1 of 7 runs unfinished.",
        "unfinished: epoch 1 of 2",
        "96.0 ± 1.0",
        "over n = 3 seeds",
    ):
        assert words in text


@pytest.mark.filterwarnings("ignore:.*metrics.jsonl")
def test_a_page_of_unfinished_runs_alone_shows_how_far_they_came(make_run, tmp_path: Path):
    found = written([make_run(events=[epoch(1, validation_accuracy=0.4)])], tmp_path)
    assert "No run of digits, preact_resnet18, 2 epochs has finished yet" in found.text
    assert found.all("svg")
    assert "records.jsonl" not in found.text
    early = make_run(events=[outcome(0.5, epoch=1), {"event": "end"}]).folder
    assert "has a test of its last epoch yet" in written([read_run(early)], tmp_path).text
    (early / "metrics.jsonl").unlink()
    (early / "environment.json").unlink()
    assert "unfinished: epoch 0 of 2" in written([read_run(early)], tmp_path).text
    assert "The runs recorded no environment." in written([read_run(early)], tmp_path).text


def test_the_same_seed_again_does_not_weigh_twice(runs, make_run, tmp_path: Path):
    again = seeds_of(make_run, "erm", 0.35, method={"type": "ERM"})
    earlier, later = [written(order, tmp_path).text for order in ([*again, *runs], [*runs, *again])]
    assert "96.0 ± 1.0" in earlier
    assert "96.0 ± 1.0" not in later
    assert "left out: a later run has its settings and seed" in later
    assert written([*runs, *runs], tmp_path).text == written(runs, tmp_path).text


def test_settings_that_differ_are_said(make_run, tmp_path: Path):
    erm = seeds_of(make_run, "erm", 0.9)
    unequal = [*erm, *seeds_of(make_run, "mixup", 0.9, batch_size=64)]
    text = written(unequal, tmp_path).text
    assert "More than the method differs. Rows are unequal in batch_size." in text
    of_one_label = [*erm, *seeds_of(make_run, "erm", 0.8, method={"type": "Mixup", "alpha": 0.2})]
    text = written(of_one_label, tmp_path).text
    assert all(f"erm [{run.settings_hash[:6]}]" in text for run in of_one_label)


def test_every_data_set_has_its_tables(runs, make_run, tmp_path: Path):
    runs += [make_run(label=label, data="cifar10") for label in ("erm", "mixup")]
    with pytest.warns(UserWarning, match="no differences are given of svhn"):
        found = written([*runs, make_run(label="mixup", data="svhn")], tmp_path, paired="erm")
    found.check()
    assert "erm and mixup on digits, cifar10 and svhn" in found.text
    parts = found.html.split("<article ")[1:]
    assert ["2 epochs: difference to erm with the same seed" in part for part in parts] == [True, True, False]
    assert [part.count('<table class="results">') for part in parts] == [2, 2, 1]


def test_differences_seed_by_seed_have_a_table_where_they_are_asked_for(runs, make_run, tmp_path: Path):
    def rows_of(**options):
        return cells_of(written(runs, tmp_path, **options).html)

    row = ["mixup", "3", "+1.00 [+1.00, +1.00]", "-0.0100 [-0.0100, -0.0100]", "0.00 [0.00, 0.00]"]
    assert row not in rows_of()
    assert row in rows_of(paired="erm")
    assert [*row[:2], row[3]] in rows_of(paired="erm", metrics=["nll"])
    assert "difference to" not in written([make_run(events=[])], tmp_path, paired="erm").html


def test_one_run_is_shown_without_a_spread(make_run, tmp_path: Path):
    method = {"type": "Alternate", "methods": [{"type": "MultiMix", "alpha": [0.5, 2.0]}, {"type": "Mixup"}]}
    found = written([make_run(environment={"numpy": "2.4.6"}, method={**method, "weights": None})], tmp_path)
    assert len(found.all("svg")) == 2  # curves, and no plot of a single dot
    for words in (
        "mixup on digits",
        "n = 1 seed, so there is no spread.",
        "numpy 2.4.6",
        "method.methods.0.alpha [0.5, 2.0]",
        "method.methods.1.type Mixup",
        "method.weights null",
    ):
        assert words in found.text


def test_many_seeds_methods_and_machines_are_named_in_short(make_run, tmp_path: Path):
    devices = enumerate(["cpu"] * 2 + ["cuda"] * 7)
    runs = [make_run(label=f"m{i}", seed=i, environment={"device": device}) for i, device in devices]
    text = written(runs, tmp_path).text
    assert "9 methods on digits" in text
    assert "Trained on digits with preact_resnet18 for 2 epochs: 9 methods; seeds 0 to 8." in text
    assert "Device cpu (2 runs); cuda (7 runs)" in text


def test_the_numbers_behind_the_page_are_in_it(runs, tmp_path: Path):
    links = {link["download"]: link["href"] or "" for link in written(runs, tmp_path).all("a") if "download" in link}
    assert set(links) == {"records.jsonl", "table.csv"}
    lines = base64.b64decode(links["records.jsonl"].partition(",")[2]).decode().splitlines()
    assert len(lines) == len(records(runs))


def test_a_title_may_be_given_and_the_same_runs_give_the_same_page(runs, tmp_path: Path):
    out = page(runs, str(tmp_path / "new" / "folder" / "r.html"), title="Mine & yours")
    assert out == tmp_path / "new" / "folder" / "r.html"
    assert "<h1>Mine &amp; yours</h1>" in out.read_text(encoding="utf-8")
    assert [file.name for file in out.parent.iterdir()] == ["r.html"]
    assert_repeats(runs, page(runs, tmp_path / "first.html"))


def test_reading_and_tabulating_needs_neither_torch_nor_matplotlib():
    heavy = {"torch", "matplotlib", "jinja2", "numpy", "scipy"}
    script = f"import sys, multimix.lab.report; sys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.bad_input
def test_wrong_arguments(runs, tmp_path: Path):
    with pytest.raises(ValueError, match="runs: expected at least one run, got none"):
        page([], tmp_path / "report.html")
    with pytest.raises(ValueError, match="expected a file to write, got a folder"):
        page(runs, tmp_path)
    with pytest.raises(ValueError, match="against: expected one of erm, mixup, got 'cutmix'"):
        page(runs, tmp_path / "report.html", paired="cutmix")
    assert not (tmp_path / "report.html").exists()
