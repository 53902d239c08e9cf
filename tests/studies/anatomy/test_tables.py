import json

import pytest

from anatomy import TABLES, AnatomySettings, anatomise, read, render, tables
from train.tiny import splits_of, tiny

FEW = AnatomySettings(
    batches=1, tuples=20, dense_tuples=5, expected_tuples=20, noise_tuples=(5,), noise_draws=2, examples=50, points=(1,)
)


@pytest.fixture(scope="module")
def records():
    config = tiny(epochs=1)
    return list(anatomise(config, splits_of(config), FEW))


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_a_row_for_each_point_and_no_gap(records, name):
    (table,) = tables(records, [name])
    assert [row[:2] for row in table.rows] == [("erm", "0 %"), ("erm", "100 %")]
    assert all(len(row) == len(table.headings) for row in table.rows)
    assert not any("–" in cell for row in table.rows for cell in row)


def test_seeds_are_averaged():
    about = {"label": "erm", "progress": 0.5, "data": "d", "model": "n", "m": 4, "device": "cpu"}
    rows = [
        {"metric": name, "value": value, "seed": seed, **about}
        for seed, values in enumerate([(0.25, -0.5, 0.5, 1.0), (0.75, -0.25, 0.25, 0.5)])
        for name, value in zip(("within_between", "spread", "confidence", "accuracy"), values, strict=True)
    ]
    assert tables(rows, ["classes"])[0].rows == [("erm", "50 %", "0.5", "-0.375", "0.375", "0.75")]


def test_markdown_says_where_the_numbers_come_from(records):
    text = render(records, "classes")
    first, rule, *rows = text.splitlines()
    headings = ["trained with", "progress", "within / between", "cosine of class means", "confidence"]
    assert first == f"| {' | '.join([*headings, 'training accuracy'])} |"
    assert rule == "| :--- |" + " ---: |" * 5
    assert rows[0].startswith("| erm | 0 % |")
    assert "digits, preact_resnet18, m 32, seed 0, cpu" in rows[-1]


def test_some_methods_alone(records):
    both = [*records, *({**record, "label": "multimix"} for record in records)]
    assert "multimix" in render(both, "classes")
    assert render(both, "classes", ["erm"]) == render(records, "classes")


@pytest.mark.bad_input
def test_what_cannot_be_shown_is_named(records, tmp_path):
    with pytest.raises(ValueError, match=r"table must be one of summary, .*, got 'nothing'"):
        render(records, "nothing")
    with pytest.raises(ValueError, match="records must hold at least one record, got none"):
        render([], "law")
    with pytest.raises(ValueError, match="labels must be among erm, got mixup"):
        render(records, "law", ["erm", "mixup"])
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps({"metric": "accuracy"}) + "\n")
    with pytest.raises(ValueError, match=r"line 1: expected a record with value, got \['metric'\]"):
        read(path)
