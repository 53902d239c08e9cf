"""From a folder of photos to predictions and to a file for other programs, as a new user goes."""

import csv
import io
import json
from pathlib import Path

import pytest

import multimix as mm
from photos import photos

QUICK = "--epochs 8 --image-size 16 --width 8 --device cpu"


@pytest.fixture
def pics(multimix):
    """A folder of photos, a run trained on it, and what training said."""
    photos(Path("pics"))
    code, out, err = multimix(f"train folder:pics {QUICK} --name pics")
    assert code == 0
    return out, err


def test_from_a_folder_to_predictions_and_a_file(multimix, pics, monkeypatch):
    out, err = pics
    assert "folder:pics: network preact_resnet18 of width 16" in err
    assert "folder:pics: 150 epochs in batches of 8 for 26 training images" in err or "training images" in err
    assert [line.split()[0] for line in err.splitlines() if line[:5] in ("all  ", "blue ", "green", "red  ")]
    assert "run: runs/pics" in out

    Path("pics/red/bad.png").write_bytes(b"no image")
    Path("pics/notes.txt").touch()
    code, said, err = multimix("predict runs/pics pics/red pics/blue/0.png --top 2")
    assert code == 0
    lines = said.splitlines()
    assert len(lines) == 13
    assert lines[-1].startswith("pics/blue/0.png: blue ")
    assert "multimix: pics/red/bad.png cannot be read as an image" in err
    assert "1 of 14 files could not be read" in err

    code, said, err = multimix("predict runs/pics pics --out found.csv --quiet")
    assert code == 0
    assert said.startswith("wrote found.csv: 36 images (")
    assert said.endswith("), 1 could not be read\n")
    assert "no image by its name: 1: notes.txt" in err
    rows = list(csv.DictReader(Path("found.csv").read_text().splitlines()))
    assert list(rows[0]) == [
        "file",
        *("class", "probability"),
        *("class_2", "probability_2", "class_3", "probability_3"),
    ]
    model = mm.load("runs/pics", device="cpu")
    for row in rows[::7]:
        [expected] = model.predict([row["file"]])
        assert row["class"] == expected.label
        assert float(row["probability"]) == pytest.approx(expected.probability, rel=1e-4)
    assert sum(row["class"] == Path(row["file"]).parent.name for row in rows) > 30

    monkeypatch.setattr("sys.stdin", io.StringIO("pics/red/0.png\n\npics/gone.png\n"))
    code, said, err = multimix("predict runs/pics - --out found.jsonl")
    assert (code, err.count("\n")) == (0, 1)
    assert "pics/gone.png cannot be read" in err
    [one] = map(json.loads, Path("found.jsonl").read_text().splitlines())
    assert (one["file"], one["class"]) == ("pics/red/0.png", one["top"][0]["class"])

    said = multimix.succeeds("export runs/pics --out pics.pt2")
    assert said.startswith("wrote pics.pt2 (")
    assert "takes float32 images batch x 3 x 16 x 16, pixels in [0, 1], RGB" in said
    assert "inside: classes (blue, green, red), preprocessing" in said
    assert "checked with torch " in said
    assert Path("pics.pt2").is_file()
    said = multimix.succeeds("export runs/pics --format safetensors")
    assert "wrote runs/pics/exported.safetensors" in said
    assert (
        multimix("predict runs/pics/exported.safetensors pics/red/0.png")[1]
        == multimix("predict runs/pics pics/red/0.png")[1]
    )


def test_methods_are_compared_on_a_folder(multimix):
    photos(Path("pics"))
    tiny = QUICK.replace("--epochs 8", "--epochs 1")
    code, _, err = multimix(f"compare folder:pics --methods erm mixup --seeds 1 {tiny} --out cmp")
    assert code == 0
    assert err.count("folder:pics: network") == 1
    assert Path("cmp/report.html").is_file()


@pytest.mark.bad_input
def test_wrong_input_is_one_line(multimix, finished):
    Path("empty").mkdir()
    Path("bad.png").write_bytes(b"no image")
    refused = {
        f"predict {finished} gone.png": "there is no file or folder gone.png",
        f"predict {finished} empty": "there is no image in empty",
        f"predict {finished} bad.png --out found.txt": "--out must end in .csv or .jsonl, got found.txt",
        f"predict {finished} bad.png --top 0": "argument --top: must be at least 1, got 0; see multimix predict --help",
        "predict nowhere bad.png": "there is no folder 'nowhere'",
        "export nowhere": "there is no folder 'nowhere'",
        f"export {finished} --out x.pb": "format must be one of onnx, pt2, safetensors, got 'pb'",
        "train folder:gone": "folder:gone is not a folder",
        "train folder": "unknown recipe 'folder'; did you mean folder:PATH?",
        "train empty": "unknown recipe 'empty'; did you mean folder:empty?",
        "compare folder:gone": "the following arguments are required: --methods",
    }
    for line, said in refused.items():
        assert multimix.complains(line).startswith(said), line
    code, out, err = multimix(f"predict {finished} bad.png")
    assert (code, out) == (2, "")
    assert err.endswith("multimix: none of 1 files can be read\n")
