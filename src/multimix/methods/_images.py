"""What the methods that mix images share: draws, and how much each pixel matters to a network."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from multimix._declared import Interval
from multimix._modules import evaluating, not_alone
from multimix.methods._predict import wanted_of
from multimix.ops import objective_of
from multimix.protocols import Network

Weight = Annotated[float, Interval(ge=0, lt=inf)]
"""A finite number that is not negative."""


def uniform(*shape: int, generator: Generator | None, like: Tensor | None = None) -> Tensor:
    """Return numbers uniform in [0, 1) on the device of ``like``, the CPU without it, drawn where the generator is."""
    device = None if like is None else like.device
    return torch.rand(shape, generator=generator, device=generator.device if generator else device).to(device)


def input_gradient(network: Network, inputs: Float[Tensor, "b c h w"], targets: Tensor) -> Float[Tensor, "b c h w"]:
    """Return the gradient of each example's loss on its pixels, in float32, and leave the network as it was."""
    with evaluating(network), torch.enable_grad():
        pixels = not_alone(inputs.detach()).requires_grad_()
        logits = network(pixels)
        wanted = not_alone(wanted_of(network, targets, logits[: len(targets)]))
        loss, _ = objective_of(network).terms(logits.float(), wanted)
        return torch.autograd.grad(loss.sum(), pixels)[0][: len(inputs)].float()


def saliency_of(gradient: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
    """Return the root of the mean square of a gradient over channels, in float32."""
    return gradient.float().square().mean(1).sqrt()


@contextmanager
def kept_statistics(network: Network) -> Iterator[None]:
    """Let the network write its running statistics into copies, so that its own stay as they are."""
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    own = [(m, name, b) for m in modules for name, b in m.named_buffers(recurse=False)]
    try:  # not overwritten and put back: a graph that is still to be differentiated may hold them
        for module, name, buffer in own:
            setattr(module, name, buffer.clone())
        yield
    finally:
        for module, name, buffer in own:
            setattr(module, name, buffer)
