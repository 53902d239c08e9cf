"""Mini-batches as a pure function of seed, epoch and position, so that any of them can be had again."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from multimix.lab.data._augment import Augment, normalise
from multimix.lab.data._seeds import generator_for, seed_of
from multimix.lab.data._sets import Files, Images, ImageSet
from multimix.lab.data._workers import decoded

__all__ = ["Batch", "Batches"]

Batch = tuple[Tensor | tuple[Tensor, ...], Tensor]


class Batches:
    """Serves a set of images in normalised float32 batches.

    The order is drawn from (seed, epoch), the augmentation of a batch from (seed, epoch, batch index) for ``Images``
    and that of an image from (seed, epoch, index, view) for ``Files``: neither the number of workers nor the batch an
    iteration starts from changes what comes out, and full batches of all shards, dealt together, are those of one.
    Torch's global generators are left as they were.

    Args:
        dataset: ``Images``, moved to ``device`` here, or ``Files``, decoded by workers.
        batch_size: Images in a batch, on each shard.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].
        augment: Random crop and flip; None serves the images as they are (``Files``: the centre crop).
        views: Differently augmented copies of each batch.
        seed: Fixes order and augmentation.
        shuffle: Draw a new order each epoch.
        drop_last: Leave out a last batch that is not full.
        device: Where the batches live.
        workers: Processes that decode ``Files``; 0 decodes in this one. ``Images`` need none.
        shard: ``(rank, world)``: serve the rank-th of world parts. Shuffled, each epoch leaves out the few images
            (fewer than world) that do not share evenly, so that all ranks take the same steps; in order, none is left
            out.

    Raises:
        ValueError: ``batch_size`` or ``views`` below 1, ``workers`` negative, a ``shard`` that is none, mean and std of
            the wrong length, or not even one batch.
    """

    def __init__(
        self,
        dataset: ImageSet,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Augment | None = None,
        views: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        device: torch.device | str = "cpu",
        workers: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("views", views, 1), ("workers", workers, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        if not 0 <= shard[0] < shard[1]:
            raise ValueError(f"shard must be (rank, world) with 0 <= rank < world, not {shard}")
        self.device = torch.device(device)
        self.dataset = dataset.to(self.device) if isinstance(dataset, Images) else dataset
        self.batch_size, self.views, self.workers = batch_size, views, workers
        self.augment, self.seed, self.shuffle, self.drop_last, self.shard = augment, seed, shuffle, drop_last, shard
        self.mean, self.std = self._statistic("mean", mean), self._statistic("std", std)
        if len(self) == 0:
            kept = "full batches only" if drop_last else "one or more a batch"
            raise ValueError(
                f"{len(dataset)} images in batches of {batch_size}, {kept}, on shard {shard}: no batch at all"
            )

    def __len__(self) -> int:
        full, rest = divmod(self._share(), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over epoch 0, which is all there is to a set served in order and without augmentation."""
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of an epoch from batch ``start`` on.

        Yields:
            Inputs (b, c, h, w), or a tuple of ``views`` such tensors where there are more than one, and labels (b,).

        Raises:
            ValueError: ``start`` is not in 0..len(self), or an image file cannot be read.
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"start must lie in 0..{len(self)}, not {start}")
        chunks = list(self._order(epoch).split(self.batch_size)[start : len(self)])
        if isinstance(self.dataset, Images):
            return self._from_memory(self.dataset, epoch, start, chunks)
        return self._from_files(self.dataset, epoch, chunks)

    def _share(self) -> int:
        """Return how many images this shard serves an epoch."""
        rank, world = self.shard
        each, over = divmod(len(self.dataset), world)
        return each + (rank < over and not self.shuffle)

    def _order(self, epoch: int) -> Tensor:
        size, (rank, world) = len(self.dataset), self.shard
        generator = generator_for("order", self.seed, epoch)
        order = torch.randperm(size, generator=generator) if self.shuffle else torch.arange(size)
        return order[rank::world][: self._share()]

    def _from_memory(self, dataset: Images, epoch: int, start: int, chunks: list[Tensor]) -> Iterator[Batch]:
        if not chunks:
            return
        # One transfer an epoch instead of one a batch.
        on_device = torch.cat(chunks).to(self.device).split(self.batch_size)
        generator = torch.Generator(self.device)
        for position, chunk in enumerate(on_device, start):
            images, labels = dataset.images.index_select(0, chunk), dataset.labels.index_select(0, chunk)
            if self.augment is None:
                yield self._inputs([normalise(images, self.mean, self.std)] * self.views), labels
                continue
            generator.manual_seed(seed_of("batch", self.seed, epoch, position, 0, 1))  # of the batch of all shards
            views = [self.augment(images, self.mean, self.std, generator, self.shard) for _ in range(self.views)]
            yield self._inputs(views), labels

    def _from_files(self, dataset: Files, epoch: int, chunks: list[Tensor]) -> Iterator[Batch]:
        for chunk, made in zip(chunks, self._decoded(dataset, epoch, chunks), strict=True):
            views = [view.to(self.device, non_blocking=True) for view in made]
            labels = dataset.labels.index_select(0, chunk).to(self.device, non_blocking=True)
            yield self._inputs([normalise(view, self.mean, self.std) for view in views]), labels

    def _decoded(self, dataset: Files, epoch: int, chunks: list[Tensor]) -> Iterator[list[Tensor]]:
        from multimix.lab.data._pictures import Decoder, Job

        jobs = [Job(epoch, indices, [dataset.paths[i] for i in indices]) for indices in (c.tolist() for c in chunks)]
        decoder = Decoder(dataset.image_size, self.augment, self.views, self.seed)
        return decoded(decoder, jobs, workers=self.workers, pin_memory=self.device.type == "cuda")

    def _inputs(self, views: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
        return views[0] if self.views == 1 else tuple(views)

    def _statistic(self, name: str, value: Sequence[float]) -> Tensor:
        channels = self.dataset.shape[0]
        if len(value) != channels:
            raise ValueError(f"{name} must have one number for each of {channels} channels, not {len(value)}")
        return torch.tensor(value, dtype=torch.float32, device=self.device)
