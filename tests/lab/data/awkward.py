"""Sixty pictures as people have them: modes, depths, orientations, suffixes, animations, and what is no picture."""

from pathlib import Path

import numpy as np
from PIL import Image


def sixty(root: Path) -> tuple[set[str], set[str], set[str]]:
    """Write them into two classes, and return which can be read, which cannot, and which are no candidates."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    ramp = np.linspace(0, 1, 480).reshape(24, 20)
    alpha = Image.fromarray((ramp * 255).astype(np.uint8))
    good: dict[str, tuple[Image.Image, dict]] = {}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        good[f"turned-{orientation}.jpg"] = colour, {"exif": exif}
    for mode in ("1", "L", "P", "RGB", "CMYK", "YCbCr"):
        good[f"mode-{mode}.tif"] = colour.convert(mode), {}
    ends = "BMP gif jfif JPEG jpg pgm PNG ppm tga tif tiff webp ico avif jp2"
    for end in ends.split():
        good[f"suffix.{end}"] = colour.convert("L") if end == "pgm" else colour, {}
    rgba = colour.copy()
    rgba.putalpha(alpha)
    good |= {f"alpha.{end}": (rgba, {}) for end in ("png", "webp", "tif", "tga")}
    good["alpha-grey.png"] = rgba.convert("LA"), {}
    good["key.png"] = colour, {"transparency": (1, 2, 3)}
    good["palette.png"] = colour.convert("P"), {"transparency": 0}
    good["sixteen.png"] = Image.fromarray((ramp * 65535).astype(np.uint16)), {}
    good["sixteen.tif"] = Image.fromarray((ramp * 65535).astype(">u2")), {}
    good["float.tif"] = Image.fromarray(ramp.astype(np.float32)), {}
    for end in ("gif", "webp", "png", "tif"):
        good[f"moving.{end}"] = colour, {"save_all": True, "append_images": [colour.rotate(180)]}
    for name, size in {"tall.png": (3, 90), "one.png": (1, 1), "wide.jpg": (90, 3)}.items():
        good[name] = colour.resize(size), {}
    good |= {"é数 name.png": (colour, {}), "inner/deep/one.png": (colour, {})}
    bad: dict[str, tuple[Image.Image, dict]] = {
        "twelve.png": (Image.fromarray((ramp * 4095).astype(np.uint16)), {}),
        "float-255.tif": (Image.fromarray((ramp * 255).astype(np.float32)), {}),
        "integers.tif": (Image.fromarray((ramp * 1000).astype(np.int32)), {}),
    }
    for i, (name, (image, options)) in enumerate({**good, **bad}.items()):
        path = root / ("ant", "bee")[i % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **options)
    cut = (root / "ant" / "turned-1.jpg").read_bytes()
    raw = {"cut.jpg": cut[: len(cut) // 2], "empty.png": b"", "text.jpg": b"no image", "page.png": b"<html></html>"}
    for name, content in raw.items():
        (root / "bee" / name).write_bytes(content)
    others = {"notes.txt", ".DS_Store", "Thumbs.db", "labels.csv", "film.mpg"}
    for name in others:
        (root / "ant" / name).write_bytes(b"x")
    return set(good), {*bad, *raw}, others
