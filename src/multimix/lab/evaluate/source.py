"""What a finished run offers to those who measure it."""

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch

from multimix.lab.data import Batches, ImageSet, Splits, first_of
from multimix.lab.evaluate.predict import LabelledBatches
from multimix.protocols import Method


@dataclass(frozen=True)
class Source:
    """A run's data as its network takes them, in batches that start over at every iteration."""

    splits: Splits
    """The run's own data set."""
    method: Method
    """What the network was trained by."""
    device: torch.device
    """Where the batches live, which is where the network is."""
    batch_size: int = 256
    """Examples in a batch; no result depends on it."""
    workers: int = 0
    """Processes that decode images of sets too large for memory."""
    root: str = "data"
    """Where data sets lie that are given by name."""

    @cached_property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.splits.classes)

    def test(self, examples: int | None = None) -> ImageSet:
        """Return the test set, or so many of its images, the same share of each class.

        Raises:
            ValueError: If there are not so many, or fewer are wanted than there are classes.
        """
        return first_of(self.splits.test, examples, what="examples")

    def batches(self, part: ImageSet) -> LabelledBatches:
        """Return a set's images as the network takes them, in order: (inputs (b, c, h, w), labels (b,))."""
        return self._served(part, self.splits.mean, self.splits.std)

    def pixels(self, part: ImageSet) -> LabelledBatches:
        """Return a set's images in [0, 1], in order, for :class:`multimix.lab.evaluate.Normalised` networks."""
        channels = part.shape[0]
        return self._served(part, (0.0,) * channels, (1.0,) * channels)

    def _served(self, part: ImageSet, mean: tuple[float, ...], std: tuple[float, ...]) -> LabelledBatches:
        batches = Batches(
            part,
            batch_size=self.batch_size,
            mean=mean,
            std=std,
            shuffle=False,
            device=self.device,
            workers=self.workers,
        )
        return cast("LabelledBatches", batches)  # of one view
