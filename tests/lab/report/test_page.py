import base64
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from multimix.lab.report import page, read_run, records
from report.factory import ended, epoch, outcome

EVIL = "<script>alert(1)</script>\"'&{{ 7 * 7 }}"
FETCHING = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background", "formaction", "ping"}


class Page(HTMLParser):
    """Elements, attributes and text of a page, as a browser has them."""

    def __init__(self, html: str) -> None:
        super().__init__()
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


def written(runs, tmp_path: Path) -> Page:
    return Page(page(runs, tmp_path / "report.html").read_text(encoding="utf-8"))


def three_seeds(make_run, label, *values, **options):
    return [
        read_run(
            make_run(
                label=label,
                seed=seed,
                events=[
                    epoch(1, validation_accuracy=0.5),
                    epoch(2, validation_accuracy=0.8, validation_nll=0.3),
                    outcome(value, nll=0.1, ece=0.02, epoch=2),
                    ended(),
                ],
                **options,
            )
        )
        for seed, value in enumerate(values)
    ]


@pytest.fixture
def runs(make_run):
    return [
        *three_seeds(make_run, "erm", 0.95, 0.96, 0.97, method={"type": "ERM"}),
        *three_seeds(make_run, "mixup", 0.96, 0.97, 0.98, pictures={"mixed.png": "Eight mixed digits."}),
    ]


def test_the_page_says_what_was_run_and_what_came_out(runs, tmp_path: Path):
    found = written(runs, tmp_path)
    for words in (
        "erm and mixup on digits",
        "Trained on digits with preact_resnet18 for 2 epochs: erm and mixup; seeds 0, 1 and 2.",
        "Every number is that of the last epoch's network: mean ± sample standard deviation over n seeds.",
        "96.0 ± 1.0",
        "97.0 ± 1.0",
        "over n = 3 seeds",
        "All rows share every setting but the method's own.",
        "Expected calibration error",
        "multimix compare digits --seeds 3",
        "PyTorch 2.14.1",
        "Commit abc123",
        "method.alpha 1.0",
        "batch_size 128",
        "runs/run-5",
    ):
        assert words in found.text, words
    assert found.text.count("Eight mixed digits.") == 1  # one seed is enough
    assert "unfinished" not in found.text


def test_the_page_fetches_nothing(runs, tmp_path: Path):
    html = page(runs, tmp_path / "report.html").read_text(encoding="utf-8")
    found = Page(html)
    sources = [value for _, attributes in found.tags for name, value in attributes.items() if name in FETCHING]
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert {"script", "link", "iframe", "object", "embed"}.isdisjoint(tag for tag, _ in found.tags)
    policies = [meta["content"] for meta in found.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_anchors_lead_somewhere_and_ids_are_unique(runs, tmp_path: Path):
    found = written(runs, tmp_path)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [attributes["href"] for _, attributes in found.tags if (attributes.get("href") or "").startswith("#")]
    assert {anchor[1:] for anchor in anchors} <= set(ids)


def test_figures_and_pictures_have_words(runs, tmp_path: Path):
    found = written(runs, tmp_path)
    assert [image["alt"] for image in found.all("img")] == ["mixup: Eight mixed digits."]
    figures = found.all("svg")
    assert len(figures) == 4
    assert all(len(figure["aria-label"] or "") > 40 for figure in figures)
    picture = base64.b64decode((found.all("img")[0]["src"] or "").partition(",")[2])
    assert picture == runs[3].pictures[0].path.read_bytes()


def test_every_string_from_the_data_is_text(make_run, tmp_path: Path):
    options = {
        "label": EVIL,
        "data": EVIL,
        "model": EVIL,
        "method": {"type": EVIL, EVIL: EVIL},
        "extra": {EVIL: [EVIL]},
        "environment": {"command": EVIL, "device": EVIL, "commit": EVIL, "date": EVIL, "torch": EVIL},
        "pictures": {"mixed.png": EVIL},
    }
    events = [epoch(1, validation_accuracy=0.5), outcome(0.9, **{EVIL: 1.0}), ended()]
    found = written([read_run(make_run(events=events, **options)), read_run(make_run())], tmp_path)
    assert "script" not in {tag for tag, _ in found.tags}
    assert found.text.count("<script>alert(1)</script>") > 10
    assert "{{ 7 * 7 }}" in found.text
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]


def test_unprintable_letters_do_no_harm(make_run, tmp_path: Path):
    odd = "a\x00\x1b\ud800\ufffe\u202e漢"
    options = {
        "label": odd,
        "method": {"type": odd},
        "environment": {"command": f"{odd}\nsecond"},
        "pictures": {"m.png": odd},
    }
    found = written([read_run(make_run(**options))], tmp_path)
    assert "漢" in found.text
    assert not set("\x00\x1b\u202e") & set(found.text)


def test_unfinished_runs_are_flagged_and_in_no_mean(runs, make_run, tmp_path: Path):
    killed = read_run(
        make_run(label="erm", seed=3, method={"type": "ERM"}, events=[epoch(1, validation_accuracy=0.1)], tail='{"ev')
    )
    found = written([*runs, killed], tmp_path)
    assert "1 of 7 runs unfinished." in found.text
    assert "unfinished: epoch 1 of 2" in found.text
    assert "96.0 ± 1.0" in found.text
    assert "over n = 3 seeds" in found.text


def test_a_page_of_unfinished_runs_alone_shows_how_far_they_came(make_run, tmp_path: Path):
    found = written([read_run(make_run(events=[epoch(1, validation_accuracy=0.4)]))], tmp_path)
    assert "No run of digits, preact_resnet18, 2 epochs has finished yet" in found.text
    assert found.all("svg")
    assert "records.jsonl" not in found.text


def test_a_run_that_wrote_nothing_but_its_configuration_is_listed(make_run, tmp_path: Path):
    folder = make_run()
    (folder / "metrics.jsonl").unlink()
    (folder / "environment.json").unlink()
    found = written([read_run(folder)], tmp_path)
    assert "unfinished: epoch 0 of 2" in found.text
    assert "The runs recorded no environment." in found.text


def test_the_same_seed_again_does_not_weigh_twice(runs, make_run, tmp_path: Path):
    again = three_seeds(make_run, "erm", 0.35, method={"type": "ERM"})
    earlier, later = [written(order, tmp_path).text for order in ([*again, *runs], [*runs, *again])]
    assert "96.0 ± 1.0" in earlier
    assert "96.0 ± 1.0" not in later
    assert "left out: a later run has its settings and seed" in later
    assert written([*runs, *runs], tmp_path).text == written(runs, tmp_path).text


def test_more_than_the_method_differs_is_said(make_run, tmp_path: Path):
    runs = [*three_seeds(make_run, "erm", 0.9), *three_seeds(make_run, "mixup", 0.9, batch_size=64)]
    assert "More than the method differs. Rows are unequal in batch_size." in written(runs, tmp_path).text


def test_unequal_settings_under_one_label_are_rows_of_their_own(make_run, tmp_path: Path):
    runs = [
        *three_seeds(make_run, "mixup", 0.9),
        *three_seeds(make_run, "mixup", 0.8, method={"type": "Mixup", "alpha": 0.2}),
    ]
    text = written(runs, tmp_path).text
    assert all(f"mixup [{run.settings_hash[:6]}]" in text for run in runs)


def test_every_data_set_has_its_table(runs, make_run, tmp_path: Path):
    found = written([*runs, *three_seeds(make_run, "erm", 0.5, 0.6, data="cifar10")], tmp_path)
    assert "erm and mixup on digits and cifar10" in found.text
    assert sum(table.get("class") == "results" for table in found.all("table")) == 2


def test_one_run_is_shown_without_a_spread(make_run, tmp_path: Path):
    found = written([read_run(make_run(environment={"numpy": "2.4.6"}))], tmp_path)
    assert "mixup on digits" in found.text
    assert "n = 1 seed, so there is no spread." in found.text
    assert len(found.all("svg")) == 2  # curves, and no plot of a single dot
    assert "method.alpha 1.0" in found.text
    assert "numpy 2.4.6" in found.text


def test_runs_that_ran_on_different_machines_say_so(make_run, tmp_path: Path):
    runs = [
        read_run(make_run(seed=seed, environment={"device": device}))
        for seed, device in enumerate(("cpu", "cpu", "cuda"))
    ]
    assert "Device cpu (2 runs); cuda (1 run)" in written(runs, tmp_path).text


def test_many_seeds_and_methods_are_named_in_short(make_run, tmp_path: Path):
    runs = [read_run(make_run(label=f"m{index}", seed=index)) for index in range(9)]
    assert (
        "Trained on digits with preact_resnet18 for 2 epochs: 9 methods; seeds 0 to 8." in written(runs, tmp_path).text
    )


def test_nested_settings_are_listed_flat(make_run, tmp_path: Path):
    method = {
        "type": "Alternate",
        "methods": [{"type": "MultiMix", "alpha": [0.5, 2.0]}, {"type": "Mixup"}],
        "weights": None,
    }
    text = written([read_run(make_run(method=method))], tmp_path).text
    assert "method.methods.0.alpha [0.5, 2.0]" in text
    assert "method.methods.1.type Mixup" in text
    assert "method.weights null" in text


def test_the_numbers_behind_the_page_are_in_it(runs, tmp_path: Path):
    found = written(runs, tmp_path)
    links = {link["download"]: link["href"] or "" for link in found.all("a") if "download" in link}
    assert set(links) == {"records.jsonl", "table.csv"}
    lines = base64.b64decode(links["records.jsonl"].partition(",")[2]).decode().splitlines()
    assert len(lines) == len(records(runs))


def test_a_title_may_be_given(runs, tmp_path: Path):
    out = page(runs, str(tmp_path / "new" / "folder" / "r.html"), title="Mine & yours")
    assert out == tmp_path / "new" / "folder" / "r.html"
    assert "<h1>Mine &amp; yours</h1>" in out.read_text(encoding="utf-8")
    assert [file.name for file in out.parent.iterdir()] == ["r.html"]


def test_the_same_runs_give_the_same_page_in_any_process(runs, tmp_path: Path):
    first = page(runs, tmp_path / "runs" / "first.html").read_bytes()
    script = "import sys; from multimix.lab.report import *; page([read_run(f) for f in sys.argv[2:]], sys.argv[1])"
    folders = [str(run.folder) for run in runs]
    out = tmp_path / "runs" / "second.html"
    subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(out), *folders],
        check=True,
        env={"PYTHONHASHSEED": "7", "HOME": str(tmp_path)},
    )
    assert out.read_bytes() == first


def test_reading_and_tabulating_needs_neither_torch_nor_matplotlib():
    script = "import sys, multimix.lab.report; sys.exit(bool({'torch', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.bad_input
def test_wrong_arguments(runs, tmp_path: Path):
    with pytest.raises(ValueError, match="runs: expected at least one run, got none"):
        page([], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(ValueError, match="expected a file to write, got a folder"):
        page(runs, tmp_path)
