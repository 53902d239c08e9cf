"""Predictions of a network on a whole data set."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from multimix.protocols import Network

LabelledBatches = Iterable[tuple[Tensor, Tensor]]
"""Inputs (b, ...) and class indices (b,), in any number of batches that start over at every iteration."""


class NonFiniteError(ValueError):
    """A network's predictions are not numbers."""


def predict(network: Network, batches: LabelledBatches) -> tuple[Float[Tensor, "n k"], Int[Tensor, " n"]]:
    """Return the logits, in float32 on the CPU, and the labels of every example, in order.

    The network predicts in eval mode and is left in the mode it came in.

    Raises:
        ValueError: If there is no batch.
        NonFiniteError: If a logit is NaN or infinitely large.
    """
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    with evaluating(network), torch.inference_mode():
        for inputs, targets in batches:
            logits.append(network(inputs).float().cpu())
            labels.append(targets.cpu())
    if not logits:
        raise ValueError("batches must hold at least one batch, got none")
    scores = torch.cat(logits)
    if (scores.isnan() | scores.isposinf()).any():
        raise NonFiniteError(
            "the network predicts NaN or infinity: its weights, or what they make of these inputs, are not finite"
        )
    return scores, torch.cat(labels)


def not_alone(inputs: Float[Tensor, "b *input"]) -> Float[Tensor, "n *input"]:
    """Return a batch to take a gradient through: a single example comes twice.

    For a mini-batch of one, torch 2.14 gets the gradient of batch normalisation wrong on a CPU, in eval mode too, where
    what comes back has the channels last, as from a network that ends in one and is then read position by position.
    """
    return inputs.repeat(2, *[1] * (inputs.ndim - 1)) if len(inputs) == 1 else inputs


@contextmanager
def evaluating(network: Network) -> Iterator[None]:
    """Put a network in eval mode while the context lasts."""
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
