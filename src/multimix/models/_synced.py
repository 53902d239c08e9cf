"""Batch normalisation over the mini-batch of all processes."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from multimix.ops import Gather, processes


def synchronise_batchnorm(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network with every batch normalisation over the mini-batches of all processes together.

    On a GPU these are torch's layers, which know no CPU; there ours take their place.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for name, child in network.named_children():
        setattr(network, name, synchronise_batchnorm(child, device))
    return _Synced.of(network) if isinstance(network, _BatchNorm) and network.track_running_stats else network


class _Synced(_BatchNorm):
    """Batch normalisation with the mean and the variance of all processes' examples, which may differ in number."""

    @classmethod
    def of(cls, layer: _BatchNorm) -> "_Synced":
        """Return a layer that shares another one's parameters and running statistics."""
        synced = cls(layer.num_features, layer.eps, layer.momentum, layer.affine)
        synced.weight, synced.bias = layer.weight, layer.bias
        for name, buffer in layer.named_buffers():
            setattr(synced, name, buffer)
        return synced.train(layer.training)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"inputs must have at least 2 axes, got {input.ndim}")

    def forward(self, input: Float[Tensor, "b c *any"]) -> Float[Tensor, "b c *any"]:
        """Return the normalised inputs."""
        if not self.training or processes() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        axes = [0, *range(2, input.ndim)]
        own = input.mean(axes)
        spread = (input - _on_channels(own, input)).square().sum(axes)
        count = own.new_full((1,), input.numel() / input.shape[1])
        everyone = Gather(even=True)(torch.cat([own, spread, count])[None])
        means, spreads, counts = everyone.split([len(own), len(own), 1], 1)
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        # Of sums of squares the mean would be subtracted at the end, and with it most of what float32 holds.
        variance = (spreads + counts * (means - mean).square()).sum(0) / total
        seen = cast("Tensor", self.num_batches_tracked)
        seen += 1
        share = 1 / float(seen) if self.momentum is None else self.momentum
        cast("Tensor", self.running_mean).lerp_(mean.detach(), share)
        cast("Tensor", self.running_var).lerp_(variance.detach() * total / (total - 1), share)
        scale = torch.rsqrt(variance + self.eps) * (1 if self.weight is None else self.weight)
        centred = (input - _on_channels(mean, input)) * _on_channels(scale, input)
        return centred if self.bias is None else centred + _on_channels(self.bias, input)


def _on_channels(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.ndim - 2))
