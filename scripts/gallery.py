"""Draw docs/gallery, a picture a method: what it makes of the same two images, or of embeddings in the plane.

The images are the two that come with scikit-learn. What needs a network gets a small one, trained for a minute to tell
crops of one from crops of the other.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image
from torch import Generator, Tensor, nn
from torch.nn.functional import interpolate, one_hot

from multimix import ops
from multimix.methods import ERM, METHODS, CoMixup, DenseMultiMix, ManifoldMixup, MultiMix, ZetaMixup
from multimix.models import build, preact_resnet18
from multimix.protocols import Method, Stateful, encode

NAMES = ("china", "flower")
SIDE = 64
STEPS = 60
DRAWS = 8
COLOURS = torch.tensor([[0.84, 0.15, 0.16], [0.12, 0.47, 0.71], [0.17, 0.63, 0.17]])
SETTINGS = {
    "mixup": {"alpha": 8.0},
    "cutmix": {"prob": 1.0},
    "saliencymix": {"prob": 1.0},
    "puzzlemix": {"alpha": 8.0},
    "mixup-io": {"alpha": 8.0},
    "kernel-warping-mixup": {"tau_max": 8.0, "tau_std": 1.0},
}
"""Lambdas near a half show more; what does nothing on half of the steps shows nothing there."""


def pictures() -> Tensor:
    """Return the two images, whole, (2, 3, side, side) in [0, 1]."""
    images = [torch.from_numpy(load_sample_image(f"{name}.jpg").copy()) for name in NAMES]
    squares = [image[:, 106:533].permute(2, 0, 1).float() / 255 for image in images]
    return torch.stack([interpolate(s[None], (SIDE, SIDE), mode="area")[0] for s in squares])


def crops(images: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return random crops at their own size again, normalised, and which image each is of."""
    labels = torch.randint(2, (count,), generator=generator)
    found = []
    for label in labels:
        size = int(torch.randint(SIDE // 2, SIDE + 1, (), generator=generator))
        top, left = (int(torch.randint(SIDE - size + 1, (), generator=generator)) for _ in range(2))
        piece = images[label, :, top : top + size, left : left + size]
        found.append(interpolate(piece[None], (SIDE, SIDE), mode="bilinear")[0])
    return (torch.stack(found) - 0.5) / 0.25, labels


def trained(images: Tensor, method: Method, steps: int) -> nn.Module:
    """Return a small network, trained with a method, which learns too if it can."""
    torch.manual_seed(0)
    network, generator = preact_resnet18(num_classes=2, width=8), Generator().manual_seed(0)
    if getattr(method, "needs_attention", False):
        network = build("timm:test_vit", num_classes=2, image_size=SIDE)
    learned = []
    if isinstance(method, Stateful):
        method.prepare(network)
        learned = [p for p in method.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW([*network.parameters(), *learned], 2e-3)
    for _ in range(steps):
        inputs, labels = crops(images, 16, generator)
        method(network, inputs, labels, generator=generator).total.backward()
        optimiser.step()
        optimiser.zero_grad()
    return network.eval()


def mixed(method: Any, network: nn.Module, images: Tensor) -> list[tuple[str, Tensor]]:
    """Return three examples with their labels, of a few draws those nearest to half of each image."""
    # Several times each, since some methods choose among many, or mix a part of the mini-batch only.
    inputs, targets = ((images - 0.5) / 0.25).repeat(3, 1, 1, 1), torch.tensor([0, 1]).repeat(3)
    found = []
    for seed in range(DRAWS):
        mixing = method.draw(network, inputs, targets, Generator().manual_seed(seed))
        labels = mixing.mix_targets(one_hot(targets, 2).float())
        pairs = zip(mixing.mix(inputs), labels.tolist(), strict=False)
        found.append(min(pairs, key=lambda pair: abs(pair[1][0] - 0.5)))
    found.sort(key=lambda pair: abs(pair[1][0] - 0.5))
    return [(f"{a:.2f} {NAMES[0]}\n{b:.2f} {NAMES[1]}", picture * 0.25 + 0.5) for picture, (a, b) in found[:3]]


def attended(network: nn.Module, images: Tensor) -> list[tuple[str, Tensor]]:
    """Return the images as dark as a trained network's attention to their positions is low."""
    attention = ops.attention(encode(network, (images - 0.5) / 0.25).features)
    side = int(attention.shape[1] ** 0.5)
    light = interpolate((attention / attention.amax(1, keepdim=True)).reshape(-1, 1, side, side), (SIDE, SIDE))
    return [(f"attention\nto {name}", image) for name, image in zip(NAMES, images * (0.1 + 0.9 * light), strict=True)]


def draw_images(folder: Path) -> None:
    """Draw the two images and what every method that mixes inputs or maps makes of them."""
    images = pictures()
    plain = trained(images, ERM(), STEPS)
    for cls in METHODS:
        method = cls(**SETTINGS.get(cls.name, {}))
        network = plain
        if isinstance(method, Stateful) or getattr(method, "needs_attention", False):
            network = trained(images, method, STEPS)
        if isinstance(method, Stateful):
            vars(method).update({"prob": 1.0} if hasattr(method, "prob") else {})  # which learns at its own pace
        with torch.no_grad():
            if cls not in (ERM, CoMixup) and (
                getattr(cls, "mixes_inputs", False) or getattr(cls, "trains_modules", False)
            ):
                made = mixed(method, network, images)
            elif cls is DenseMultiMix:
                made = attended(network, images)
            else:
                continue
        strip(folder / f"{cls.name}.webp", [*zip(NAMES, images, strict=True), *made])
        print(cls.name, flush=True)


def strip(path: Path, cells: list[tuple[str, Tensor]]) -> None:
    """Draw images in a row, their captions above them."""
    figure, axes = plt.subplots(1, 5, figsize=(8, 2.1))
    for axis in axes:
        axis.axis("off")
    for axis, (title, picture) in zip(axes, cells, strict=False):
        axis.imshow(picture.clamp(0, 1).permute(1, 2, 0).numpy())
        axis.set_title(title, fontsize=9)
    keep(figure, path)


def keep(figure: plt.Figure, path: Path) -> None:
    """Write a picture that is as good on a dark page as on a light one."""
    figure.tight_layout()
    figure.savefig(path, dpi=110, transparent=True, pil_kwargs={"quality": 85} if path.suffix == ".webp" else {})
    plt.close(figure)


def plane() -> tuple[Tensor, Tensor]:
    """Return 24 embeddings in the plane, in three classes, and their class probabilities."""
    generator = Generator().manual_seed(3)
    centres = torch.tensor([[0.0, 1.0], [-0.9, -0.6], [0.9, -0.6]])
    labels = torch.arange(3).repeat_interleave(8)
    return centres[labels] + 0.16 * torch.randn(24, 2, generator=generator), one_hot(labels, 3).float()


def draw_planes(folder: Path) -> None:
    """Draw where the examples of a step lie, by their mixed labels: all panels, and three for the README."""
    points, labels = plane()
    generator = Generator().manual_seed(0)
    b = len(points)

    def pairs(alpha: float) -> Tensor:
        lam = ops.beta(40 * b, alpha, generator=generator)
        weights = torch.zeros(40 * b, b)
        weights[torch.arange(40 * b), torch.arange(b).repeat(40)] += lam
        weights[torch.arange(40 * b), torch.randint(b, (40 * b,), generator=generator)] += 1 - lam
        return weights

    like = torch.zeros(1)

    def tuples(method: MultiMix) -> Tensor:
        return method.draw_weights(b, like=like, generator=generator)

    zeta = [ZetaMixup().draw(None, points, labels.argmax(1), generator).weights for _ in range(40)]
    panels = {
        "the mini-batch: 24 examples": torch.eye(b),
        "pairs (mixup, 40 steps: 960 examples)": pairs(1.0),
        "zeta-mixup (40 steps: 960 examples)": torch.cat(zeta),
        "MultiMix, 1000 tuples of one step, effective 2": tuples(MultiMix()),
        "MultiMix, alpha in (0.5, 2) as published": tuples(MultiMix(alpha=(0.5, 2.0))),
        "MultiMix, tuples of 3 examples, alpha 1": tuples(MultiMix(tuple_length=3, alpha=1.0)),
    }
    _scatter(folder / "plane.webp", panels, rows=2)
    front = {
        "a mini-batch": torch.eye(b),
        "mixup: one partner each": pairs(1.0),
        "MultiMix: tuples of the whole mini-batch": tuples(MultiMix()),
    }
    _scatter(folder / "hull.png", front, rows=1)
    _scatter(folder / "multimix.webp", {name: front[name] for name in [*front][::2]}, rows=1)
    _scatter(
        folder / "manifold-mixup.webp",
        {"a mini-batch": torch.eye(b), "pairs, 40 steps": pairs(ManifoldMixup().alpha)},
        rows=1,
    )


def _scatter(path: Path, panels: Mapping[str, Tensor], *, rows: int) -> None:
    points, labels = plane()
    columns = len(panels) // rows
    figure, axes = plt.subplots(rows, columns, figsize=(3.7 * columns, 3.7 * rows))
    for axis, (title, weights) in zip(axes.flat, panels.items(), strict=True):
        places = weights @ points
        colours = (weights @ labels @ COLOURS).clamp(0, 1)
        axis.scatter(*points.T, s=60, facecolors="none", edgecolors="0.6", linewidths=0.8)
        axis.scatter(*places.T, c=colours.numpy(), s=5 if len(weights) > len(points) else 30)
        axis.set(title=title, xticks=[], yticks=[], aspect="equal", xlim=(-1.6, 1.6), ylim=(-1.3, 1.6))
        axis.title.set_fontsize(11 if rows == 1 else 9)
    keep(figure, path)


def main() -> None:
    """Draw all of them, into the folder given."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/gallery")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    plt.rcParams.update({"text.color": "0.5", "axes.edgecolor": "0.5", "axes.titlecolor": "0.5"})
    draw_planes(folder)
    draw_images(folder)


if __name__ == "__main__":
    main()
