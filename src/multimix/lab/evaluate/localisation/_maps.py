"""From attention to boxes, and from boxes to how well they agree."""

from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from multimix.lab.evaluate.predict import each_position
from multimix.ops import attention
from multimix.protocols import Network, encode

_MOST_PREFIX_TOKENS = 8
_FLAT = 1e-6
"""A map that varies by less, relative to its largest value, says nothing."""

_AROUND = np.ones((3, 3), dtype=int)
"""What a pixel is connected to: its eight neighbours."""

Query = Literal["gap", "cam"]


def score_maps(
    network: Network, inputs: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"], query: Query = "gap"
) -> Float[Tensor, "b h w"]:
    """Return the attention of every image over its pixels, from 0 where it is least to 1 where it is most.

    The attention over the positions of the network's map (:func:`multimix.ops.attention`, ReLU), each position pooled
    by itself as Dense MultiMix has it, brought to the image's size bilinearly, then shifted and scaled. An image whose
    map is flat scores 1 everywhere. With ``cam`` the query is the classifier's weights of the image's true class.

    Raises:
        ValueError: If the network has no map, or no affine head for ``cam``.
    """
    features = each_position(network, encode(network, inputs))
    height, width = inputs.shape[-2:]
    prefix, rows, columns = grid_of(features.shape[1], height, width)
    weights = _class_weights(network, labels) if query == "cam" else None
    over_positions = attention(features[:, prefix:], query=query, class_weights=weights)
    maps = interpolate(
        over_positions.unflatten(1, (1, rows, columns)), size=(height, width), mode="bilinear", align_corners=False
    )[:, 0]
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    varies = high - low > _FLAT * high
    return torch.where(varies, (maps - low) / torch.where(varies, high - low, 1), 1)


def grid_of(positions: int, height: int, width: int) -> tuple[int, int, int]:
    """Return how many positions come before the map (class tokens and the like), and the map's rows and columns.

    Raises:
        ValueError: If no map of the image's proportions has so many positions.
    """
    for prefix in range(_MOST_PREFIX_TOKENS + 1):
        cells = positions - prefix
        rows = round(max(cells, 0) ** 0.5 * (height / width) ** 0.5)
        columns = cells // rows if rows else 0
        if cells > 1 and rows * columns == cells and rows * width == columns * height:
            return prefix, rows, columns
    raise ValueError(
        f"localisation needs a map of positions: this network embeds images of {height}x{width} at {positions}, which "
        "is no map of those proportions"
    )


def _class_weights(network: Network, labels: Tensor) -> Tensor:
    if network.head is None:
        raise ValueError("query=cam needs a network with an affine head, whose weights are the class queries")
    return cast("Tensor", network.head.weight).flatten(1)[labels]


def box_above(scores: Float[np.ndarray, "h w"], threshold: float) -> Float[np.ndarray, " 4"]:
    """Return the box around the largest connected part of a map that is at or above a threshold.

    Pixels that touch at a corner are connected. Of parts of one size it is the first from the top; where nothing is
    above, the box is empty.
    """
    from scipy import ndimage

    parts, count = ndimage.label(scores >= threshold, _AROUND)
    if count == 0:
        return np.zeros(4)
    largest = int(np.bincount(parts.ravel())[1:].argmax()) if count > 1 else 0
    rows, columns = ndimage.find_objects(parts)[largest]
    return np.array([columns.start, rows.start, columns.stop, rows.stop], dtype=float)


def overlap(box: Float[np.ndarray, " 4"], boxes: Float[np.ndarray, "count 4"]) -> float:
    """Return the largest intersection over union of a box with any of several, in [0, 1]."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = (high - low).clip(0).prod(1)
    both = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - shared
    return float((shared / both).max())
