"""Mini-batches as a pure function of seed, epoch and position, so that any of them can be had again."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multimix._declared import Checked, Count, Ge
from multimix.lab.data._images import (
    EVALUATION_RATIO,
    Augment,
    UnreadableError,
    augmented,
    fitted,
    normalise,
    read_image,
)
from multimix.lab.data._sets import Files, Images, ImageSet
from multimix.lab.data._split import generator_for, seed_of

__all__ = ["Batch", "Batches", "EpochBatches", "decoded"]

T = TypeVar("T")
Batch = tuple[Tensor | tuple[Tensor, ...], Tensor]


@dataclass(eq=False)
class EpochBatches(Checked, Generic[T]):
    """Serves a set in mini-batches whose order is drawn from (seed, epoch).

    Raises:
        ValueError: A setting is out of its range, or there is not even one batch.
    """

    dataset: Any
    """What is served."""
    _: KW_ONLY
    batch_size: Count
    """Images in a batch, on each shard."""
    seed: int = 0
    """Fixes order and augmentation."""
    shuffle: bool = True
    """Draw a new order each epoch."""
    drop_last: bool = False
    """Leave out a last batch that is not full."""
    device: torch.device | str = "cpu"
    """Where the batches live."""
    workers: Annotated[int, Ge(0)] = 0
    """Processes that decode image files; 0 decodes in this one."""
    shard: tuple[int, int] = (0, 1)
    """(rank, world size): serve every world-th image from number rank on. Shuffled, each epoch leaves out the few
    images that do not share evenly, so that all ranks take the same steps; in order, none is left out."""

    ORDER: ClassVar[str] = "order"
    """What the order is drawn for: one of the parts of its seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.shard[0] < self.shard[1]:
            raise ValueError(f"shard must be (rank, world size) with 0 <= rank < world size, got {self.shard}")
        self.device = torch.device(self.device)
        if len(self) == 0:
            kept = "full batches only" if self.drop_last else "one or more a batch"
            raise ValueError(
                f"{len(self.dataset)} images in batches of {self.batch_size}, {kept}, on shard {self.shard}:"
                " no batch at all"
            )

    def __len__(self) -> int:
        full, rest = divmod(self._share(), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[T]:
        """Iterate over epoch 0, which is all there is to a set served in order and without augmentation."""
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[T]:
        """Iterate over the batches of an epoch from batch ``start`` on.

        Raises:
            ValueError: ``start`` is not in 0..len(self), or an image file cannot be read.
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"start must lie in 0..{len(self)}, got {start}")
        return self._served(epoch, start, list(self._order(epoch).split(self.batch_size)[start : len(self)]))

    @abstractmethod
    def _served(self, epoch: int, start: int, chunks: list[Tensor]) -> Iterator[T]:
        """Yield the batches of an epoch whose images are those at the indices in each chunk."""

    def _share(self) -> int:
        """Return how many images this shard serves an epoch."""
        rank, world = self.shard
        each, over = divmod(len(self.dataset), world)
        return each + (rank < over and not self.shuffle)

    def _order(self, epoch: int) -> Tensor:
        size, (rank, world) = len(self.dataset), self.shard
        generator = generator_for(self.ORDER, self.seed, epoch)
        order = torch.randperm(size, generator=generator) if self.shuffle else torch.arange(size)
        return order[rank::world][: self._share()]


@dataclass(eq=False)
class Batches(EpochBatches[Batch]):
    """Serves a set of images in normalised float32 batches.

    The order is drawn from (seed, epoch), the augmentation of a batch from (seed, epoch, batch index) for ``Images``
    and that of an image from (seed, epoch, index, view) for ``Files``: neither the number of workers nor the batch an
    iteration starts from changes what comes out, and full batches of all shards, interleaved, are those of one.
    Torch's global generators are left as they were. A batch is inputs (b, c, h, w), or a tuple of ``views`` such
    tensors where there are more than one, and labels (b,).

    Raises:
        ValueError: As :class:`EpochBatches`, or mean or std have not one number a channel.
    """

    dataset: ImageSet
    """``Images``, moved to ``device`` here, or ``Files``, decoded by workers."""
    _: KW_ONLY
    mean: Sequence[float]
    """Mean of each channel, for pixels in [0, 1]."""
    std: Sequence[float]
    """Standard deviation of each channel, for pixels in [0, 1]."""
    augment: Augment | None = None
    """Random crop and flip; None serves the images as they are (``Files``: the centre crop)."""
    views: Count = 1
    """Differently augmented copies of each batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        channels = self.dataset.shape[0]
        for name in ("mean", "std"):
            if len(value := getattr(self, name)) != channels:
                raise ValueError(f"{name} must have one number for each of {channels} channels, got {len(value)}")
        self._mean, self._std = (
            torch.tensor(v, dtype=torch.float32, device=self.device) for v in (self.mean, self.std)
        )
        if isinstance(self.dataset, Images):
            self.dataset = self.dataset.to(self.device)

    def _served(self, epoch: int, start: int, chunks: list[Tensor]) -> Iterator[Batch]:
        if isinstance(self.dataset, Images):
            return self._from_memory(self.dataset, epoch, start, chunks)
        return self._from_files(self.dataset, epoch, chunks)

    def _from_memory(self, dataset: Images, epoch: int, start: int, chunks: list[Tensor]) -> Iterator[Batch]:
        if not chunks:
            return
        # One transfer an epoch instead of one a batch.
        on_device = torch.cat(chunks).to(self.device).split(self.batch_size)
        generator = torch.Generator(self.device)
        for position, chunk in enumerate(on_device, start):
            images, labels = dataset.images.index_select(0, chunk), dataset.labels.index_select(0, chunk)
            if self.augment is None:
                yield self._inputs([normalise(images, self._mean, self._std)] * self.views), labels
                continue
            generator.manual_seed(seed_of("batch", self.seed, epoch, position, 0, 1))  # of the batch of all shards
            views = [self.augment(images, self._mean, self._std, generator, self.shard) for _ in range(self.views)]
            yield self._inputs(views), labels

    def _from_files(self, dataset: Files, epoch: int, chunks: list[Tensor]) -> Iterator[Batch]:
        jobs = [_Job(epoch, indices, [dataset.paths[i] for i in indices]) for indices in (c.tolist() for c in chunks)]
        decode = partial(_views, dataset.image_size, self.augment, self.views, self.seed)
        made = decoded(decode, jobs, workers=self.workers, pin_memory=torch.device(self.device).type == "cuda")
        for chunk, pixels in zip(chunks, made, strict=True):
            views = [view.to(self.device, non_blocking=True) for view in pixels]
            labels = dataset.labels.index_select(0, chunk).to(self.device, non_blocking=True)
            yield self._inputs([normalise(view, self._mean, self._std) for view in views]), labels

    def _inputs(self, views: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
        return views[0] if self.views == 1 else tuple(views)


class _Job(NamedTuple):
    """One batch of files for a worker, which thus holds no list of all of them."""

    epoch: int
    indices: list[int]
    paths: list[str]


def _views(size: int, augment: Augment | None, views: int, seed: int, job: _Job) -> list[Tensor]:
    """Return the views of a batch of files, each uint8 (b, 3, size, size)."""

    def seen(path: str, index: int) -> list[np.ndarray]:
        image = read_image(path)
        if augment is None:
            made = [fitted(image, size, ratio=EVALUATION_RATIO)] * views
        else:
            seeds = (seed_of("file", seed, job.epoch, index, view) for view in range(views))
            made = [augmented(image, size, augment, each) for each in seeds]
        return [np.asarray(view).transpose(2, 0, 1) for view in made]

    samples = [seen(path, index) for path, index in zip(job.paths, job.indices, strict=True)]
    return [torch.from_numpy(np.stack(view)) for view in zip(*samples, strict=True)]


@dataclass(frozen=True)
class _Caught(Dataset[T | str]):
    """Makes a message of an image that cannot be read; of an error, a DataLoader would show the worker's traceback."""

    decode: Callable[[Any], T]

    def __getitem__(self, job: Any) -> T | str:
        try:
            return self.decode(job)
        except UnreadableError as error:
            return str(error)


def decoded(decode: Callable[[Any], T], jobs: Sequence[Any], *, workers: int, pin_memory: bool = False) -> Iterator[T]:
    """Yield what ``decode`` makes of each job, in order, by so many processes; 0: by this one.

    Raises:
        ValueError: If ``decode`` raises :class:`UnreadableError`, with its message.
        RuntimeError: If a worker dies.
    """
    loader = DataLoader(
        _Caught(decode),
        sampler=cast("Sequence[int]", jobs),
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else the loader draws its own seed from the global one
    )
    try:
        for made in loader:
            if isinstance(made, str):
                raise ValueError(made)
            yield made
    except (ConnectionError, EOFError) as error:  # amid the handing over of a batch, before torch hears of the death
        raise RuntimeError(f"DataLoader worker was killed by signal, or exited unexpectedly: {error}") from error
