"""``multimix detect``."""

from multimix.lab.cli._arguments import override
from multimix.lab.cli._parser import Options, output_file, run_arguments, run_folder
from multimix.lab.detect import detect, resume_detect, write_detection_records
from multimix.lab.recipes.detection import DETECTION_RECIPES, detection_recipe_named

USAGE = """multimix detect RECIPE --backbone RUN [--data coco:PATH] [--name NAME] [--out FOLDER]
                       [--records FILE] [--FIELD VALUE ...]
       multimix detect --resume RUN [--records FILE]"""
OPTIONS: Options = {
    "--records": {"type": output_file, "metavar": "FILE", "help": "also write the numbers as records (JSON lines)"},
}

_SHOWN = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "11_point/ap50": "11-point AP50", "ar100": "AR100"}


def main(arguments: list[str]) -> None:
    """Fine-tune a run's backbone to detect objects by a recipe, any field overridden, or continue such a run."""
    given, rest = run_arguments("detect", DETECTION_RECIPES, OPTIONS, arguments, usage=USAGE, resumed=OPTIONS)
    if given.resume:
        run = resume_detect(given.resume, quiet=given.quiet)
    else:
        config = override(detection_recipe_named(given.recipe), rest, prog=f"multimix detect {given.recipe}")
        run = detect(config, run_folder(given, "runs/detect", config.recipe, config), quiet=given.quiet)
    for event in run.metrics.read("detection"):
        told = "  ".join(f"{said} {100 * event[name]:.2f} %" for name, said in _SHOWN.items() if name in event)
        print(f"{event['split']} {event['when']}: {told}  ({event['examples']} images)")
    print(f"run: {run.path}")
    if given.records:
        write_detection_records(given.records, run)
        print(f"records: {given.records}")
