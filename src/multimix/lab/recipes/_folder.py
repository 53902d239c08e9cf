"""The recipe for images of one's own: it looks at them, chooses what training takes, and says why."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from multimix.lab.data import Files, Splits, class_counts
from multimix.lab.data._files import SMALL_SIDE
from multimix.lab.data._load import KINDS
from multimix.lab.runs.environment import device_named
from multimix.lab.runs.optim import SGD, Cosine
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.network import load_data
from multimix.methods import MultiMix

PRETRAINED = "torchvision:resnet18"
_STRIDES = ((49, (2, 2, 2, 2)), (25, (2, 2, 2, 1)), (13, (1, 2, 2, 1)), (0, (1, 2, 1, 1)))
"""Of the stages of preact_resnet18, by the least side of the images in pixels."""
_SMALL_ON_GPU = 48
_UNEVEN = 5
"""How many times the images of the smallest class the largest has where balanced weights are advised."""


@dataclass(frozen=True)
class Chosen:
    """A configuration for data, why it is so, and the data as they were looked at."""

    config: TrainConfig
    reasons: tuple[str, ...]
    """What was chosen and why, a line each."""
    splits: Splits


def is_own(recipe: str) -> bool:
    """Return whether the name of a recipe is data that this one looks at."""
    return recipe.partition(":")[0] in KINDS and ":" in recipe


def for_data(config: TrainConfig) -> Chosen:
    """Return a configuration for the data of another, which may say how they are read and where training runs.

    Of ``config`` the settings of the data (``image_size`` among them), ``device`` and ``pretrained`` are kept; the
    rest is chosen by the number and size of the images. A network of our own is trained from scratch unless
    ``pretrained`` is set or the machine holds the pre-trained weights of ``PRETRAINED``; nothing is fetched unasked.

    Raises:
        FileNotFoundError: If the data are not there.
        ValueError: If they cannot be read.
    """
    splits = load_data(config)
    count, on_gpu = len(splits.train), device_named(config.device).type == "cuda"
    large = isinstance(splits.train, Files)
    if config.pretrained or ((large or config.image_size) and _weights_are_here()):
        chosen: dict[str, Any] = {"model": PRETRAINED, "pretrained": True, "image_size": config.image_size or 224}
        why = "as asked for" if config.pretrained else "as its weights are on this machine"
        network, rate, seen = f"{PRETRAINED}, pre-trained, {why},", 0.01, 200_000 if on_gpu else 20_000
    else:
        chosen = _from_scratch(config, splits, on_gpu=on_gpu)
        width = "" if on_gpu else " of width 16, which suits a CPU,"
        network, rate, seen = f"preact_resnet18{width} from scratch", 0.1, 2_000_000 if on_gpu else 60_000
    size = chosen["image_size"]
    side = size or min(splits.shape[1:])
    batch = max(8, min(128, 2 ** ((count // 8).bit_length() - 1)))
    epochs = max(5, min(150, round(seen / count)))
    crops = "resized crops" if side > SMALL_SIDE else "crops"
    reasons = [
        f"network {network} at {size} pixels" if size else f"network {network}, images as they are",
        f"{epochs} epochs in batches of {batch} for {count} training images",
        f"random {crops}, and flips left to right (--flip False where left and right matter)",
        "method multimix (--method NAME; multimix list names all)",
    ]
    if large and not chosen.get("pretrained"):
        reasons.append(f"pre-trained weights are not on this machine; --pretrained fetches those of {PRETRAINED}")
    counts = class_counts(splits.train)
    if counts.max() >= _UNEVEN * counts.min().clamp(min=1):
        several = splits.multi_label
        option = (
            "BinaryCrossEntropy --objective.positive-weights" if several else "CrossEntropy --objective.class-weights"
        )
        reasons.append(
            f"classes are uneven, from {int(counts.min())} to {int(counts.max())} training images: --objective {option}"
            " balanced makes them count alike"
        )
    made = replace(
        config,
        **chosen,
        recipe="folder",
        label="multimix",
        method=MultiMix(),
        crop_padding=max(1, side // 8),
        channels_last=True,
        optimizer=SGD(learning_rate=rate * max(batch, 32) / 128, nesterov=True, weight_decay=5e-4),
        schedule=Cosine(warmup_epochs=1),
        epochs=epochs,
        batch_size=batch,
    )
    return Chosen(made, tuple(reasons), splits)


def _from_scratch(config: TrainConfig, splits: Splits, *, on_gpu: bool) -> dict[str, Any]:
    """Return a network whose last map has a few positions, a narrow one on a CPU."""
    size = config.image_size or ((128 if on_gpu else 64) if isinstance(splits.train, Files) else None)
    side = size or min(splits.shape[1:])
    strides = next(strides for least, strides in _STRIDES if side >= least)
    if on_gpu:
        return {"image_size": size, "strides": (1, *strides[1:]) if side <= _SMALL_ON_GPU else strides}
    return {"image_size": size, "strides": strides, "width": 16}


def _weights_are_here() -> bool:
    """Return whether torchvision would find its pre-trained weights without fetching them."""
    from torchvision.models import ResNet18_Weights

    name = Path(urlparse(ResNet18_Weights.DEFAULT.url).path).name
    return (Path(torch.hub.get_dir()) / "checkpoints" / name).is_file()
