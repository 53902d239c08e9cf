"""Where the boxes of a run's test images are, once the images are scaled and cut as the network sees them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from multimix.lab.data import Files, ImageSet
from multimix.lab.data._folder import pixels_of
from multimix.lab.data._load import parts_of
from multimix.lab.evaluate.localisation._boxes import Box, Boxes
from multimix.lab.evaluate.suite import Source

_COMPARED = 8
"""Images of a set in memory that are compared with the files they are taken to be of."""


def files_of(source: Source) -> Files:
    """Return the files that the test images come from, in their order.

    Raises:
        ValueError: If the images come from no files, or these are not what they were when the run began.
    """
    test, name = source.splits.test, source.splits.name
    if isinstance(test, Files):
        return test
    if not (name.startswith("folder:") or name == "tiny-imagenet"):
        raise ValueError(
            "localisation needs images from files, with a box for each: runs on tiny-imagenet, imagenet or "
            f"folder:PATH have them, {name} has none"
        )
    found = parts_of(name, source.root).test
    if not isinstance(found, Files) or not _same(found, test):
        raise ValueError(
            f"the test images of {name} are not the files found there now: the files have changed since, or the test "
            "set was split off with another split_seed than 0; put it into a folder test/ beside train/"
        )
    return found


def _same(files: Files, test: ImageSet) -> bool:
    if isinstance(test, Files) or not torch.equal(files.labels, test.labels.cpu()):
        return False
    chosen = np.linspace(0, len(files) - 1, min(_COMPARED, len(files))).round().astype(int).tolist()
    return all(np.array_equal(_decoded(files.paths[i], test.shape), test.images[i].cpu()) for i in chosen)


def _decoded(path: str, shape: tuple[int, ...]) -> np.ndarray:
    pixels = pixels_of(path, None)
    return pixels if pixels.shape == shape else pixels_of(path, shape[-1])


def places_in(test: ImageSet, files: Files, boxes: Boxes) -> list[Float[np.ndarray, "count 4"]]:
    """Return the boxes of every test image as the network sees it; an image may have none.

    Args:
        test: The images, in memory or not.
        files: Where they come from.
        boxes: By file name, or by class and file name where several files share one: ``class/name``.

    Raises:
        ValueError: If a box lies outside its image, or a name is that of several files.
    """
    names = [Path(path) for path in files.paths]
    counts = Counter(name.name for name in names)
    if several := [name for name in boxes if counts[name] > 1]:
        raise ValueError(
            f"boxes: {several[0]} is the name of {counts[several[0]]} test images; give it with its class, "
            f"CLASS/{several[0]}"
        )
    found = []
    for path in names:
        own = [*boxes.get(f"{path.parent.name}/{path.name}", ()), *boxes.get(path.name, ())]
        found.append(_seen(path, own, test) if own else np.empty((0, 4)))
    return found


def _seen(path: Path, boxes: Sequence[Box], test: ImageSet) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as picture:
        width, height = picture.size
    if outside := [box for box in boxes if box[2] > width or box[3] > height]:
        raise ValueError(f"boxes: {path.name} is of {width}x{height} pixels, its box {outside[0]} lies outside")
    values = torch.tensor(boxes, dtype=torch.float64)
    rows, columns = test.shape[1:]
    if isinstance(test, Files) or (height, width) != (rows, columns):
        values = fitted_boxes(values, (height, width), rows, in_memory=not isinstance(test, Files))
    return values[(values[:, 2] > values[:, 0]) & (values[:, 3] > values[:, 1])].numpy()


def fitted_boxes(
    boxes: Float[Tensor, "count 4"], shape: tuple[int, int], size: int, *, in_memory: bool
) -> Float[Tensor, "count 4"]:
    """Return boxes in an image of ``shape`` (h, w) as they are once it is scaled and cut to ``size`` squared."""
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import functional

    from multimix.lab.data._images import EVALUATION_RATIO

    shorter = round(size * (1.0 if in_memory else EVALUATION_RATIO))
    given = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=shape)
    cut = functional.center_crop(functional.resize(given, [shorter]), [size, size])
    return torch.Tensor(cut.as_subclass(torch.Tensor)).clamp(0, size)
