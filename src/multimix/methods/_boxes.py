"""Label maps and boxes of objects, mixed as the images are that they belong to."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multimix.ops import CrossEntropy, Objective, accurate, no_autocast, widest
from multimix.ops._checks import check_shape

Objects = Sequence[Mapping[str, Any]]
"""The objects of each image: ``boxes`` (q, 4) and what else there is of each, as torchvision's detectors take them."""
OF_EACH = ("boxes", "labels", "masks", "area", "iscrowd", "weights")
"""What has one row an object; the rest of a mapping is the image's."""
_ROUNDING = 1e-4  # by which the share of an object that is left may be wrong


class Placement(NamedTuple):
    """Where the pixels of b mixed images come from, of methods that paste."""

    partners: Int[Tensor, " b"]
    pixels: Int[Tensor, "b h w"]
    """Of which pixel of its image each is a copy, counted row by row."""
    pasted: Bool[Tensor, "b h w"]
    """Which of them are the partner's."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Height and width of a pasted partner, as a part of its own."""
    corners: Int[Tensor, "2 b"] | None = None
    """Row and column at which a pasted partner begins; where it was, if not given."""

    def to(self, device: torch.device) -> "Placement":
        """Return the same on a device."""
        partners, pixels, pasted = (part.to(device) for part in self[:3])
        return Placement(
            partners, pixels, pasted, self.scale, None if self.corners is None else self.corners.to(device)
        )


def is_objects(targets: object) -> bool:
    """Return whether targets are the objects of each image."""
    return isinstance(targets, Sequence) and len(targets) > 0 and all(isinstance(each, Mapping) for each in targets)


def is_map(targets: Tensor, inputs: object) -> bool:
    """Return whether targets have a value at every pixel."""
    if targets.ndim == 3 and not targets.is_floating_point():
        return True
    images = isinstance(inputs, Tensor) and inputs.ndim > 3
    return images and targets.ndim > 2 and targets.shape[-2:] == cast("Tensor", inputs).shape[-2:]


def check_places(targets: Tensor | Objects, inputs: Any) -> None:
    """Raise unless targets are label maps of images, or their objects."""
    shape = tuple(getattr(inputs, "shape", ()))
    if len(shape) < 4:
        raise ValueError(f"inputs must be images for label maps and boxes, got {shape or type(inputs).__name__}")
    if not isinstance(targets, Tensor):
        _check_objects(targets, shape[-2:])
    elif targets.shape[-2:] != shape[-2:]:
        raise ValueError(f"targets must be maps of the images' {shape[-2:]} pixels, got {tuple(targets.shape)}")


def _check_objects(targets: Objects, size: tuple[int, ...]) -> None:
    """Raise unless boxes are corners, and all that there is of an object has a row for each."""
    names = [name for name in OF_EACH if name in targets[0] or name == "boxes"]
    for at, each in enumerate(targets):
        if [name for name in OF_EACH if name in each] != names:
            others = " as those of other images do" * (at > 0)
            raise ValueError(f"targets[{at}] must hold {', '.join(names)}{others}, got {', '.join(each) or 'nothing'}")
        boxes = each["boxes"]
        if (form := getattr(getattr(boxes, "format", None), "name", "XYXY")) != "XYXY":
            raise ValueError(f"targets[{at}]['boxes'] must be corners, XYXY, got {form}")
        check_shape(f"targets[{at}]['boxes']", boxes, "q", 4)
        for name in names:
            rest = size if name == "masks" else tuple(getattr(each[name], "shape", ()))[1:]
            check_shape(f"targets[{at}]['{name}']", each[name], len(boxes), *rest)


def as_numbers(maps: Tensor, num_classes: int | None, objective: Objective) -> Tensor:
    """Return maps that can be blended: class indices (b, h, w) or (b, 1, h, w) as class probabilities (b, k, h, w)."""
    if maps.is_floating_point():
        return maps
    if not isinstance(objective, CrossEntropy):
        return maps.float()
    if num_classes is None:
        raise ValueError("num_classes must be given for targets that are class indices")
    indices = maps.squeeze(1) if maps.ndim == 4 else maps
    check_shape("targets", indices, "b", "h", "w")
    rows = CrossEntropy(ignore_index=objective.ignore_index).targets(indices, num_classes)
    return rows.mT.unflatten(2, indices.shape[1:])


def mix_places(targets: Tensor | Objects, mixing: Any, inputs: Tensor, min_visible: float) -> Any:
    """Return label maps or objects, pasted or blended as the images are by the same draw."""
    placement = mixing.placement(*inputs.shape[-2:])
    if isinstance(targets, Tensor):
        return mixing.mix_targets(targets) if placement is None else paste_maps(targets, placement)
    if placement is None:
        return blend_objects(targets, mixing.mix_targets(torch.eye(len(inputs), device=inputs.device)))
    return paste_objects(targets, placement, min_visible)


def paste_maps(maps: Tensor, placement: Placement) -> Tensor:
    """Return maps (b, *, h, w) of any type, each value taken from where the pixel of the image is taken from."""
    partners, pixels, pasted = placement.to(maps.device)[:3]
    pixels, pasted = (each.reshape(len(maps), *[1] * (maps.ndim - 3), *each.shape[1:]) for each in (pixels, pasted))
    theirs = maps.index_select(0, partners)
    if placement.corners is not None:  # else they stay where they are
        theirs = theirs.flatten(-2).gather(-1, pixels.expand_as(maps).flatten(-2)).view_as(maps)
    return torch.where(pasted, theirs, maps)


def blend_objects(targets: Objects, weights: Float[Tensor, "n b"]) -> list[dict[str, Any]]:
    """Return the objects of all images that a mixed one has a share of, in the weights of their images."""
    mixed = []
    for i, row in enumerate(weights.tolist()):
        shares = sorted(((j, share) for j, share in enumerate(row) if share > 0), key=lambda pair: pair[0] != i)
        parts = _joined([targets[j] for j, _ in shares])[1]
        counts = [len(targets[j]["boxes"]) for j, _ in shares]
        share = weights.new_tensor([share for _, share in shares]).to(parts["weights"])
        parts["weights"] = parts["weights"] * share.repeat_interleave(share.new_tensor(counts).long())
        mixed.append({**targets[i % len(targets)], **parts})
    return mixed


def paste_objects(targets: Objects, placement: Placement, min_visible: float) -> list[dict[str, Any]]:
    """Return what is left of the objects of each image, and then of what is pasted from its partner.

    An object is left if at least ``min_visible`` of its area is, by its mask if there is one, else by its box. Its box
    becomes the smallest around what is left of it, and its area and mask lose what is covered.
    """
    placement = placement.to(targets[0]["boxes"].device)
    lots = []
    for pasted in (False, True):
        image, parts = _joined([targets[j] for j in placement.partners.tolist()] if pasted else targets)
        whole, visible = _areas(parts), ~placement.pasted
        if pasted:
            whole, visible = whole * math.prod(placement.scale), placement.pasted
            parts = _moved(image, parts, placement)
        lots.append(_left(image, parts, visible, whole, min_visible))
    image = torch.cat([image for image, _ in lots])
    order = image.argsort(stable=True)
    counts = image.bincount(minlength=len(targets)).tolist()
    joined = {name: torch.cat([parts[name] for _, parts in lots])[order].split(counts) for name in lots[0][1]}
    return [{**each, **{name: rows[i] for name, rows in joined.items()}} for i, each in enumerate(targets)]


def _joined(targets: Objects) -> tuple[Tensor, dict[str, Tensor]]:
    """Return of which image each object is, and the rows of all objects, with their weights."""
    counts = [len(each["boxes"]) for each in targets]
    parts = {
        name: torch.cat([each[name].as_subclass(Tensor) for each in targets]) for name in OF_EACH if name in targets[0]
    }
    boxes = parts["boxes"]
    parts["boxes"] = accurate(boxes) if boxes.is_floating_point() else boxes.float()
    parts.setdefault("weights", torch.ones(len(boxes), device=boxes.device))
    return torch.arange(len(targets)).repeat_interleave(torch.tensor(counts)).to(boxes.device), parts


def _areas(parts: dict[str, Tensor]) -> Tensor:
    """Return the areas of objects (q,): of the mask inside the box, or of the box."""
    boxes = parts["boxes"]
    if "masks" in parts:
        return _around(boxes, parts["masks"] > 0, torch.arange(len(boxes), device=boxes.device))[1]
    left, top, right, bottom = boxes.unbind(1)
    return (right - left) * (bottom - top)


def _moved(image: Tensor, parts: dict[str, Tensor], placement: Placement) -> dict[str, Tensor]:
    """Return the partners' objects where they are pasted; of masks, what is pasted of them."""
    boxes = parts["boxes"]
    boxes = boxes * boxes.new_tensor(placement.scale).flip(0).repeat(2)
    if placement.corners is not None:
        boxes = boxes + placement.corners.flip(0).repeat(2, 1).T[image]
    moved = {**parts, "boxes": boxes}
    if "masks" in parts:
        masks = parts["masks"]
        moved["masks"] = masks.flatten(1).gather(1, placement.pixels[image].flatten(1)).view_as(masks)
    if "area" in parts:
        moved["area"] = parts["area"] * math.prod(placement.scale)
    return moved


def _left(
    image: Tensor, parts: dict[str, Tensor], visible: Tensor, whole: Tensor, min_visible: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the objects of which enough is visible, and of which image each is."""
    parts, boxes, which = dict(parts), parts["boxes"], image
    if "masks" in parts:
        parts["masks"] = parts["masks"].masked_fill(~visible[image], 0)
        visible, which = parts["masks"] > 0, torch.arange(len(image), device=image.device)
    around, area = _around(boxes, visible, which)
    share = (area / whole.clamp_min(torch.finfo(area.dtype).tiny)).clamp(max=1)
    parts["boxes"] = torch.where((share >= 1 - _ROUNDING).unsqueeze(1), boxes, around)
    if "area" in parts:
        parts["area"] = parts["area"] * share
    kept = (area > 0) & (share >= min_visible - _ROUNDING)
    return image[kept], {name: rows[kept] for name, rows in parts.items()}


def _around(
    boxes: Float[Tensor, "q 4"], visible: Bool[Tensor, "n h w"], which: Int[Tensor, " q"]
) -> tuple[Float[Tensor, "q 4"], Float[Tensor, " q"]]:
    """Return the smallest boxes around what is visible in each box, and the area of that; each of ``which`` image."""
    left, top, right, bottom = boxes.unbind(1)
    beside, above = _overlaps(left, right, visible.shape[2]), _overlaps(top, bottom, visible.shape[1])
    exact = visible.to(widest(boxes.device))
    across, down = _lengths(exact, which, beside) * above, _lengths(exact.mT, which, above) * beside
    (top, bottom), (left, right) = _ends(across, top, bottom), _ends(down, left, right)
    return torch.stack([left, top, right, bottom], 1), across.sum(1).to(boxes.dtype)


def _lengths(visible: Tensor, which: Tensor, overlaps: Tensor) -> Tensor:
    """Return how much is visible in each row (q, h) of the columns that overlap (q, w), ``which`` in ascending order.

    One product a map, for all of its boxes: a sum of what is not negative is exactly 0 where nothing is visible.
    """
    counts = which.bincount(minlength=len(visible))
    most = int(counts.max()) if len(which) else 0
    slots = which, torch.arange(len(which), device=which.device) - (counts.cumsum(0) - counts)[which]
    weights = visible.new_zeros(len(visible), most, overlaps.shape[1])
    weights[slots] = overlaps.to(visible.dtype)
    with no_autocast(visible.device.type):
        return (weights @ visible.mT)[slots]


def _overlaps(start: Tensor, end: Tensor, size: int) -> Tensor:
    """Return how much of each pixel of a side lies between two places (q, size)."""
    pixels = torch.arange(size, device=start.device, dtype=start.dtype)
    return (torch.minimum(end.unsqueeze(1), pixels + 1) - torch.maximum(start.unsqueeze(1), pixels)).clamp(min=0)


def _ends(amounts: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Return where what is between two places begins and ends, by how much there is in each pixel (q, size)."""
    there = (amounts > 0).int()
    first, behind = there.argmax(1), there.shape[1] - there.flip(1).argmax(1)
    return torch.maximum(start, first.to(start)), torch.minimum(end, behind.to(end))
