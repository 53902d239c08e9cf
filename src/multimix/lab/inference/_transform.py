"""What an image goes through on its way to a network: the steps that training and evaluation took."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from multimix.lab._paths import expanded
from multimix.lab.data import normalise
from multimix.lab.data._files import fitted
from multimix.lab.data._pixels import read_image, upright

_KINDS = "a path, a PIL image, or pixels (h, w, 3) as a uint8 array or (c, h, w) as a uint8 tensor"


@dataclass(frozen=True)
class Transform:
    """The preprocessing of a network, which may be sent to the workers of a loader.

    Images are turned as their EXIF data say, laid on white where they are transparent, and brought to RGB or grey. The
    shorter side is scaled (bilinear, antialiased), the centre is cut out, and pixels in [0, 1] are normalised.
    """

    shape: tuple[int, int, int]
    """Shape (c, h, w) of what the network sees; c is 1 for grey and 3 for RGB."""
    mean: tuple[float, ...]
    """Mean of each channel, for pixels in [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation of each channel, likewise."""
    ratio: float = 1.0
    """Of the scaled shorter side to the centre square."""

    def __call__(self, image: Any) -> Float32[Tensor, "c h w"]:
        """Return an image as the network takes it.

        Args:
            image: A path, a PIL image, or pixels: (h, w, 3) or (h, w) as a uint8 array, (c, h, w) as a uint8 tensor.

        Raises:
            ValueError: If the image cannot be read, or pixels are of another type or shape.
            TypeError: If it is anything else.
        """
        return normalise(self.pixels(image)[None], self.mean, self.std)[0]

    def pixels(self, image: Any) -> UInt8[Tensor, "c h w"]:
        """Return an image brought to the network's size, before it is normalised; arguments and errors as above."""
        fitting = self._fitted(_opened(image).convert("L" if self.shape[0] == 1 else "RGB"))
        values = np.asarray(fitting)
        return torch.from_numpy(values[None].copy() if values.ndim == 2 else values.transpose(2, 0, 1).copy())

    def _fitted(self, image: Image.Image) -> Image.Image:
        _, height, width = self.shape
        if self.ratio == 1 and image.size == (width, height):
            return image
        if height == width:
            return fitted(image, height, ratio=self.ratio)
        from torchvision.transforms.v2 import functional  # whose import takes seconds

        scale = self.ratio * max(height / image.height, width / image.width)
        resized = functional.resize(image, [round(image.height * scale), round(image.width * scale)], antialias=True)
        return functional.center_crop(resized, [height, width])


def _opened(image: Any) -> Image.Image:
    if isinstance(image, (str, Path)):
        return read_image(str(expanded(image)))
    if isinstance(image, Image.Image):
        return upright(image)
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3):
            raise ValueError(
                f"image must be uint8 pixels (c, h, w) with 1 or 3 channels, got {image.dtype} {tuple(image.shape)}"
            )
        image = image.cpu().permute(1, 2, 0).numpy()
    if not isinstance(image, np.ndarray):
        raise TypeError(f"image must be {_KINDS}, got {type(image).__name__}")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise ValueError(f"image must be {_KINDS}, got an array of {image.dtype} {image.shape}")
    return upright(Image.fromarray(np.ascontiguousarray(image)))
