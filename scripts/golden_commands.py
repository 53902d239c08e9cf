"""The cases of ``golden.py`` that run the command line."""

import html
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from golden_record import Golden
from PIL import Image
from safetensors.torch import load_file

CHANGING = {"seconds", "images_per_second", "step_seconds", "peak_mib", "date", "commit", "command", "threads"}
"""What differs from run to run."""
SMALL = "--train-size 300 --width 4 --epochs 2 --device cpu"
DETECT = (
    "--train-split train --test-split val --epochs 2 --batch-size 2 --channels 8 --hidden 16 --proposals 40"
    " --sampled 16 --min-size 48 --max-size 64 --coarsest 16 --device cpu --finest 1"
)
TRAINED = {
    "multimix": "digits --method multimix --ema 0.9",
    "dense": "digits --method dense-multimix --validate-every 2",
    "distilled": "digits --method distilled-multimix --accumulate 2",
    "distilled-dense": "digits --method distilled-dense-multimix --method.gamma 0.3",
    "paper": "digits --method multimix-paper --clip 1.0 --checkpoint-steps 1",
    "dense-paper": "digits --method dense-multimix-paper --flip",
    "recommended": "digits-multimix --seed 3",
    "learned": "digits --method adamixup --model wide_resnet16_8 --width 1 --strides 1 2 2",
}


def commands(golden: Golden, folder: Path) -> None:
    """Train, kill, resume, evaluate, compare, detect and report, in a folder."""
    for name, line in TRAINED.items():
        size = SMALL.replace("--width 4", "") if "--width" in line else SMALL
        if _call(golden, f"train/{name}", folder, f"train {line} {size} --name {name} --out runs --quiet"):
            _run(golden, f"train/{name}", folder / "runs" / name)
    _killed(golden, folder)
    if _call(golden, "compare", folder, f"compare digits --methods erm mixup --seeds 2 {SMALL} --out compared --quiet"):
        for run in sorted(path.parent for path in folder.glob("compared/**/model.safetensors")):
            _run(golden, f"compare/{run.name}", run)
    suites = "accuracy calibration adversarial ood corruption occlusion embedding intrusion"
    measured = f"evaluate runs/multimix --suites {suites} --examples 130 --ood.examples 60 --embedding.picture none"
    if _call(golden, "evaluate", folder, measured):
        _run(golden, "evaluate", folder / "runs/multimix")
        for file in sorted(folder.glob("runs/multimix/evaluation/*.json")):
            golden.add(f"command/evaluate/data/{file.name}", _without(json.loads(file.read_text(encoding="utf-8"))))
    _squares(folder / "coco", "train", 6)
    _squares(folder / "coco", "val", 3)
    line = f"detect coco-mini --backbone runs/multimix --data coco:coco {DETECT} --name boxes --out detected --quiet"
    if _call(golden, "detect", folder, line):
        _run(golden, "detect", folder / "detected/boxes")
    _report(golden, folder)


def _command(line: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "multimix", *line.split()]


def _call(golden: Golden, name: str, folder: Path, line: str) -> bool:
    """Run a command line; keep its exit code and, if it fails, the last line that it says."""
    done = subprocess.run(_command(line), cwd=folder, capture_output=True, text=True, check=False)
    said = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    golden.add(f"command/{name}/exit", [str(done.returncode), *said])
    return done.returncode == 0


def _killed(golden: Golden, folder: Path) -> None:
    """Kill a run once it has written a checkpoint, and resume it."""
    longer = SMALL.replace("--epochs 2", "--epochs 8 --checkpoint-steps 1")
    line = f"train digits --method distilled-multimix {longer} --out runs --quiet"
    if _call(golden, "whole", folder, f"{line} --name whole"):
        _run(golden, "whole", folder / "runs/whole")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen(_command(f"{line} --name killed"), cwd=folder, env=os.environ, **quiet)
    while started.poll() is None and not (folder / "runs/killed/last.ckpt").exists():
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    golden.add("command/killed/signal", started.wait())
    if _call(golden, "resumed", folder, "train --resume runs/killed --quiet"):
        _run(golden, "killed", folder / "runs/killed", metrics=False)


def _run(golden: Golden, name: str, run: Path, *, metrics: bool = True) -> None:
    """Keep a run's final weights, whatever they are called, and every number of its log by name."""
    weights = load_file(next(iter(sorted(run.glob("*.safetensors")))))
    found = sorted(weights.items(), key=lambda item: (tuple(item[1].shape), item[1].double().sum().item()))
    golden.add(f"command/{name}/weights", [tensor for _, tensor in found])
    golden.add(f"command/{name}/weights/names", sorted(weights))
    if not metrics:
        return
    for at, line in enumerate((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()):
        event = _without(json.loads(line))
        title = "-".join(str(event[key]) for key in ("event", "suite", "split", "when") if key in event)
        for key, value in event.items():
            golden.add(f"command/{name}/metrics/{at}-{title}/{key}", value)


def _without(value: Any) -> Any:
    """Return a value of JSON without what differs from run to run."""
    if isinstance(value, dict):
        return {key: _without(part) for key, part in value.items() if key not in CHANGING}
    return [_without(part) for part in value] if isinstance(value, list) else value


def _squares(folder: Path, split: str, count: int) -> None:
    """Write grey images with a red or a blue square each in COCO's format."""
    random = np.random.default_rng(count)
    found: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    found["categories"] = [{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}]
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    for i in range(1, count + 1):
        pixels = random.integers(100, 140, (48, 64, 3), dtype=np.uint8)
        side = int(random.integers(16, 28))
        left, top = int(random.integers(0, 64 - side)), int(random.integers(0, 48 - side))
        pixels[top : top + side, left : left + side] = (250, 10, 10) if i % 2 else (10, 10, 250)
        Image.fromarray(pixels).save(folder / split / f"{i}.png")
        found["images"].append({"id": i, "file_name": f"{i}.png", "height": 48, "width": 64})
        box = {"bbox": [left, top, side, side], "category_id": 3 if i % 2 else 7}
        found["annotations"].append({"id": i, "image_id": i, **box})
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(found), encoding="utf-8")


def _report(golden: Golden, folder: Path) -> None:
    """Keep every number on a page of runs whose times have been made equal, and all records."""
    for file in (*folder.glob("**/metrics.jsonl"), *folder.glob("**/environment.json")):
        whole = file.suffix == ".json"
        text = file.read_text(encoding="utf-8")
        rows = [_fixed(json.loads(part)) for part in ([text] if whole else text.splitlines())]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    shown = {"runs": "runs", "compared": "compared --paired erm"}
    for name, what in shown.items():
        line = f"report {what} --out {name}.html --records {name}.jsonl --format csv"
        if not _call(golden, f"report/{name}", folder, line):
            continue
        text = re.sub(r"(?s)<(style|script)\b.*?</\1>|<[^>]*>", " ", (folder / f"{name}.html").read_text("utf-8"))
        numbers = re.findall(r"(?<![\w.])[-−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?(?!\w)", html.unescape(text))
        golden.add(f"command/report/{name}/numbers", numbers)
        golden.add(f"command/report/{name}/numbers/sorted", sorted(numbers))
        for at, row in enumerate((folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()):
            record = _without(json.loads(row))
            title = "/".join(str(record.pop(key, "")) for key in ("label", "seed", "suite", "metric"))
            golden.add(f"command/report/{name}/record/{title}/{at}", record)


def _fixed(row: dict[str, Any]) -> dict[str, Any]:
    """Return an event, or the environment of a run, as if it had taken a second at a fixed time."""
    fixed = {"date": "2024-01-01T00:00:00+00:00", "commit": "0" * 12, "command": None}
    return {key: fixed.get(key, 1.0) if key in CHANGING else value for key, value in row.items()}
