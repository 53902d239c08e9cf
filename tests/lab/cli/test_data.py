"""``multimix data``, and sixty awkward pictures from the folder to the report."""

from pathlib import Path

from cli.command import TINY
from data.awkward import sixty


def test_sixty_awkward_pictures_are_listed_left_out_and_trained_on(multimix):
    readable, bad, _ = sixty(Path("pics"))
    code, out, err = multimix("data pics")
    assert (code, err) == (2, f"multimix: {len(bad)} files cannot be read; --skip-unreadable leaves them out\n")
    listed = {line.partition(": ")[0] for line in out.splitlines()}
    assert listed == {str(path) for path in Path("pics").rglob("*") if path.name in bad}

    out = multimix.succeeds("data pics --skip-unreadable")
    assert f"{len(readable)} images (" in out
    assert "left out, cannot be read: 7 (" in out
    lines = [line.split() for line in out.splitlines() if line[:4] in ("all ", "ant ", "bee ")]
    rows = {name: [*map(int, counts)] for name, *counts in lines}
    assert sum(rows["all"]) == len(readable)
    assert [sum(pair) for pair in zip(rows["ant"], rows["bee"], strict=True)] == rows["all"]

    tiny = TINY.replace("--train-size 100", "")
    train = f"train digits {tiny} --data folder:pics --image-size 16 --name run --out . --quiet"
    assert "7 of 55 files cannot be read as images" in multimix.complains(train)
    assert not Path("run").exists()
    code, out, err = multimix(f"{train} --skip-unreadable".replace("--quiet", ""))
    assert code == 0
    assert "folder:pics: left out, cannot be read: 7 (" in err
    assert f"({rows['all'][2]} images, epoch 1)" in out
    assert "calibration: accuracy" in multimix.succeeds("evaluate run")


def test_a_named_data_set_is_shown_by_split_and_class(multimix):
    out = multimix.succeeds("data digits")
    assert "10 classes; the network sees 1 channels of 8 x 8 pixels; in memory" in out
    assert [*map(int, out.split("all")[1].split()[:3])] == [1294, 144, 359]
