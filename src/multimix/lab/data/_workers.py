"""Decoding files in processes of their own."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

from torch import Generator
from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")


def decoded(decoder: Dataset[T | str], jobs: Sequence[Any], *, workers: int, pin_memory: bool = False) -> Iterator[T]:
    """Yield what a decoder makes of each job, in order, by so many processes; 0: by this one.

    Raises:
        ValueError: With the decoder's message, where it returns one; an exception, a worker would bury in a traceback.
        RuntimeError: If a worker dies.
    """
    loader = DataLoader(
        decoder,
        sampler=cast("Sequence[int]", jobs),
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        generator=Generator(),  # else the loader draws its own seed from the global one
    )
    try:
        for made in loader:
            if isinstance(made, str):
                raise ValueError(made)
            yield made
    except (ConnectionError, EOFError) as error:  # amid the handing over of a batch, before torch hears of the death
        raise RuntimeError(f"DataLoader worker was killed by signal, or exited unexpectedly: {error}") from error
