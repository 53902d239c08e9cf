"""``multimix data``."""

from multimix.lab._code import split_reference
from multimix.lab._paths import expanded
from multimix.lab.cli._parser import Options, Parser
from multimix.lab.data import DATASETS, Splits, UnreadableError, class_counts, load, own_data

OPTIONS: Options = {
    "data": {"help": f"{', '.join(DATASETS)}, FILE.py:FUNCTION, or the path of a folder"},
    "--root": {"default": "data", "metavar": "FOLDER", "help": "where the named data sets are (default: data)"},
    "--validation": {"type": float, "default": 0.1, "metavar": "SHARE", "help": "held out of training (default: 0.1)"},
    "--split-seed": {"type": int, "default": 0, "metavar": "N", "help": "which images are held out (default: 0)"},
    "--image-size": {"type": int, "metavar": "N", "help": "height and width to bring images to"},
    "--ignore-index": {"type": int, "metavar": "LABEL", "help": "label of images that have no class"},
    "--skip-unreadable": {"action": "store_true", "help": "leave out files that cannot be read"},
}
_MOST = 30
"""Classes that are listed one by one."""


def main(arguments: list[str]) -> None:
    """Say what a data set holds, how it is understood and what is left out."""
    about = (
        "Say what a data set holds: how a folder is understood, what is left out and why, images by split and class"
        " or label."
    )
    given = vars(Parser(OPTIONS, prog="multimix data", description=about).parse_args(arguments))
    name = given.pop("data")
    if split_reference(name):
        name = own_data(name)
    elif expanded(name).is_dir() and name not in DATASETS:
        name = f"folder:{name}"
    try:
        splits = load(name, **given)
    except UnreadableError as error:
        if error.problems:
            print(*error.problems, sep="\n")
            raise ValueError(f"{len(error.problems)} files cannot be read; --skip-unreadable leaves them out") from None
        raise
    print(*splits.notes, *table(splits), sep="\n")


def table(splits: Splits) -> list[str]:
    """Return the images by split and class, or label, a line each."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    found = {name: part for name, part in parts.items() if part is not None}
    classes = splits.classes
    counts = {name: class_counts(part).tolist() for name, part in found.items()}
    width = max(map(len, ("all", *classes[:_MOST])))
    rows = [("", *found), ("all", *(len(part) for part in found.values()))]
    if any(unknown := [int((part.labels < 0).sum()) for part in found.values()]):
        rows.append(("no class", *unknown))
        width = max(width, len("no class"))
    if len(classes) <= _MOST:
        rows += [(name, *(counts[split][i] for split in found)) for i, name in enumerate(classes)]
    else:
        rows += [("fewest", *map(min, counts.values())), ("most", *map(max, counts.values()))]
        width = max(width, len("fewest"))
    several = f"{len(classes)} labels, of which an image may have any number"
    what = several if splits.multi_label else f"{len(classes)} classes"
    size = " x ".join(map(str, splits.shape[1:]))
    where = "in memory" if hasattr(splits.train, "images") else "decoded when a batch asks for them"
    return [
        f"{what}; the network sees {splits.shape[0]} channels of {size} pixels; {where}",
        *(f"{name:{width}}" + "".join(f"{value:>12}" for value in values) for name, *values in rows),
    ]
