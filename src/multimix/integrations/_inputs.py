"""Mixing of inputs alone, for hosts that compute the loss themselves."""

from typing import Any, cast

import torch
from torch import Generator, Tensor

from multimix.integrations._course import Methodical, as_method
from multimix.methods import Mixup
from multimix.ops import as_probabilities
from multimix.protocols import Method, Network, submethods


class InputMixer:
    """A method that mixes inputs, a number of classes, and one generator for each device it is asked on.

    The generator is seeded from torch's own seed, which differs between the workers of a loader and between ranks that
    seeded themselves, and is not drawn from; a copy that lands in another process starts anew there.
    """

    def __init__(
        self, method: Methodical, num_classes: int, *, seed: int | None = None, network: Network | None = None
    ) -> None:
        """Take what mixes.

        Args:
            method: A method that mixes inputs, the name of one, or an ``Alternate`` of such and ``ERM``.
            num_classes: How many classes there are, k.
            seed: Of the generator; None for torch's own seed. The workers of a loader add it to theirs.
            network: For the methods whose mixing depends on it.

        Raises:
            TypeError: If the method does not mix inputs, or ``num_classes`` is no integer.
            ValueError: If ``num_classes`` is below 1, no method has that name, or it needs a network.
        """
        self.method = as_method(Mixup() if method is None else method)
        _check(self.method, network)
        if not isinstance(num_classes, int) or isinstance(num_classes, bool):
            raise TypeError(f"num_classes must be an integer, got {num_classes!r}")
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes, self.seed, self.network = num_classes, seed, network
        self._generators: dict[tuple[int, torch.device], Generator] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave generators behind, which cannot be pickled and would be the same in every worker."""
        return {**self.__dict__, "_generators": {}}

    def __call__(self, inputs: Tensor, targets: Tensor, *, share: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return mixed inputs and class probabilities (b, k), with probability ``share``; else both unmixed."""
        generator = self.generator(inputs.device)
        mixes = share >= 1 or bool(torch.rand((), generator=generator, device=inputs.device) < share)
        if not mixes:
            return inputs, as_probabilities(targets, self.num_classes)
        method: Any = self.method
        mixed = method.mix(inputs, targets, num_classes=self.num_classes, network=self.network, generator=generator)
        return cast("tuple[Tensor, Tensor]", mixed)

    def generator(self, device: torch.device) -> Generator:
        """Return the source of randomness on a device, in this process."""
        worker = torch.utils.data.get_worker_info()
        own = worker.seed if worker else -1  # differs between workers, and between epochs unless they are kept
        if (own, device) not in self._generators:
            seed = (self.seed or 0) + own if worker else torch.initial_seed() if self.seed is None else self.seed
            self._generators[own, device] = Generator(device).manual_seed(seed % 2**63)
        return self._generators[own, device]


def _check(method: Method, network: Network | None) -> None:
    others = [type(part).__name__ for part in submethods(method) if not getattr(part, "mixes_inputs", False)]
    if others:
        raise TypeError(
            f"method must mix inputs, such as Mixup() or CutMix(), got {others[-1]}, whose loss needs the"
            " network's embeddings; call the method itself in place of the loss"
        )
    for part in submethods(method):
        if getattr(part, "needs_network", False) and network is None:
            raise ValueError(f"network must be given: {type(part).__name__} mixes by what it makes of the inputs")
