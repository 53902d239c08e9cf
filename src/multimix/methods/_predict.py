"""What the methods share that classify mixed data: one draw serves the student and its teacher, or the data alone."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import torch
from torch import Generator, Tensor

from multimix.ops import (
    CrossEntropy,
    as_probabilities,
    check_batch,
    check_examples,
    check_fit,
    check_generator,
    objective_of,
    rows_of,
)
from multimix.protocols import Losses, Network, Teacher, check_network, encode, pool


@runtime_checkable
class Mixing(Protocol):
    """One draw of a method: everything random about a step is settled in it."""

    def predict(self, network: Network, inputs: Tensor) -> Tensor:
        """Return the logits of the mixed mini-batch."""
        ...

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the mixed class probabilities."""
        ...


class InputMixing(ABC):
    """A draw that mixes the inputs themselves."""

    @abstractmethod
    def mix(self, inputs: Tensor) -> Tensor:
        """Return the mixed inputs."""

    @abstractmethod
    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the mixed class probabilities."""

    def predict(self, network: Network, inputs: Tensor) -> Tensor:
        """Return the logits of the mixed inputs."""
        return network(self.mix(inputs))


class Predicts(ABC):
    """Base of the methods whose loss is that of one prediction for each mixed example.

    The loss is the network's own ``objective``, cross-entropy if it has none.
    """

    calls_only: ClassVar[bool] = False
    """Whether the network's forward pass is all that the method asks for."""
    mixes: ClassVar[bool] = True
    """Whether there is anything mixed to look at; of some only once they are prepared."""
    label_maps: ClassVar[bool] = False
    """Whether targets may differ from position to position: what mixes them mixes the positions alike."""

    @abstractmethod
    def draw(self, network: Network, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Mixing:
        """Draw this step's mixing; targets are class indices or probabilities."""

    def __call__(
        self,
        network: Network,
        inputs: Tensor,
        targets: Tensor,
        *,
        generator: Generator | None = None,
        teacher: Teacher | None = None,
    ) -> Losses:
        """Return the loss of the mixed mini-batch against mixed targets and a teacher's predictions."""
        targets = begin(network, targets, generator, called=self.calls_only)
        self.check(inputs, targets)
        mixing = self.draw(network, inputs, targets, generator)
        observed = _Observed(network) if is_label_map(targets) else None
        logits = mixing.predict(network if observed is None else cast("Network", observed), inputs)
        grid = None if observed is None else observed.grid
        mixed = mixing.mix_targets(wanted_of(network, targets, logits, grid=grid, label_maps=self.label_maps))
        return objective_of(network).losses(logits, mixed, taught_by(mixing, teacher))

    def check(self, inputs: Any, targets: Tensor) -> None:
        """Raise unless this is a mini-batch that the method can take."""
        check_examples(inputs, targets)


class MixesInputs(Predicts):
    """Base of the methods that mix inputs before the network sees them."""

    calls_only: ClassVar[bool] = True
    mixes_inputs: ClassVar[bool] = True
    needs_network: ClassVar[bool] = False
    """Whether the mixing depends on the network."""

    def check(self, inputs: Any, targets: Tensor) -> None:
        """Raise unless this is a mini-batch of numbers that can be mixed."""
        check_batch(inputs, targets)

    @abstractmethod
    def draw(
        self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None
    ) -> InputMixing:
        """Draw this step's mixing; targets are class indices or probabilities."""

    def mix(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        num_classes: int | None = None,
        network: Network | None = None,
        generator: Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the mixed inputs and their class probabilities (b, k), for a loop that only wants the data.

        Args:
            inputs: A mini-batch.
            targets: Class indices (b,), or class probabilities (b, k).
            num_classes: How many classes there are, k; needed for class indices.
            network: Needed by the methods whose mixing depends on it.
            generator: Source of randomness.

        Raises:
            ValueError: If ``num_classes`` or ``network`` is missing, or as the method itself.
        """
        check_generator(generator)
        self.check(inputs, targets)
        if self.needs_network and network is None:
            raise ValueError(f"network must be given: {type(self).__name__} mixes by what it makes of the inputs")
        targets = rows_of(targets, num_classes)
        if num_classes is None and not targets.is_floating_point():
            raise ValueError("num_classes must be given for targets that are class indices")
        k = targets.shape[-1] if num_classes is None else num_classes
        mixing = self.draw(network, inputs, targets, generator)
        return mixing.mix(inputs), mixing.mix_targets(as_probabilities(targets, k))


def begin(network: Network, targets: Tensor, generator: Generator | None, *, called: bool = False) -> Tensor:
    """Return a step's targets, one-hot integers as probabilities, once network and generator are what they must be.

    A network with outputs at every position (``dense``) takes integers (b, r) for label maps, whatever they hold.

    Raises:
        TypeError: If the network is not adapted or the generator is none.
    """
    check_network(network, called=called)
    check_generator(generator)
    if getattr(network, "dense", False) or not isinstance(objective_of(network), CrossEntropy):
        return targets
    weight = getattr(network.head, "weight", None)
    return rows_of(targets, None if weight is None else len(weight)) if isinstance(targets, Tensor) else targets


class _Observed:
    """A network that remembers the grid of what it embeds."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.grid: tuple[int, ...] | None = None

    def __call__(self, inputs: Any) -> Tensor:
        output = encode(self._network, inputs)
        self.grid = output.grid
        return self._network.classify(pool(self._network, output))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


def is_label_map(targets: Tensor) -> bool:
    """Whether targets are class indices at every pixel, (b, h, w)."""
    return targets.ndim == 3 and not targets.is_floating_point()


def wanted_of(
    network: Network,
    targets: Tensor,
    outputs: Tensor,
    *,
    grid: tuple[int, ...] | None = None,
    label_maps: bool = False,
) -> Tensor:
    """Return targets as rows that can be mixed, in the shape of the outputs, whose positions have a grid.

    Raises:
        ValueError: If they do not fit the outputs, or are label maps, which the method cannot mix.
    """
    wanted = objective_of(network).targets(on_grid(grid, targets, outputs), outputs.shape[-1])
    if wanted.ndim > 2 and (label_maps or outputs.ndim < 3):
        check_fit(targets, wanted, outputs)
    elif wanted.ndim > 2:
        raise ValueError(
            "targets must be one row an example: this method does not mix label maps; ERM, Mixup, ManifoldMixup and"
            " DenseMultiMix do"
        )
    return wanted


def on_grid(grid: tuple[int, ...] | None, targets: Tensor, outputs: Tensor) -> Tensor:
    """Return label maps (b, h, w) at the positions of a grid that have outputs (b, r, k): the nearest labels.

    Other targets, and maps of that size, come back as they are.
    """
    if outputs.ndim != 3 or not is_label_map(targets) or not grid or len(grid) != 2:
        return targets
    rows, columns = (_centres(size, full, targets) for size, full in zip(grid, targets.shape[1:], strict=True))
    return targets[:, rows][:, :, columns]


def _centres(size: int, full: int, like: Tensor) -> Tensor:
    return ((torch.arange(size, device=like.device) + 0.5) * (full / size)).long()


def taught_by(mixing: Mixing, teacher: Teacher | None) -> tuple[Tensor, float] | None:
    """Return a teacher's logits of its own view, mixed by the same draw, and gamma; None without a teacher."""
    if teacher is None:
        return None
    with torch.no_grad():
        return mixing.predict(teacher.network, teacher.inputs), teacher.gamma
