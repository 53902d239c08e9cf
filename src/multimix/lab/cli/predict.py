"""``multimix predict``."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from multimix.lab._paths import expanded
from multimix.lab.cli._parser import Options, Parser, at_least, output_file, told
from multimix.lab.data._folder import Survey, images_under
from multimix.lab.inference import Classifier, Prediction, load

OPTIONS: Options = {
    "run": {
        "metavar": "RUN",
        "help": "folder of a finished run, or of save_pretrained; a file of multimix export --format safetensors; or"
        " owner/name on the hub",
    },
    "paths": {"nargs": "+", "metavar": "PATH", "help": "images, folders of them, or - for names on standard input"},
    "--top": {"type": at_least(1), "default": 3, "metavar": "K", "help": "classes named for each image (default: 3)"},
    "--threshold": {
        "type": float,
        "default": 0.5,
        "metavar": "P",
        "help": "of several labels an image, the probability from which on it has one (default: 0.5)",
    },
    "--out": {"type": output_file, "metavar": "FILE", "help": "write .csv or .jsonl instead of lines"},
    "--batch-size": {"type": at_least(1), "default": 64, "metavar": "N", "help": "images a batch (default: 64)"},
    "--workers": {"type": at_least(0), "default": 0, "metavar": "N", "help": "processes that read images (default: 0)"},
    "--device": {"default": "auto", "help": "auto, cpu, cuda or cuda:N (default: auto)"},
    "--quiet": {"action": "store_true", "help": "show no progress"},
}
ABOUT = """Say what a trained network sees in images: class, probability, and the next classes.

Images go through the preprocessing of the run. Files that cannot be read are named and passed by."""

Write = Callable[[str, Prediction], None]


def main(arguments: list[str]) -> None:
    """Predict images and print or write what came of it."""
    given = Parser(OPTIONS, prog="multimix predict", description=ABOUT).parse_args(arguments)
    if given.out is not None and given.out.suffix not in (".csv", ".jsonl"):
        raise ValueError(f"--out must end in .csv or .jsonl, got {given.out}")
    paths = [path for name in given.paths for path in _images(name)]
    if not paths:
        raise ValueError(f"there is no image in {', '.join(given.paths)}")
    model = load(given.run, device=given.device)
    options = {name: vars(given)[name] for name in ("top", "threshold", "batch_size", "workers")}
    console = Console(stderr=True)
    failed, counts = 0, dict.fromkeys(model.classes, 0)
    with ExitStack() as stack:
        write = _writer(given.out, model, given.top, stack)
        found = model.predict_files(paths, **options)
        hidden = given.quiet or given.out is None or not console.is_terminal
        for path, said in track(found, "predicting", len(paths), console=console, transient=True, disable=hidden):
            if not isinstance(said, Prediction):
                failed += 1
                told(f"multimix: {said}")
                continue
            write(path, said)
            for label in said.labels:
                counts[label] += 1
    if failed == len(paths):
        raise ValueError(f"none of {len(paths)} files can be read")
    left_out = f", {failed} could not be read" if failed else ""
    if given.out is not None:
        most = sorted(((count, name) for name, count in counts.items() if count), key=lambda pair: -pair[0])
        named = ", ".join(f"{count} {name}" for count, name in most[:10]) + ", ..." * (len(most) > 10)
        print(f"wrote {given.out}: {len(paths) - failed} images ({named}){left_out}")
    elif failed:
        told(f"multimix: {failed} of {len(paths)} files could not be read")


def _images(name: str) -> Iterator[str]:
    """Yield the image files that an argument names."""
    if name == "-":
        yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        return
    path = expanded(name)
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {name}")
    if path.is_dir():
        survey = Survey(path)
        yield from images_under(path, survey)
        for line in survey.lines():
            told(f"{name}: {line}")
    else:
        yield str(path)


def _writer(out: Path | None, model: Classifier, top: int, stack: ExitStack) -> Write:
    """Return what takes each prediction; each is in the file at once, so that a stop loses none."""
    if out is None:
        return lambda path, said: print(f"{path}: {line_of(said, several=model.several)}")
    file = stack.enter_context(out.open("w", encoding="utf-8", newline="", errors="surrogateescape"))
    if out.suffix == ".jsonl":

        def write_json(path: str, said: Prediction) -> None:
            named = [{"class": name, "probability": p} for name, p in said.top]
            labels: dict[str, Any] = {"labels": list(said.labels)} if model.several else {}
            first = {"class": said.label, "probability": said.probability}
            print(
                json.dumps({"file": path, **labels, **first, "top": named}, ensure_ascii=False), file=file, flush=True
            )

        return write_json
    rows = csv.writer(file)
    ranks = [f"_{rank}" if rank > 1 else "" for rank in range(1, min(top, len(model.classes)) + 1)]
    columns = [f"{name}{rank}" for rank in ranks for name in ("class", "probability")]
    rows.writerow(["file", *(["labels"] if model.several else []), *columns])

    def write_row(path: str, said: Prediction) -> None:
        labels = [";".join(said.labels)] if model.several else []
        rows.writerow([path, *labels, *(value for name, p in said.top for value in (name, f"{p:.6g}"))])
        file.flush()

    return write_row


def line_of(said: Prediction, *, several: bool) -> str:
    """Return a prediction in words: the class and its probability, then the next ones."""
    named = [f"{name} {p:.1%}" for name, p in said.top]
    if several:
        return f"{', '.join(said.labels) or 'no label'}  ({', '.join(named)})"
    return f"{named[0]}  ({', '.join(named[1:])})" if named[1:] else named[0]
