"""Sets with boxes by name."""

from pathlib import Path

from multimix.lab.data.boxes._coco import read_coco
from multimix.lab.data.boxes._sets import BoxSet
from multimix.lab.data.boxes._voc import read_voc

__all__ = ["load_boxes"]


def load_boxes(spec: str, split: str, *, classes: tuple[str, ...] | None = None) -> BoxSet:
    """Return a split of a COCO-format or VOC-format folder.

    Args:
        spec: ``coco:PATH``, or ``voc:PATH`` with more paths after commas.
        split: What ``annotations/instances_SPLIT.json`` or ``ImageSets/Main/SPLIT.txt`` is called, such as trainval.
        classes: Those that a network knows; by default all of the set.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file is damaged, or its classes are not those.
    """
    kind, _, rest = spec.partition(":")
    if kind not in ("coco", "voc") or not rest:
        raise ValueError(f"data must be coco:PATH or voc:PATH[,PATH...], got {spec!r}")
    if kind == "voc":
        return read_voc([Path(path) for path in rest.split(",")], split, classes=classes)
    boxes = read_coco(Path(rest), split)
    if classes is not None and boxes.classes != classes:
        raise ValueError(
            f"{boxes.name} has {_some(boxes.classes)}, but {_some(classes)} in the same order were expected"
        )
    return boxes


def _some(classes: tuple[str, ...]) -> str:
    return f"{len(classes)} classes ({', '.join(classes[:4])}{', ...' * (len(classes) > 4)})"
