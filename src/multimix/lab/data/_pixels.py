"""Reading one image file: whatever Pillow opens, as upright RGB of 8 bits, or refused in one line."""

import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from multimix.lab.data._sets import one_line

T = TypeVar("T")

BACKGROUND = (255, 255, 255)
"""The colour behind transparent pixels: white, as on a page."""
_NO_DECODER = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
"""Formats that Pillow knows by name but does not decode by itself."""
_CAMERA = 2**14
"""What 14 bits hold: 16 bits that use no more may be those of a camera, whose white is not known."""
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is brought upright, by the orientation in its EXIF data."""
_AT_ONCE = 1024
_ORIENTATION, _BITS, _PHOTOMETRIC = 274, 258, 262  # tags of EXIF and TIFF
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class UnreadableError(ValueError):
    """Files are not images that can be read; ``problems`` has a line for each if they are several."""

    problems: Sequence[str] = ()


def read_image(path: str, *, upright: bool = True) -> Image.Image:
    """Return the image at ``path`` in RGB, the first one of an animation.

    Transparent pixels lie on white (``BACKGROUND``); 16 bits, and floats in [0, 1], are scaled to 8 bits; the image is
    turned as its EXIF data say, unless ``upright`` is False.

    Raises:
        UnreadableError: It is damaged, no image, or of numbers whose white is not known; the line names the file.
    """
    return _opened(path, partial(_upright_rgb, upright=upright))


def upright(image: Image.Image) -> Image.Image:
    """Return an image that is open already as :func:`read_image` does.

    Raises:
        UnreadableError: Likewise.
    """
    try:
        return _upright_rgb(image, upright=True)
    except _DAMAGED as error:
        raise UnreadableError(f"the image cannot be read: {one_line(error)}") from error


def upright_size(path: str) -> tuple[int, int]:
    """Return an image's width and height as :func:`read_image` gives them, of which only the header is read."""

    def look(image: Image.Image) -> tuple[int, int]:
        width, height = image.size
        return (height, width) if orientation(image) >= 5 else (width, height)

    return _opened(path, look)


def orientation(image: Image.Image) -> int:
    """Return how an image lies by its EXIF data; 1 is upright, and from 5 on width and height change places."""
    return int(image.getexif().get(_ORIENTATION, 1))


class Look(NamedTuple):
    """What a look at a file found: width and height as stored, and orientation in EXIF; or why it cannot be read."""

    size: tuple[int, int] | None
    problem: str | None
    orientation: int = 1


def look_at(paths: Sequence[str], *, whole: bool) -> Iterator[Look]:
    """Look at each file, in order: at all of it with ``whole``, else at its header."""

    def look(path: str) -> Look:
        try:
            return _opened(path, partial(_looked, whole=whole))
        except UnreadableError as error:
            return Look(None, str(error).replace(" cannot be read as an image", ""))

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _AT_ONCE):  # a pool's map would line up millions of files at once
            yield from pool.map(look, paths[start : start + _AT_ONCE])


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes, in lower case, of the files that Pillow can decode."""
    known = Image.registered_extensions()
    return frozenset(end for end, name in known.items() if name in Image.OPEN and name not in _NO_DECODER)


def _opened(path: str, use: Callable[[Image.Image], T]) -> T:
    try:
        with Image.open(path) as image:
            return use(image)
    except UnreadableError as error:
        raise UnreadableError(f"{path} cannot be read as an image: {error}") from None
    except _DAMAGED as error:
        raise UnreadableError(f"{path} cannot be read as an image: {one_line(error)}") from error


def _looked(image: Image.Image, *, whole: bool) -> Look:
    """Look at an image; where its header does not tell, or with ``whole``, it has to be decoded for it."""
    size = image.size
    if _is_wide(image):
        _rgb(image)
    elif whole:
        image.draft("RGB", (8, 8))  # a JPEG is read to its end and makes few pixels
        image.load()
    return Look(size, None, orientation(image) if "exif" in image.info or image.format == "TIFF" else 1)


def _is_wide(image: Image.Image) -> bool:
    """Return whether an image that is not loaded yet has more than 8 bits in a channel."""
    return image.mode[0] in "IF" or ";16" in str(getattr(image, "tile", ""))


def _upright_rgb(image: Image.Image, *, upright: bool) -> Image.Image:
    pixels = _rgb(image)
    turned = _TURNED.get(image.getexif().get(_ORIENTATION, 1)) if upright else None
    return pixels if turned is None else pixels.transpose(turned)


def _rgb(image: Image.Image) -> Image.Image:
    wide = _is_wide(image)
    if image.mode[0] in "IF":
        if image.has_transparency_data:
            raise UnreadableError(f"transparency in mode {image.mode} is not understood; save it with 8 bits")
        grey = _eight_bits(image)
        inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0  # of which Pillow minds those of 8 bits or fewer
        return Image.fromarray(255 - grey if inverted else grey).convert("RGB")
    if wide and 0 < max(high for _, high in _extrema(image)[:3]) < _CAMERA // 256:
        raise UnreadableError(_no_white(16, _CAMERA - 1))
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), layer).convert("RGB")


def _extrema(image: Image.Image) -> tuple[tuple[int, int], ...]:
    found: Any = image.getextrema()
    return found if isinstance(found[0], tuple) else (found,)


def _eight_bits(image: Image.Image) -> np.ndarray:
    """Return grey values of more than 8 bits as uint8, if it is known which of them is white."""
    values = np.asarray(image)
    if image.mode == "F":
        low, high = values.min(), values.max()  # NaN if there is one
        if not (low >= 0 and high <= 1):
            raise UnreadableError(f"its floats lie in [{low:g}, {high:g}]; white is known for those in [0, 1] only")
        return np.rint(values * 255).astype(np.uint8)
    bits = getattr(image, "tag_v2", {}).get(_BITS, (16,))[0]  # a TIFF says how many
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # which have 16 bits at most, scaled to all of these
        raise UnreadableError(f"its integers of {bits} bits have no known white; save it with 8 or 16 bits")
    if bits == 16 and image.format != "PPM" and 0 < values.max() < _CAMERA:
        raise UnreadableError(_no_white(bits, values.max()))
    return np.rint(values / ((2**bits - 1) / 255)).astype(np.uint8)


def _no_white(bits: int, most: int) -> str:
    return f"its {bits} bits hold numbers up to {most} only, and how many are white is not known; scale it to 8 bits"
