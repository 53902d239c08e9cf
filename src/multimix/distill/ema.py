"""The moving average of a network."""

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from typing_extensions import Self

from multimix._declared import Interval, check
from multimix._modules import copied
from multimix.protocols import Network

BufferRule = Literal["copy", "average"]
Momentum = Annotated[float, Interval(ge=0, lt=1)]


class EMATeacher(nn.Module):
    """A copy of a network that follows it as an exponential moving average, always in eval mode and without gradient.

    Attributes:
        network: The averaged network; use it like the original.
    """

    updates: Tensor
    """How often the average has moved."""

    def __init__(
        self, network: Network, *, momentum: float = 0.999, buffer_rule: BufferRule = "copy", warmup: bool = False
    ) -> None:
        """Copy ``network``.

        Args:
            network: What to follow; it is left as it is.
            momentum: Share of the average that stays at each update.
            buffer_rule: ``copy`` takes buffers (the running statistics of batch normalisation) as they are; ``average``
                averages the floating-point ones like parameters.
            warmup: Let the t-th update keep no more than t / (t + 9) of the average, so that a short run leaves its
                random start behind.

        Raises:
            ValueError: If ``momentum`` lies outside [0, 1) or ``buffer_rule`` is unknown.
            TypeError: If ``network`` is not a torch module.
        """
        super().__init__()
        check(Momentum, momentum=momentum)
        check(BufferRule, buffer_rule=buffer_rule)
        self.momentum, self.buffer_rule, self.warmup = momentum, buffer_rule, warmup
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.network = copied(as_module(network)).requires_grad_(False).eval()

    @torch.no_grad()
    def update_(self, network: nn.Module) -> None:
        """Move towards ``network``: ``average <- momentum * average + (1 - momentum) * network``."""
        averaged: list[Tensor] = list(self.network.parameters())
        current: list[Tensor] = list(network.parameters())
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            if self.buffer_rule == "average" and mine.is_floating_point():
                averaged.append(mine)
                current.append(theirs)
            else:
                mine.copy_(theirs)
        self.updates += 1
        get_ema_multi_avg_fn(self._share())(averaged, current, None)

    def _share(self) -> float:
        if not self.warmup:
            return self.momentum
        return min(self.momentum, int(self.updates) / (int(self.updates) + 9))

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 (torch's own signature)
        """Stay in eval mode: batch statistics must not follow the teacher's view."""
        return super().train(False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the averaged network's logits."""
        with torch.no_grad():
            return self.network(inputs)


def as_module(network: object) -> nn.Module:
    """Return ``network`` as the torch module that it must be to be averaged, or raise TypeError."""
    if not isinstance(network, nn.Module):
        raise TypeError(f"network must be a torch module, got {type(network).__name__}")
    return network
