"""What became of each class and which images a network was surest of and wrong: data of figures."""

import base64
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from multimix.lab.data import Batches, Files, ImageSet

Figure = tuple[str, dict[str, Any]]

MOST_CLASSES = 100  # of more, only the most frequent mistakes are kept
_MOST_PAIRS = 100
_MISTAKES = 8
_LEAST, _MOST = 128, 160  # pixels of the shorter side of a picture


def outcomes(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"], images: ImageSet) -> Iterator[Figure]:
    """Yield the names and data of figures: accuracy by class, how often which class is taken for which, and mistakes.

    Args:
        logits: What the network predicts.
        labels: Class indices.
        images: The n images, in the same order.

    A class without an image has no accuracy (None). Of more than 100 classes, the 100 most frequent mistakes alone are
    counted. Of the mistakes, the eight of the highest probability are kept as PNG pictures, the shorter side of 128
    pixels or more, in base64.
    """
    k, predicted = logits.shape[1], logits.argmax(1)
    classes = list(images.classes)
    of_class = torch.bincount(labels, minlength=k).tolist()
    right = torch.bincount(labels[predicted == labels], minlength=k).tolist()
    shares = [a / n if n else None for a, n in zip(right, of_class, strict=True)]
    yield "classes", {"classes": classes, "accuracy": shares, "count": of_class}
    pairs, count = torch.unique(labels * k + predicted, return_counts=True)
    if k > MOST_CLASSES:
        wrong = pairs // k != pairs % k
        pairs, count = pairs[wrong], count[wrong]
        most = count.argsort(descending=True, stable=True)[:_MOST_PAIRS]
        pairs, count = pairs[most], count[most]
    true, taken_for = (pairs // k).tolist(), (pairs % k).tolist()
    yield "confusion", {"classes": classes, "true": true, "predicted": taken_for, "count": count.tolist()}
    mistaken = (predicted != labels).nonzero().flatten()
    sure, order = logits[mistaken].double().softmax(1).amax(1).sort(descending=True, stable=True)
    shown = mistaken[order[:_MISTAKES]]
    if len(shown):
        yield (
            "mistakes",
            {
                "true": [classes[label] for label in labels[shown].tolist()],
                "predicted": [classes[label] for label in predicted[shown].tolist()],
                "probability": sure[:_MISTAKES].tolist(),
                "names": [_name(images, index) for index in shown.tolist()],
                "pictures": pictures(images, shown.tolist()),
            },
        )


def _name(images: ImageSet, index: int) -> str:
    """Return what an image is called: its file with the folder that it lies in, else its place in the set."""
    if not isinstance(images, Files) and not images.names:
        return f"image {index} of {len(images)}"
    path = images.paths[index] if isinstance(images, Files) else images.names[index]
    name = os.sep.join(path.rsplit(os.sep, 2)[-2:])
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def pictures(images: ImageSet, indices: Sequence[int]) -> list[str]:
    """Return images as a network sees them but for the normalisation, as PNG in base64."""
    chosen, channels = images.subset(indices), images.shape[0]
    served = Batches(chosen, batch_size=1, shuffle=False, mean=(0.0,) * channels, std=(1.0,) * channels)
    found = []
    for inputs, _ in served:
        out = io.BytesIO()
        of_size(picture_of(inputs[0]), _LEAST, _MOST).save(out, "PNG", optimize=True)
        found.append(base64.b64encode(out.getvalue()).decode())
    return found


def picture_of(pixels: Float[Tensor, "c h w"]) -> Image.Image:
    """Return pixels in [0, 1] as a picture in RGB; of other than three channels, the first in grey."""
    if len(pixels) != 3:
        pixels = pixels[:1].expand(3, -1, -1)
    return Image.fromarray((pixels.permute(1, 2, 0) * 255).round().byte().contiguous().cpu().numpy())


def of_size(image: Image.Image, least: int, most: int) -> Image.Image:
    """Return an image whose shorter side has so many pixels: enlarged without smoothing, reduced with it."""
    shorter = min(image.size)
    if shorter > most:
        return image.resize([round(side * most / shorter) for side in image.size], Image.Resampling.LANCZOS)
    return image.resize([side * -(-least // shorter) for side in image.size], Image.Resampling.NEAREST)
