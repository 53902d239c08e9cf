"""Augmentation of whole batches, and batches as a pure function of seed, epoch and position, to be had again."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, Int64, UInt8
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from multimix._declared import Checked, Count, Ge
from multimix.lab.data._files import EVALUATION_RATIO, fitted
from multimix.lab.data._pixels import UnreadableError, read_image
from multimix.lab.data._sets import Files, Images, ImageSet, seed_of

T = TypeVar("T")
Batch = tuple[Tensor | tuple[Tensor, ...], Tensor]


class Crops(NamedTuple):
    """First row and column of each image's crop in the padded image, and whether the crop is flipped left to right."""

    top: Int64[Tensor, " b"]
    left: Int64[Tensor, " b"]
    mirrored: Bool[Tensor, " b"]


@dataclass(frozen=True, kw_only=True)
class Augment(Checked):
    """Random crop from zero padding, then a horizontal flip of every other image on average.

    The usual augmentation of small images (He et al. 2016, arXiv 1512.03385, section 4.2). Padding is zero in pixels,
    so normalisation comes last. ``Files`` read it otherwise: any ``crop_padding`` above 0 stands for a random resized
    crop.
    """

    crop_padding: Annotated[int, Ge(0)] = 4
    """Zeros added on each side before the crop; 0 leaves the crop out."""
    flip: bool = True
    """Whether each image is mirrored with probability one half."""

    def __call__(
        self,
        images: UInt8[Tensor, "b c h w"],
        mean: Tensor | Sequence[float],
        std: Tensor | Sequence[float],
        generator: Generator,
        shard: tuple[int, int] = (0, 1),
    ) -> Float32[Tensor, "b c h w"]:
        """Return the images augmented and normalised; ``generator`` lives on their device and gives all randomness.

        Those of one shard (rank, world size) are augmented as in the batch of all shards, of which they are every
        world-th.

        Raises:
            ValueError: As ``normalise``.
        """
        if self.crop_padding or self.flip:
            rank, world = shard
            crops = self.draw(len(images) * world, generator)
            images = self.apply(images, Crops(*(part[rank::world] for part in crops)))
        return normalise(images, mean, std)

    def draw(self, size: int, generator: Generator) -> Crops:
        """Draw the parameters of ``size`` images, on the generator's device."""
        device = generator.device
        corner = torch.randint(2 * self.crop_padding + 1, (2, size), generator=generator, device=device)
        mirrored = torch.rand(size, generator=generator, device=device) < 0.5
        return Crops(corner[0], corner[1], mirrored if self.flip else torch.zeros_like(mirrored))

    def apply(self, images: UInt8[Tensor, "b c h w"], crops: Crops) -> UInt8[Tensor, "b c h w"]:
        """Return each image padded, cropped at its own corner and mirrored where its crop says so."""
        b, _, h, w = images.shape
        windows = F.pad(images, (self.crop_padding,) * 4).unfold(2, h, 1).unfold(3, w, 1)
        # On bytes: a fraction of the time of the same on floats.
        crop = windows[torch.arange(b, device=images.device), :, crops.top, crops.left]
        return torch.where(crops.mirrored.view(-1, 1, 1, 1), crop.flip(3), crop)


def normalise(
    images: UInt8[Tensor, "b c h w"], mean: Tensor | Sequence[float], std: Tensor | Sequence[float]
) -> Float32[Tensor, "b c h w"]:
    """Return ``(images / 255 - mean) / std``, channel by channel.

    Raises:
        ValueError: The images are not uint8, or ``mean`` and ``std`` have not one number a channel.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 (pixels in 0..255), got {images.dtype}")
    sides = per_channel(images.shape[1], images.device, mean=mean, std=std)
    centre, spread = (side.view(-1, 1, 1) for side in sides)
    return images.float().mul_(1 / (255 * spread)).sub_(centre / spread)


def per_channel(channels: int, device: Any, **statistics: Tensor | Sequence[float]) -> list[Tensor]:
    """Return statistics of each channel, given by name, as float32 of shape (c,)."""
    found = [torch.as_tensor(value, dtype=torch.float32, device=device) for value in statistics.values()]
    for name, tensor in zip(statistics, found, strict=True):
        if tensor.shape != (channels,):
            raise ValueError(f"{name} must have one number for each of {channels} channels, got {tuple(tensor.shape)}")
    return found


@dataclass(eq=False)
class EpochBatches(Checked, Generic[T]):
    """Serves a set in mini-batches whose order is drawn from (seed, epoch)."""

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
            images = f"{len(self.dataset)} images in batches of {self.batch_size}, {kept}"
            raise ValueError(f"{images}, on shard {self.shard}: no batch at all")

    def __len__(self) -> int:
        size, (rank, world) = len(self.dataset), self.shard
        share = size // world if self.shuffle else len(range(rank, size, world))
        full, rest = divmod(share, self.batch_size)
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
        size, (rank, world) = len(self.dataset), self.shard
        order = torch.arange(size)
        if self.shuffle:
            generator = torch.Generator().manual_seed(seed_of(self.ORDER, self.seed, epoch))
            order = torch.randperm(size, generator=generator)[: size // world * world]
        chunks = order[rank::world].split(self.batch_size)
        return self._served(epoch, start, chunks[start : len(self)])

    @abstractmethod
    def _served(self, epoch: int, start: int, chunks: tuple[Tensor, ...]) -> Iterator[T]:
        """Yield the batches of an epoch whose images are those at the indices in each chunk."""


@dataclass(eq=False)
class Batches(EpochBatches[Batch]):
    """Serves a set of images in normalised float32 batches.

    The order is drawn from (seed, epoch), the augmentation of a batch from (seed, epoch, batch index) for ``Images``
    and that of an image from (seed, epoch, index, view) for ``Files``: neither the number of workers nor the batch an
    iteration starts from changes what comes out, and full batches of all shards, interleaved, are those of one.
    Torch's global generators are left as they were. A batch is inputs (b, c, h, w), or a tuple of ``views`` such
    tensors where there are more than one, and labels (b,).

    Raises:
        ValueError: A setting is out of its range, mean or std have not one number a channel, or there is no batch.
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
        self._augment = self.augment or Augment(crop_padding=0, flip=False)
        self._mean, self._std = per_channel(self.dataset.shape[0], self.device, mean=self.mean, std=self.std)
        if isinstance(self.dataset, Images):
            self.dataset = self.dataset.to(self.device)

    def _served(self, epoch: int, start: int, chunks: tuple[Tensor, ...]) -> Iterator[Batch]:
        if isinstance(self.dataset, Images):
            return self._from_memory(self.dataset, epoch, start, chunks)
        return self._from_files(self.dataset, epoch, chunks)

    def _from_memory(self, dataset: Images, epoch: int, start: int, chunks: tuple[Tensor, ...]) -> Iterator[Batch]:
        if not chunks:
            return
        # One transfer an epoch instead of one a batch.
        on_device = torch.cat(chunks).to(self.device).split(self.batch_size)
        generator = torch.Generator(self.device)
        for position, chunk in enumerate(on_device, start):
            images, labels = dataset.images.index_select(0, chunk), dataset.labels.index_select(0, chunk)
            generator.manual_seed(seed_of("batch", self.seed, epoch, position, 0, 1))  # of the batch of all shards
            views = [self._augment(images, self._mean, self._std, generator, self.shard) for _ in range(self.views)]
            yield self._inputs(views), labels

    def _from_files(self, dataset: Files, epoch: int, chunks: tuple[Tensor, ...]) -> Iterator[Batch]:
        jobs = [[(index, dataset.paths[index]) for index in chunk.tolist()] for chunk in chunks]
        decode = partial(_views, dataset.image_size, self._augment, self.views, ("file", self.seed, epoch))
        made = decoded(decode, jobs, workers=self.workers, pin_memory=torch.device(self.device).type == "cuda")
        for chunk, pixels in zip(chunks, made, strict=True):
            views = [view.to(self.device, non_blocking=True) for view in pixels]
            labels = dataset.labels.index_select(0, chunk).to(self.device, non_blocking=True)
            yield self._inputs([normalise(view, self._mean, self._std) for view in views]), labels

    def _inputs(self, views: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
        return views[0] if self.views == 1 else tuple(views)


def _views(size: int, augment: Augment, views: int, seed: tuple[Any, ...], job: list[tuple[int, str]]) -> list[Tensor]:
    """Return the views of a batch of files, given as (index, path), each uint8 (b, 3, size, size)."""
    samples = []
    for index, path in job:
        image = read_image(path)
        made = (augmented(image, size, augment, seed_of(*seed, index, view)) for view in range(views))
        samples.append([np.asarray(view).transpose(2, 0, 1) for view in made])
    # In C order, which stack would not make: networks would get images with channels last, which they did not ask for.
    return [torch.from_numpy(np.ascontiguousarray(np.stack(view))) for view in zip(*samples, strict=True)]


def augmented(image: Image.Image, size: int, augment: Augment, seed: int) -> Image.Image:
    """Return a random view of ``size`` squared: a resized crop (none if ``crop_padding`` is 0), then perhaps a flip."""
    from torchvision.transforms import v2

    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
        # Not torch.manual_seed, which would seed the accelerators for good.
        torch.default_generator.manual_seed(seed)
        if augment.crop_padding:
            image = v2.RandomResizedCrop(size, antialias=True)(image)
        else:
            image = fitted(image, size, ratio=EVALUATION_RATIO)
        return v2.RandomHorizontalFlip()(image) if augment.flip else image


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
    """Yield what ``decode`` makes of each job, in order, by so many processes, 0: by this one."""
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
