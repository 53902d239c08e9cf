"""Digital: contrast, warping, coarse pixels and compression."""

import io
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

from multimix.lab.evaluate.corruption.levels import Level
from multimix.lab.evaluate.corruption.noise import Draw
from multimix.lab.evaluate.corruption.resample import along, box, gaussian

__all__ = ["contrast", "elastic_transform", "jpeg_compression", "pixelate"]


def contrast(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Pull every value towards its channel's mean; ``level`` is what is left of the distance."""
    (left,) = level
    return torch.lerp(pixels.mean((2, 3), keepdim=True), pixels, left)


def pixelate(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Shrink by means over boxes and enlarge by repetition; ``level`` is the share of the side that is left."""
    (share,) = level
    sides = [(size, max(int(size * share), 1)) for size in pixels.shape[2:]]
    small = along(pixels, *(box(size, new) for size, new in sides))
    return along(small, *(box(new, size) for size, new in sides))


def jpeg_compression(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Compress and decompress as a JPEG file; ``level`` is the quality.

    Images are rounded to 8 bits before. Of three channels an RGB file is made, of others one grey file each.
    """
    (quality,) = level
    images = pixels if pixels.shape[1] == 3 else pixels.flatten(0, 1)[:, None]
    bytewise = (images * 255).round().to("cpu", torch.uint8).movedim(1, -1).contiguous()
    files = b"".join(_through_jpeg(image, int(quality)) for image in bytewise.squeeze(-1).numpy())
    read = torch.frombuffer(bytearray(files), dtype=torch.uint8).view(bytewise.shape)
    return read.to(pixels).div(255).movedim(-1, 1).reshape(pixels.shape)


def _through_jpeg(image: Any, quality: int) -> bytes:
    """Return the pixels of an array (h, w) or (h, w, 3) after it was a JPEG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return Image.open(file, formats=("JPEG",)).tobytes()


def elastic_transform(pixels: Float[Tensor, "b c h w"], level: Level, draw: Draw) -> Float[Tensor, "b c h w"]:
    """Shear the image at random and then displace every pixel by a smooth random field.

    ``level``, in shares of the shorter side: size and smoothness (sigma) of the displacements, and how far each of the
    three points that fix the shear may move.
    """
    h, w = pixels.shape[2:]
    size, sigma, shift = (share * min(h, w) for share in level)
    drawn = draw(lambda g: torch.rand(2 * h * w + 6, generator=g) * 2 - 1)
    pixels = _sheared(pixels, drawn[:, :6].reshape(-1, 3, 2) * shift)
    if not size:
        return pixels
    smooth = gaussian(h, sigma, 3.0, "reflect"), gaussian(w, sigma, 3.0, "reflect")
    moves = along(drawn[:, 6:].reshape(-1, 2, h, w), *smooth) * size
    return _sampled(pixels, _grid(h, w, moves) + moves.movedim(1, -1), corners=False)


def _sheared(pixels: Tensor, moves: Float[Tensor, "b 3 2"]) -> Tensor:
    """Return images under the affine map that moves three points (x, y) around the middle."""
    h, w = pixels.shape[2:]
    reach = min(h, w) // 3
    middle = torch.tensor([w // 2, h // 2], dtype=torch.float64)
    corners = torch.tensor([[1, 1], [1, -1], [-1, -1]], dtype=torch.float64)
    before = middle + reach * corners
    after = before + moves.cpu().double()
    # Where a pixel (x, y, 1) of the result comes from: the map from the moved points to the old ones.
    back = torch.linalg.solve(torch.cat([after, torch.ones(len(after), 3, 1, dtype=torch.float64)], -1), before)
    back = back.to(moves)
    grid = _grid(h, w, moves).view(1, h * w, 2)
    places = torch.baddbmm(back[:, 2:], grid.expand(len(back), -1, -1), back[:, :2])
    return _sampled(pixels, places.view(-1, h, w, 2), corners=True)


def _grid(h: int, w: int, like: Tensor) -> Float[Tensor, "h w 2"]:
    """Return each pixel's place (x, y)."""
    y, x = (torch.arange(n, device=like.device, dtype=like.dtype) for n in (h, w))
    return torch.stack(torch.broadcast_tensors(x, y[:, None]), -1)


def _sampled(pixels: Tensor, places: Float[Tensor, "b h w 2"], *, corners: bool) -> Tensor:
    """Return images at places (x, y) in pixels, reflected about the middle (corners) or the edge of the last pixel."""
    sizes = torch.tensor([pixels.shape[3], pixels.shape[2]]).to(places)
    scaled = places * 2 / (sizes - 1).clamp(min=1) - 1 if corners else (places * 2 + 1) / sizes - 1
    return grid_sample(pixels, scaled.to(pixels.dtype), padding_mode="reflection", align_corners=corners)
