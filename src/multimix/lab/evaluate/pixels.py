"""A network that takes pixels in [0, 1], its normalisation inside."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multimix.protocols import Network


class Normalised(nn.Module):
    """A network and the normalisation of its inputs as one function of pixels in [0, 1].

    What moves pixels (attacks, corruptions) is measured in pixels; a gradient passes through the normalisation.

    Args:
        network: Takes (b, c, h, w) that are normalised.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, likewise.

    Raises:
        ValueError: If mean and std are not of one length, or a std is not above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(
                f"mean and std must have one number a channel, std above 0, got {tuple(mean)} and {tuple(std)}"
            )
        self.network = network
        device = next((p.device for p in network.parameters()), None) if isinstance(network, nn.Module) else None
        self.register_buffer("mean", torch.tensor(mean, device=device).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, device=device).view(-1, 1, 1))

    def normalise(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return what the network itself takes."""
        return (pixels - self.mean) / self.std

    def forward(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the logits of images in [0, 1]."""
        return self.network(self.normalise(pixels))
