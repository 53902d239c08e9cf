"""MultiMix where torchvision has MixUp and CutMix: as a transform of mini-batches, and as a loader's collate."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.data import default_collate

from multimix._declared import Fraction, check
from multimix._optional import require
from multimix.integrations._training import InputMixer, MethodLike, as_method
from multimix.methods import Mixup
from multimix.ops import Objective
from multimix.protocols import Method, Network

require("torchvision", by=__name__)

from PIL import Image  # noqa: E402 (both come with torchvision)
from torchvision import tv_tensors  # noqa: E402
from torchvision.transforms.v2.functional import convert_bounding_box_format  # noqa: E402

LabelsGetter = str | Callable[[Any], Any]
_IMAGES = (tv_tensors.Image, tv_tensors.Video)
_LEFT_BEHIND = (Image.Image, tv_tensors.BoundingBoxes, tv_tensors.KeyPoints)
_CORNERS = tv_tensors.BoundingBoxFormat.XYXY
_UPRIGHT = (_CORNERS, tv_tensors.BoundingBoxFormat.XYWH, tv_tensors.BoundingBoxFormat.CXCYWH)


class MixTransform(nn.Module):
    """A method as a transform of mini-batches, with the convention of torchvision's ``v2.MixUp`` and ``v2.CutMix``.

    ``images, labels = MixTransform(mm.CutMix(), num_classes=10)(images, labels)``; goes into ``v2.RandomChoice``, too.
    Lambda weighs the first example of a pair. Bytes (``torch.uint8``) stay bytes with the methods that paste pixels as
    they are: CutMix, FMix, GridMix, ResizeMix and SaliencyMix; others need floating-point images.

    Every ``tv_tensors.Mask`` of the mini-batch is mixed, too, and so are the objects of its images: a list of mappings
    with ``boxes`` (q, 4), ``labels`` (q,) and ``masks`` (q, h, w), one an image, as torchvision's detectors take them.
    The images may then be a list, if all have one size. Labels need not be there. The rules are those of
    :meth:`multimix.Mixup.mix`; ``tv_tensors.BoundingBoxes`` keep their format.

    Args:
        method: A method that mixes inputs, the name of one, or an ``Alternate`` of such; None for ``Mixup()``.
        num_classes: How many classes there are, k; needed for class indices.
        alpha: Concentration of the Beta distribution of a method given by name or not at all.
        labels_getter: Where the labels are: a function of the inputs that returns them, a key, or ``"default"``: the
            second input, or in a mapping what has ``labels``, else ``label``, in its key, in any case.
        objective: What kind of targets they are, as :meth:`multimix.Mixup.mix` has it: ``BinaryCrossEntropy()`` for
            several labels an example.
        seed: Of the mixing; None for torch's own seed. The workers of a loader add it to theirs.
        network: For the methods whose mixing depends on it, such as ``PuzzleMix``.
        min_visible: Least share of an object's area that is left of it; of others nothing is.

    Raises:
        TypeError: If the method does not mix inputs.
        ValueError: If a setting is impossible.
    """

    def __init__(
        self,
        method: MethodLike = None,
        *,
        num_classes: int | None = None,
        alpha: float | None = None,
        labels_getter: LabelsGetter = "default",
        objective: Objective | None = None,
        seed: int | None = None,
        network: Network | None = None,
        min_visible: float = 0.1,
    ) -> None:
        super().__init__()
        check(Fraction, min_visible=min_visible)
        self._min_visible = min_visible
        if alpha is not None:
            made = as_method(method, Mixup)
            if isinstance(method, Method) or not hasattr(made, "alpha"):
                raise ValueError(f"alpha must be left out beside {made!r}, which has its own settings")
            method = replace(made, alpha=alpha)
        if not (isinstance(labels_getter, str) or callable(labels_getter)):
            raise TypeError(f"labels_getter must be a function, a key or 'default', got {labels_getter!r}")
        self._labels_getter = labels_getter
        self._mixer = InputMixer(method, num_classes, objective=objective, seed=seed, network=network)

    def forward(self, *inputs: Any) -> Any:
        """Return the inputs with mixed images and their targets (b, k), class probabilities as a rule.

        What else there is comes back as it is; nothing that is given is changed.

        Args:
            *inputs: Images (b, c, h, w) and labels, (b,) or (b, k), masks or objects, in any structure of tuples, lists
                and mappings. Images are the ``tv_tensors.Image`` or ``Video`` there, else the first plain tensor beside
                the labels.

        Raises:
            ValueError: If images or targets are not found, or something is there that would have to be mixed, too:
                several tensors of images, boxes that belong to no image, key points or PIL images.
        """
        whole = inputs[0] if len(inputs) == 1 else inputs
        flat, structure = tree_flatten(whole, is_leaf=_is_whole)
        images, targets = _places(flat, self._labels(whole))
        pixels = _stacked(flat[images])
        given = tuple(_plain(flat[at], pixels.shape[-2:]) for at in targets)
        options = {"min_visible": self._min_visible} if any(_is_whole(flat[at]) for at in targets) else {}
        mixed, found = self._mixer(pixels, given if len(given) > 1 else given[0], **options)
        flat[images] = _like(mixed, flat[images])
        for at, target in zip(targets, found if len(given) > 1 else [found], strict=True):
            flat[at] = _like(target, flat[at])
        return tree_unflatten(flat, structure)

    def _labels(self, inputs: Any) -> Any:
        getter = self._labels_getter
        if callable(getter):
            return getter(inputs)
        part = inputs[1] if isinstance(inputs, (tuple, list)) and len(inputs) > 1 else inputs
        if not isinstance(part, Mapping):
            return part if part is not inputs and getter == "default" else None
        if getter != "default":
            return part.get(getter)
        names = sorted(
            (key for key in part if "label" in str(key).lower()), key=lambda key: str(key).lower() != "labels"
        )
        return part[names[0]] if names else None

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"{self._mixer.method!r}, num_classes={self._mixer.num_classes}"


def _has_boxes(value: Any) -> bool:
    return isinstance(value, Mapping) and "boxes" in value


def _is_whole(value: Any) -> bool:
    """Return whether a list or a tuple is one thing: the objects of each image, or its images."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(map(_has_boxes, value)) or all(isinstance(each, Tensor) and each.ndim == 3 for each in value)


def _places(flat: list[Any], labels: Any) -> tuple[int, list[int]]:
    """Return where in a flat list the images are, and all that is mixed with them, labels first."""
    kinds = ", ".join(type(value).__name__ for value in flat) or "nothing"
    wholes = [at for at, value in enumerate(flat) if _is_whole(value)]
    stacks = [at for at in wholes if not _has_boxes(flat[at][0])]
    targets = [at for at, value in enumerate(flat) if value is labels and isinstance(value, Tensor)][:1]
    masks = [at for at, value in enumerate(flat) if isinstance(value, tv_tensors.Mask)]
    targets += [at for at in (*masks, *wholes) if at not in (*targets, *stacks)]
    if not targets:
        raise ValueError(f"inputs must be images and labels of a mini-batch, got {kinds}; labels_getter says where")
    if alone := [type(value).__name__ for value in flat if isinstance(value, _LEFT_BEHIND)]:
        raise ValueError(
            f"inputs must hold nothing that would be left unmixed beside the images, got {alone[0]}; boxes are mixed in"
            " a list of mappings, one an image"
        )
    images = [at for at, value in enumerate(flat) if isinstance(value, _IMAGES)]
    images += stacks if len(wholes) > len(stacks) else []
    plain = [at for at, value in enumerate(flat) if isinstance(value, Tensor) and at not in targets]
    if len(images) > 1 or not (images or plain):
        raise ValueError(f"inputs must hold one tensor of images beside the labels, got {kinds}")
    return (images or plain)[0], targets


def _stacked(images: Any) -> Tensor:
    """Return images as one plain tensor."""
    if isinstance(images, Tensor):
        return images.as_subclass(Tensor)
    if len(shapes := {tuple(image.shape) for image in images}) > 1:
        raise ValueError(f"inputs must be images of one size to be mixed, got {', '.join(map(str, sorted(shapes)))}")
    return torch.stack([image.as_subclass(Tensor) for image in images])


def _plain(targets: Any, size: Sequence[int]) -> Any:
    """Return targets of images of a size without torchvision's types, boxes as corners."""
    if isinstance(targets, tv_tensors.Mask) and targets.shape[-2:] != size:
        raise ValueError(f"masks must have the images' {tuple(size)} pixels, got {tuple(targets.shape)}")
    if isinstance(targets, Tensor):
        return targets.as_subclass(Tensor)
    return [{**each, "boxes": _corners(each["boxes"], size)} for each in targets]


def _corners(boxes: Any, size: Sequence[int]) -> Any:
    """Return upright boxes of an image of a size as a plain tensor of corners, others as they are."""
    if not isinstance(boxes, tv_tensors.BoundingBoxes) or boxes.format not in _UPRIGHT:
        return boxes
    if tuple(boxes.canvas_size) != tuple(size):
        raise ValueError(f"boxes must have the canvas of the images, {tuple(size)}, got {tuple(boxes.canvas_size)}")
    values = boxes.as_subclass(Tensor)
    values = values if values.is_floating_point() else values.float()
    return convert_bounding_box_format(values, old_format=boxes.format, new_format=_CORNERS)


def _like(mixed: Any, given: Any) -> Any:
    """Return what was mixed in the form of what was given: of torchvision's types, in a list, in a format."""
    if isinstance(given, tv_tensors.BoundingBoxes):
        return tv_tensors.wrap(
            convert_bounding_box_format(mixed, old_format=_CORNERS, new_format=given.format), like=given
        )
    if isinstance(given, tv_tensors.TVTensor):
        return tv_tensors.wrap(mixed, like=given)
    if isinstance(given, Mapping):
        return {**mixed, **{name: _like(mixed[name], given[name]) for name in ("boxes", "masks") if name in given}}
    if isinstance(given, (list, tuple)):
        return type(given)(_like(*pair) for pair in zip(mixed, cycle(given)))
    return mixed


class MixCollate:
    """A loader's ``collate_fn`` that mixes the mini-batch that it has put together.

    ``DataLoader(data, batch_size=128, collate_fn=MixCollate(mm.CutMix(), num_classes=10), num_workers=4)``. Each worker
    has a generator of its own, seeded from torch's seed there. Arguments are those of :class:`MixTransform`, but for a
    network, which has no place in a loader: methods that need one are refused.
    """

    def __init__(
        self,
        method: MethodLike = None,
        *,
        num_classes: int | None = None,
        alpha: float | None = None,
        labels_getter: LabelsGetter = "default",
        objective: Objective | None = None,
        seed: int | None = None,
        min_visible: float = 0.1,
    ) -> None:
        given: dict[str, Any] = {"alpha": alpha, "labels_getter": labels_getter, "objective": objective, "seed": seed}
        self._mix = MixTransform(method, num_classes=num_classes, min_visible=min_visible, **given)

    def __call__(self, examples: list[Any]) -> Any:
        """Return the mini-batch of examples, such as (input, label), with inputs mixed and their targets.

        Of (image, objects) it is a tensor of images and a list of objects.
        """
        if not isinstance(examples[0], (tuple, list)) or not any(map(_has_boxes, examples[0])):
            return self._mix(default_collate(examples))
        columns = [list(column) for column in zip(*examples, strict=True)]
        return self._mix(*(column if _has_boxes(column[0]) else default_collate(column) for column in columns))
