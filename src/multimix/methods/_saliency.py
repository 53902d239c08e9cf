"""What a network looks at: the gradient of its loss with respect to its input."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from multimix.ops._checks import accurate
from multimix.protocols import Network


def input_saliency(network: Network, inputs: Tensor, targets: Tensor) -> Float[Tensor, "b h w"]:
    """Return the root mean square over channels of the gradient of each image's cross-entropy.

    The parameters' gradients, the running statistics and the mode of the network are left as they were.

    Args:
        network: In the mode in which it is to be looked at.
        inputs: Images (b, c, h, w).
        targets: Class indices (b,), or class probabilities (b, k).
    """
    pixels = inputs.detach().requires_grad_()
    with kept_statistics(network), torch.enable_grad():
        logits = accurate(network(pixels))
        labels = targets.to(logits.dtype) if targets.is_floating_point() else targets.long()
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, pixels)
    return as_saliency(gradient)


def as_saliency(gradient: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
    """Return the root mean square of a gradient over channels, in float32."""
    return gradient.float().square().mean(1).sqrt()


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
