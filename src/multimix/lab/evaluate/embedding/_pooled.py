"""Embeddings of a whole data set."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimix.lab.evaluate.predict import LabelledBatches, NonFiniteError, evaluating
from multimix.protocols import EncoderOutput, Network, pool


def pooled(network: Network, batches: LabelledBatches) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    """Return the pooled embedding, in float32, and the label of every example, in order, where the network is.

    The network embeds in eval mode and is left in the mode it came in.

    Raises:
        ValueError: If there is no batch.
        NonFiniteError: If a value is NaN or infinitely large.
    """
    embeddings: list[Tensor] = []
    labels: list[Tensor] = []
    with evaluating(network), torch.no_grad():
        for inputs, targets in batches:
            embeddings.append(_home(network.pool(network.embed(inputs)).float()))
            labels.append(_home(targets))
    if not embeddings:
        raise ValueError("batches must hold at least one batch, got none")
    found = torch.cat(embeddings)
    check_finite(found)
    return found, torch.cat(labels)


def each_alone(network: Network, output: EncoderOutput, places: list[int] | None = None) -> Float[Tensor, "b r e"]:
    """Return every position, or those at some places, pooled by itself, as Dense MultiMix classifies it."""
    if places is not None:
        output = replace(output, features=output.features[:, places], mask=None, grid=None)
    return pool(network, output.each_position()).unflatten(0, output.features.shape[:2])


def check_finite(embeddings: Tensor) -> None:
    """Raise unless all embeddings are numbers.

    Raises:
        NonFiniteError: If a value is NaN or infinitely large.
    """
    if not embeddings.isfinite().all():
        raise NonFiniteError(
            "the network embeds as NaN or infinity: its weights, or what they make of these inputs, are not finite"
        )


def _home(values: Tensor) -> Tensor:
    """Return values where float64, in which all is measured, exists; Apple's GPUs have none."""
    return values.cpu() if values.device.type == "mps" else values
