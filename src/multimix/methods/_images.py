"""What the methods that mix images share: draws, and how much each pixel matters to a network."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from multimix._declared import Interval
from multimix.methods._predict import wanted_of
from multimix.ops import objective_of
from multimix.protocols import Network

Weight = Annotated[float, Interval(ge=0, lt=inf)]
"""A finite number that is not negative."""


def uniform(*shape: int, generator: Generator | None, like: Tensor | None = None) -> Tensor:
    """Return numbers uniform in [0, 1) on the device of ``like``, the CPU without it, drawn where the generator is."""
    home = generator.device if generator is not None else None if like is None else like.device
    drawn = torch.rand(shape, generator=generator, device=home)
    return drawn if like is None else drawn.to(like.device)


def input_gradient(network: Network, inputs: Float[Tensor, "b c h w"], targets: Tensor) -> Float[Tensor, "b c h w"]:
    """Return the gradient of each example's loss on its pixels, in float32; the network answers in eval mode.

    Its modes, running statistics and gradients of parameters are left as they were.
    """
    b = len(inputs)
    if b == 1:
        # A single image goes in twice: for it, torch 2.14 gets the gradient of batch normalisation in eval mode wrong
        # on a CPU where what comes in from above is a transposed sequence, as from pooling over positions.
        inputs, targets = (t.repeat(2, *[1] * (t.ndim - 1)) for t in (inputs, targets))
    with evaluating(network), torch.enable_grad():
        pixels = inputs.detach().requires_grad_()
        logits = network(pixels)
        loss, _ = objective_of(network).terms(logits.float(), wanted_of(network, targets, logits))
        return torch.autograd.grad(loss.sum(), pixels)[0][:b].float()


def saliency_of(gradient: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
    """Return the root of the mean square of a gradient over channels, in float32."""
    return gradient.float().square().mean(1).sqrt()


@contextmanager
def evaluating(network: object) -> Iterator[None]:
    """Put a network into eval mode while the context lasts; each of its modules has its own mode back afterwards."""
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    modes = [module.training for module in modules]
    if isinstance(network, nn.Module):
        network.eval()
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


@contextmanager
def kept_statistics(network: Network) -> Iterator[None]:
    """Let the network write its running statistics into copies, so that its own stay as they are.

    They are not overwritten and put back: a graph that is still to be differentiated may hold them.
    """
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    own = [(m, name, b) for m in modules for name, b in m.named_buffers(recurse=False)]
    try:
        for module, name, buffer in own:
            setattr(module, name, buffer.clone())
        yield
    finally:
        for module, name, buffer in own:
            setattr(module, name, buffer)
