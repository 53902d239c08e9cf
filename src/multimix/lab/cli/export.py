"""``multimix export``."""

from pathlib import Path

from multimix.lab._paths import expanded
from multimix.lab.cli._parser import Options, Parser, output_file
from multimix.lab.inference import FORMATS, export
from multimix.lab.inference._export import OPSET

OPTIONS: Options = {
    "run": {"metavar": "RUN", "help": "folder of a finished run, or of save_pretrained; or owner/name on the hub"},
    "--format": {"choices": FORMATS, "help": "what to write (default: what the ending of --out says, else onnx)"},
    "--out": {"type": output_file, "metavar": "FILE", "help": "the file to write (default: RUN/exported.FORMAT)"},
}
ABOUT = f"""Write a trained network to one file for other programs, and check it against the network on the spot.

onnx: opset {OPSET}; pt2: torch.export. Both take any number of images and have normalisation inside. safetensors: the
weights, for multimix predict and mm.load. Classes and preprocessing are in the metadata of each."""


def main(arguments: list[str]) -> None:
    """Export a run and say what came of it."""
    given = Parser(OPTIONS, prog="multimix export", description=ABOUT).parse_args(arguments)
    chosen = given.format or (given.out.suffix.removeprefix(".") if given.out and given.out.suffix else FORMATS[0])
    folder = expanded(given.run) if expanded(given.run).is_dir() else Path()
    made = export(given.run, given.out or output_file(f"{folder}/exported.{chosen}"), format=chosen)
    about = made.about
    size = " x ".join(map(str, about["input"]["shape"]))
    opset = f", opset {OPSET}" if chosen == "onnx" else ""
    print(f"wrote {made.file} ({made.file.stat().st_size / 1e6:.1f} MB{opset})")
    if chosen != "safetensors":
        takes = f"{about['input']['type']} {about['input']['name']} {size}, pixels {about['input']['pixels']}"
        print(f"takes {takes}; gives {' and '.join(about['outputs'])} of {len(about['classes'])} classes")
    shown = ", ".join(about["classes"][:6]) + ", ..." * (len(about["classes"]) > 6)
    print(f"inside: classes ({shown}), preprocessing, mean and standard deviation")
    print(
        f"checked with {made.runtime}: logits differ from the network's by {made.difference:.2g} at most, of"
        f" {made.largest:.3g} at most"
    )
