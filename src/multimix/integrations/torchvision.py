"""MultiMix where torchvision has MixUp and CutMix: as a transform of mini-batches, and as a loader's collate."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import default_collate

from multimix._optional import require
from multimix.integrations._training import InputMixer, MethodLike
from multimix.ops import Objective
from multimix.protocols import Network

require("torchvision", by=__name__)


class MixTransform(nn.Module):
    """A method as a transform of mini-batches, with the convention of torchvision's ``v2.MixUp`` and ``v2.CutMix``.

    ``images, labels = MixTransform(mm.CutMix(), num_classes=10)(images, labels)``; goes into ``v2.RandomChoice``, too.

    Args:
        method: A method that mixes inputs, the name of one, or an ``Alternate`` of such; None for ``Mixup()``.
        num_classes: How many classes there are, k; needed for class indices.
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
        objective: Objective | None = None,
        seed: int | None = None,
        network: Network | None = None,
    ) -> None:
        super().__init__()
        self._mixer = InputMixer(method, num_classes, objective=objective, seed=seed, network=network)

    def forward(self, *inputs: Any) -> tuple[Tensor, Float[Tensor, "b k"]]:
        """Return mixed images and their targets, class probabilities as a rule; what is given is left as it was.

        Args:
            *inputs: Images (b, c, h, w), floating-point, and labels, (b,) or (b, k); or a pair of them.

        Raises:
            ValueError: If there is anything else.
        """
        pair = inputs[0] if len(inputs) == 1 else inputs
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(v, Tensor) for v in pair):
            held = pair if isinstance(pair, (tuple, list)) else inputs
            kinds = ", ".join(type(value).__name__ for value in held)
            raise ValueError(f"inputs must be images and labels of a mini-batch, got {kinds or 'nothing'}")
        images, labels = (value.as_subclass(Tensor) for value in pair)
        return self._mixer(images, labels)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"{self._mixer.method!r}, num_classes={self._mixer.num_classes}"


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
        objective: Objective | None = None,
        seed: int | None = None,
    ) -> None:
        self._mix = MixTransform(method, num_classes=num_classes, objective=objective, seed=seed)

    def __call__(self, examples: list[Any]) -> tuple[Tensor, Float[Tensor, "b k"]]:
        """Return mixed inputs and their targets from examples (input, label)."""
        return self._mix(default_collate(examples))
