"""Figures of a finished run: what its method feeds the network, and where the network looks."""

import json
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from multimix.lab.data import Batches, Splits
from multimix.lab.evaluate.outcomes import of_size, picture_of
from multimix.lab.evaluate.passes import evaluating
from multimix.ops import attention
from multimix.protocols import Method, Network, encode, submethods

_SHOWN = 5  # images side by side, which have room for what is to be seen in them
_GAP = 4  # pixels between them, through which the page is seen


def save_figures(folder: Path, method: Method, network: Network, splits: Splits, device: torch.device) -> None:
    """Write contact sheets of mixed examples and attention maps, with their captions."""
    batches = Batches(splits.test, batch_size=8, mean=splits.mean, std=splits.std, shuffle=True, seed=0, device=device)
    served, labels = next(iter(batches.epoch(0)))
    images = cast("Tensor", served)
    pixels = _denormalise(images, splits)
    captions = {}
    folder.mkdir(exist_ok=True)
    with evaluating(network), torch.no_grad():
        for part in submethods(method):
            if (mixed := _fed(part, network, images, labels)) is not None:
                _sheet([pixels, _denormalise(mixed, splits)]).save(folder / f"{part.name}.png")
                captions[f"{part.name}.png"] = f"Test images (above) as {part.name} mixes them (below)."
        features = encode(network, images).features
        if features.shape[1] > 1 and (side := int(features.shape[1] ** 0.5)) ** 2 == features.shape[1]:
            maps = attention(features).unflatten(1, (1, side, side))
            maps = interpolate(maps.float(), size=tuple(pixels.shape[-2:]), mode="bilinear", align_corners=False)
            heat = pixels * (0.15 + 0.85 * maps / maps.amax((2, 3), keepdim=True).clamp_min(1e-12))
            _sheet([pixels, heat]).save(folder / "attention.png")
            captions["attention.png"] = (
                f"Test images (above) and the attention of the trained network over its {side} × {side} positions"
                " (below): the brighter, the more."
            )
    (folder / "captions.json").write_text(json.dumps(captions, indent=1, ensure_ascii=False), encoding="utf-8")


def _fed(method: Method, network: Network, images: Tensor, labels: Tensor) -> Tensor | None:
    """Return what a method that mixes inputs feeds the network; None of any other method."""
    generator = Generator(images.device).manual_seed(1)
    if getattr(method, "mixes_inputs", False):
        classes = network.classify(network.pool(network.embed(images[:1]))).shape[-1]
        mix: Any = getattr(method, "mix")  # noqa: B009 (which methods need not have)
        mixed, _ = mix(images, labels, num_classes=classes, network=network, generator=generator)
        return None if torch.equal(mixed, images) else mixed
    seen: list[Tensor] = []

    def keep(inputs: Tensor) -> Tensor:
        seen.append(inputs.clone())
        return inputs

    with network.mixing_at(0, keep):
        method(network, images, labels, generator=generator)
    changed = [inputs for inputs in seen[:1] if inputs.shape == images.shape and not torch.equal(inputs, images)]
    return changed[0] if changed else None


def _denormalise(images: Tensor, splits: Splits) -> Tensor:
    mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (splits.mean, splits.std))
    return (images * std + mean).clamp(0, 1)


def _sheet(rows: list[Tensor]) -> Image.Image:
    """Return the first few of rows of images as one picture, each of 128 to 160 pixels, with nothing between them."""
    pictures = [[of_size(picture_of(image), 128, 160) for image in row[:_SHOWN]] for row in rows]
    width, height = (side + _GAP for side in pictures[0][0].size)
    sheet = Image.new("RGBA", (width * len(pictures[0]) - _GAP, height * len(rows) - _GAP))
    for y, row in enumerate(pictures):
        for x, picture in enumerate(row):
            sheet.paste(picture, (x * width, y * height))
    return sheet
