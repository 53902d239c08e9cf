"""Images of any origin, brought to the shape a network was trained on."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from jaxtyping import UInt8
from torch import Generator, Tensor

from multimix.lab.data import normalise
from multimix.lab.data._batches import decoded
from multimix.lab.evaluate.predict import per_example

__all__ = ["Fitting", "Memory", "Noise", "OutBatches", "Pictures", "Pixels", "images_under"]


class Pixels(Protocol):
    """A set of images that are made when asked for."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, indices: list[int]) -> UInt8[Tensor, "b c h w"] | str:
        """Return those at ``indices``, or the message of what cannot be read: a worker would bury an exception."""
        ...


@dataclass(frozen=True)
class Noise:
    """Images of independent bytes, the same for a position in every batch."""

    gaussian: bool
    """Whether values are N(1/2, 1), clipped to [0, 1] and rounded to bytes, as in ODIN; else uniform bytes."""
    shape: tuple[int, int, int]
    size: int
    seed: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, indices: list[int]) -> Tensor:
        """Return the images at ``indices``."""
        pixels = per_example(self._drawn, indices, seed=self.seed, device=torch.device("cpu"))
        return pixels.add_(0.5).clamp_(0, 1).mul_(255).round_().byte() if self.gaussian else pixels

    def _drawn(self, generator: Generator) -> Tensor:
        if self.gaussian:
            return torch.randn(self.shape, generator=generator)
        return torch.randint(256, self.shape, generator=generator, dtype=torch.uint8)


@dataclass(frozen=True)
class Fitting:
    """Brings images to one shape, either the whole image scaled or a part of it cut out."""

    shape: tuple[int, int, int]
    """Channels, height and width."""
    crop: bool
    """Cut a random part out of the unscaled image; else scale the image (bilinear, antialiased) to cover the height and
    width, and cut the centre out. An image that is too small to cut from is scaled first."""
    seed: int
    """Of the places of the cuts, which belong to an image's position in its set."""
    ratio: float = 1.0
    """Of an image file's scaled shorter side to the centre that is kept, where height and width are one."""

    def images(self, images: UInt8[Tensor, "b *chw"], indices: list[int]) -> Tensor:
        """Return images of one size (b, c', h', w') in the shape; ``indices`` are their positions in the set."""
        images = self._channels(images)
        return self._cut(images, indices) if self.crop else self._centre(self._covering(images, always=True))

    def picture(self, path: str, index: int) -> Tensor:
        """Return the image in a file, scaled as the run's own test images are."""
        from torchvision.transforms.v2.functional import pil_to_tensor

        from multimix.lab.data._images import fitted, read_image  # as the run's own files are read

        picture = read_image(path)
        _, height, width = self.shape
        if height == width and not self.crop:
            picture = fitted(picture, height, ratio=self.ratio)
        return self.images(pil_to_tensor(picture)[None], [index])[0]

    def _channels(self, images: Tensor) -> Tensor:
        from torchvision.transforms.v2.functional import rgb_to_grayscale

        has, wanted = images.shape[1], self.shape[0]
        if has == wanted:
            return images
        if has == 1:
            return images.expand(-1, wanted, -1, -1)
        if (has, wanted) == (3, 1):
            return rgb_to_grayscale(images)
        raise ValueError(f"images of {has} channels cannot be made into the run's, of {wanted}")

    def _covering(self, images: Tensor, *, always: bool) -> Tensor:
        """Return images scaled to cover the shape, if they do not already or ``always``."""
        from torchvision.transforms.v2.functional import resize

        has, wanted = images.shape[-2:], self.shape[1:]
        scale = max(wanted[0] / has[0], wanted[1] / has[1])
        if scale == 1 or (scale < 1 and not always):
            return images
        size = [max(least, round(side * scale)) for side, least in zip(has, wanted, strict=True)]
        return cast("Tensor", resize(images, size, antialias=True))

    def _centre(self, images: Tensor) -> Tensor:
        from torchvision.transforms.v2.functional import center_crop

        return cast("Tensor", center_crop(images, list(self.shape[1:])))

    def _cut(self, images: Tensor, indices: list[int]) -> Tensor:
        images = self._covering(images, always=False)
        height, width = self.shape[1:]
        free = torch.tensor([images.shape[-2] - height + 1, images.shape[-1] - width + 1])
        drawn = per_example(
            lambda generator: torch.rand(2, generator=generator, dtype=torch.float64),
            indices,
            seed=self.seed,
            device=torch.device("cpu"),
        )
        corners = (drawn * free).long().tolist()
        pairs = zip(images, corners, strict=True)
        return torch.stack([image[:, top : top + height, left : left + width] for image, (top, left) in pairs])


@dataclass(frozen=True, eq=False)
class Memory:
    """Images that are in memory."""

    pixels: UInt8[Tensor, "n *chw"]
    fitting: Fitting

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, indices: list[int]) -> Tensor:
        """Return the images at ``indices``."""
        return self.fitting.images(self.pixels[indices], indices)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images in files."""

    paths: tuple[str, ...]
    fitting: Fitting

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: list[int]) -> Tensor:
        """Return the images at ``indices``."""
        return torch.stack([self.fitting.picture(self.paths[index], index) for index in indices])


@dataclass(frozen=True, eq=False)
class OutBatches:
    """A set's images as a network takes them, in order, with labels that mean nothing."""

    pixels: Pixels
    batch_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    workers: int = 0
    """Processes that make the images; those in memory need none."""

    def __len__(self) -> int:
        return -(-len(self.pixels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over all images.

        Raises:
            ValueError: An image file cannot be read.
        """
        positions = range(len(self.pixels))
        chunks = [list(positions[start : start + self.batch_size]) for start in positions[:: self.batch_size]]
        workers = 0 if isinstance(self.pixels, Memory) else self.workers
        for images in decoded(self.pixels.__getitem__, chunks, workers=workers):
            inputs = normalise(images.to(self.device), self.mean, self.std)
            yield inputs, torch.zeros(len(inputs), dtype=torch.int64, device=self.device)


def images_under(root: Path) -> list[str]:
    """Return every image file below ``root`` in the order of its path; what is hidden is passed over."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    found = []
    for folder, inner, files in os.walk(root, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += [
            os.path.join(folder, name)
            for name in files
            if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")
        ]
    return sorted(found)
