"""Passes over a data set: predictions, embeddings, and random numbers that belong to an example."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from multimix._modules import evaluating as evaluating
from multimix._modules import not_alone as not_alone
from multimix.lab.data import seed_of
from multimix.ops._checks import check_tensor
from multimix.protocols import EncoderOutput, Network, pool

LabelledBatches = Iterable[tuple[Tensor, Tensor]]
"""Inputs (b, ...) and class indices (b,), in any number of batches that start over at every iteration; or 0 and 1 for
several labels an example (b, k)."""


class NonFiniteError(ValueError):
    """What a network computes is NaN or infinite."""


def predict(network: Network, batches: LabelledBatches) -> tuple[Float[Tensor, "n k"], Tensor]:
    """Return the logits, in float32 on the CPU, and the labels of every example, in order.

    The network predicts in eval mode and is left in the mode it came in.

    Raises:
        ValueError: If there is no batch.
        NonFiniteError: If a logit is NaN or infinitely large.
    """
    logits, labels = _gathered(network, batches, lambda inputs: network(inputs).float().cpu())
    check_finite(logits, "predicts", ruled_out=True)
    return logits, labels.cpu()


def embed(network: Network, batches: LabelledBatches) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    """Return pooled embeddings, in float32, and labels as :func:`predict` does, but where float64 exists."""
    embeddings, labels = _gathered(
        network, batches, lambda inputs: with_float64(network.pool(network.embed(inputs)).float())
    )
    check_finite(embeddings, "embeds as")
    return embeddings, labels.to(embeddings.device)


def each_position(network: Network, output: EncoderOutput, places: list[int] | None = None) -> Float[Tensor, "b r e"]:
    """Return every position, or those at some places, pooled by itself, as Dense MultiMix classifies it."""
    if places is not None:
        output = replace(output, features=output.features[:, places], mask=None, grid=None)
    return pool(network, output.each_position()).unflatten(0, output.features.shape[:2])


def _gathered(network: Network, batches: LabelledBatches, compute: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    with evaluating(network), torch.inference_mode():
        found = [(compute(inputs), labels) for inputs, labels in batches]
    return concatenated(found)


def concatenated(batches: Iterable[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Return tensors that came batch by batch, each whole."""
    columns = tuple(zip(*batches, strict=True))
    if not columns:
        raise ValueError("batches must hold at least one batch, got none")
    return tuple(torch.cat(column) for column in columns)


def check_finite(values: Tensor, verb: str, *, ruled_out: bool = False) -> None:
    """Raise NonFiniteError unless all that a network gives is finite; logits may rule a class out by minus infinity."""
    if not (values.clamp(min=0) if ruled_out else values).isfinite().all():
        raise NonFiniteError(
            f"the network {verb} NaN or infinity: its weights, or what they make of these inputs, are not finite"
        )


def check_tensors(**values: object) -> None:
    """Raise TypeError unless all values, given by name, are tensors of real numbers."""
    for name, value in values.items():
        check_tensor(name, value)
        if cast("Tensor", value).is_complex():
            raise TypeError(f"{name} must be real numbers, got complex ones")


def class_indices(labels: Tensor, count: int, classes: int | None = None) -> Int[Tensor, " n"]:
    """Return labels as int64; ValueError unless they are ``count`` class indices, below ``classes`` if known."""
    check_tensors(labels=labels)
    whole = not (labels.is_floating_point() or labels.dtype == torch.bool)
    if labels.shape != (count,) or not whole:
        raise ValueError(f"labels must be {count} class indices, got {labels.dtype} {tuple(labels.shape)}")
    low, high = (int(labels.min()), int(labels.max())) if count else (0, -1)
    if low < 0 or (classes is not None and high >= classes):
        last = "" if classes is None else f" to {classes - 1}"
        raise ValueError(f"labels must be {count} class indices from 0{last}, got {low} to {high}")
    return labels.long()


def accuracy(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Return the share of the examples whose largest logit, the first of several, is that of their class."""
    return mean(logits.argmax(1) == class_indices(labels, *logits.shape))


def mean(values: Tensor) -> float:
    """Return the mean in float64: of truth values, the share that is true."""
    return float(values.double().mean())


def with_float64(values: Tensor) -> Tensor:
    """Return values where float64 exists: on the CPU if they are on one of Apple's GPUs."""
    return values.cpu() if values.device.type == "mps" else values


def numbered(batches: LabelledBatches) -> Iterator[tuple[Tensor, Tensor, range]]:
    """Yield inputs, labels and the positions of the examples in their set."""
    start = 0
    for inputs, labels in batches:
        yield inputs, labels, range(start, start + len(labels))
        start += len(labels)


def per_example(
    draw: Callable[[Generator], Tensor],
    examples: Sequence[int] | range,
    *,
    seed: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return what ``draw`` makes of a CPU generator for each example, (b, ...), the same in every batch."""
    generator = Generator()
    drawn = [draw(generator.manual_seed(seed_of("example", seed, example))) for example in examples]
    return torch.stack(drawn).to(device)
