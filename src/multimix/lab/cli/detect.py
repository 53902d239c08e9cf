"""``multimix detect``."""

from datetime import datetime
from pathlib import Path
from typing import Any

from multimix.lab.cli._arguments import override
from multimix.lab.cli._parser import Parser, output_file
from multimix.lab.detect import DetectFolder, detect, resume_detect, write_detection_records
from multimix.lab.recipes.detection import DETECTION_RECIPES, detection_recipe_named

USAGE = """multimix detect RECIPE --backbone RUN [--data coco:PATH] [--name NAME] [--out FOLDER]
                       [--records FILE] [--FIELD VALUE ...]
       multimix detect --resume RUN [--records FILE]"""

_SHOWN = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "11_point/ap50": "11-point AP50", "ar100": "AR100"}


def main(arguments: list[str]) -> None:
    """Fine-tune a run's backbone to detect objects by a recipe, any field overridden, or continue such a run."""
    parser = Parser(prog="multimix detect", usage=USAGE, add_help=False)
    parser.add_argument("recipe", nargs="?", help=", ".join(DETECTION_RECIPES))
    parser.add_argument("--name", help="of the run folder; by default recipe, backbone, seed and time")
    parser.add_argument("--out", type=Path, default=Path("runs/detect"), help="where run folders go")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="continue a run where its last checkpoint left it")
    parser.add_argument(
        "--records", type=output_file, metavar="FILE", help="also write the numbers as records (JSON lines)"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but the result")
    if not arguments or arguments[0] in ("-h", "--help"):
        print(parser.format_help() + "\nmultimix detect RECIPE --help lists every field and its value in the recipe.")
        return
    given, rest = parser.parse_known_args(arguments)
    if given.resume:
        if rest or given.recipe or given.name:
            raise ValueError("--resume takes the run's own configuration and goes with no other argument")
        run = resume_detect(given.resume, quiet=given.quiet)
    elif given.recipe is None:
        raise ValueError(f"which recipe? {', '.join(DETECTION_RECIPES)}, or --resume RUN")
    else:
        prog = f"multimix detect {given.recipe}"
        config = override(detection_recipe_named(given.recipe), rest, prog=prog)
        name = given.name or f"{config.recipe}-{config.title}-{config.seed}-{datetime.now():%Y%m%d-%H%M%S}"
        run = detect(config, given.out / name, quiet=given.quiet)
    show(run)
    if given.records:
        write_detection_records(given.records, run)
        print(f"records: {given.records}")


def show(run: DetectFolder) -> None:
    """Print what was measured before and after training, in percent."""
    for event in run.metrics.read():
        if event["event"] == "detection":
            print(f"{event['split']} {event['when']}: {_told(event)}  ({event['examples']} images)")
    print(f"run: {run.path}")


def _told(event: dict[str, Any]) -> str:
    return "  ".join(f"{said} {100 * event[name]:.2f} %" for name, said in _SHOWN.items() if name in event)
