"""MultiMix where torchvision has MixUp and CutMix: as a transform of mini-batches, and as a loader's collate."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.data import default_collate

from multimix._optional import require
from multimix.integrations._training import InputMixer, MethodLike, as_method
from multimix.methods import Mixup
from multimix.ops import Objective
from multimix.protocols import Method, Network

require("torchvision", by=__name__)

from PIL import Image  # noqa: E402 (both come with torchvision)
from torchvision import tv_tensors  # noqa: E402

LabelsGetter = str | Callable[[Any], Any]
_IMAGES = (tv_tensors.Image, tv_tensors.Video)
_LEFT_BEHIND = (Image.Image, tv_tensors.BoundingBoxes, tv_tensors.Mask, tv_tensors.KeyPoints)


class MixTransform(nn.Module):
    """A method as a transform of mini-batches, with the convention of torchvision's ``v2.MixUp`` and ``v2.CutMix``.

    ``images, labels = MixTransform(mm.CutMix(), num_classes=10)(images, labels)``; goes into ``v2.RandomChoice``, too.
    Lambda weighs the first example of a pair. Bytes (``torch.uint8``) stay bytes with the methods that paste pixels as
    they are: CutMix, FMix, ResizeMix and SaliencyMix; others need floating-point images.

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
    ) -> None:
        super().__init__()
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
            *inputs: Images (b, c, h, w) and labels, (b,) or (b, k), in any structure of tuples, lists and mappings.
                Images are the ``tv_tensors.Image`` or ``Video`` there, else the first plain tensor beside the labels.

        Raises:
            ValueError: If labels or images are not found, or something is there that would have to be mixed, too:
                several tensors of images, boxes, masks, key points or PIL images.
        """
        whole = inputs[0] if len(inputs) == 1 else inputs
        flat, structure = tree_flatten(whole)
        labels, images = _places(flat, self._labels(whole))
        mixed, rows = self._mixer(*(flat[at].as_subclass(Tensor) for at in (images, labels)))
        like = flat[images]
        flat[images] = tv_tensors.wrap(mixed, like=like) if isinstance(like, tv_tensors.TVTensor) else mixed
        flat[labels] = rows
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


def _places(flat: list[Any], labels: Any) -> tuple[int, int]:
    """Return where in a flat list labels and images are."""
    kinds = ", ".join(type(value).__name__ for value in flat) or "nothing"
    found = [at for at, value in enumerate(flat) if value is labels and isinstance(value, Tensor)]
    if not found:
        raise ValueError(f"inputs must be images and labels of a mini-batch, got {kinds}; labels_getter says where")
    if alone := [type(value).__name__ for value in flat if isinstance(value, _LEFT_BEHIND)]:
        raise ValueError(f"inputs must hold nothing that would be left unmixed beside the images, got {alone[0]}")
    images = [at for at, value in enumerate(flat) if isinstance(value, _IMAGES)]
    plain = [at for at, value in enumerate(flat) if isinstance(value, Tensor) and at != found[0]]
    if len(images) > 1 or not plain:
        raise ValueError(f"inputs must hold one tensor of images beside the labels, got {kinds}")
    return found[0], (images or plain)[0]


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
    ) -> None:
        given: dict[str, Any] = {"alpha": alpha, "labels_getter": labels_getter, "objective": objective, "seed": seed}
        self._mix = MixTransform(method, num_classes=num_classes, **given)

    def __call__(self, examples: list[Any]) -> Any:
        """Return the mini-batch of examples, such as (input, label), with inputs mixed and their targets."""
        return self._mix(default_collate(examples))
