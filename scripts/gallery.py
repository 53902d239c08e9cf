"""Draw docs/gallery: what each method makes of the same two images, and of embeddings in the plane.

The images are the two that come with scikit-learn. What needs a network gets a small one, trained for a minute to tell
crops of one from crops of the other.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_image
from torch import Generator, Tensor, nn

from multimix import ops
from multimix.methods import ERM, METHODS, MixesInputs, MultiMix, ZetaMixup
from multimix.models import preact_resnet18
from multimix.protocols import Method, Stateful

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
}
"""Lambdas near a half show more; what does nothing on half of the steps shows nothing there."""


def pictures() -> Tensor:
    """Return the two images, whole, (2, 3, side, side) in [0, 1]."""
    images = [torch.from_numpy(load_sample_image(f"{name}.jpg").copy()) for name in NAMES]
    squares = [image[:, 106:533].permute(2, 0, 1).float() / 255 for image in images]
    return torch.stack([nn.functional.interpolate(s[None], (SIDE, SIDE), mode="area")[0] for s in squares])


def crops(images: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return random crops at their own size again, normalised, and which image each is of."""
    labels = torch.randint(2, (count,), generator=generator)
    found = []
    for label in labels:
        size = int(torch.randint(SIDE // 2, SIDE + 1, (), generator=generator))
        top, left = (int(torch.randint(SIDE - size + 1, (), generator=generator)) for _ in range(2))
        piece = images[label, :, top : top + size, left : left + size]
        found.append(nn.functional.interpolate(piece[None], (SIDE, SIDE), mode="bilinear")[0])
    return (torch.stack(found) - 0.5) / 0.25, labels


def trained(images: Tensor, method: Method, steps: int) -> nn.Module:
    """Return a small network, trained with a method, which learns too if it can."""
    torch.manual_seed(0)
    network, generator = preact_resnet18(num_classes=2, width=8), Generator().manual_seed(0)
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


def mixed(method: MixesInputs, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return, of a few draws, the example whose label is nearest to half of each image, and its probabilities."""
    # Several times each, since some methods choose among many, or mix a part of the mini-batch only.
    inputs, targets = ((images - 0.5) / 0.25).repeat(3, 1, 1, 1), torch.tensor([0, 1]).repeat(3)
    best: tuple[Tensor, Tensor] | None = None
    for seed in range(DRAWS):
        made, labels = method.mix(
            inputs, targets, num_classes=2, network=network, generator=Generator().manual_seed(seed)
        )
        for picture, label in zip(made, labels, strict=True):
            if best is None or (label[0] - 0.5).abs() < (best[1][0] - 0.5).abs():
                best = picture, label
    assert best is not None
    return (best[0] * 0.25 + 0.5).clamp(0, 1), best[1]


def draw_images(path: Path) -> None:
    """Draw the two images and what every method that mixes inputs makes of them."""
    images = pictures()
    plain = trained(images, ERM(), STEPS)
    cells = [(name, image, "") for name, image in zip(NAMES, images, strict=True)]
    for cls in METHODS:
        if cls is ERM or not getattr(cls, "mixes_inputs", False):
            continue
        method = cls(**SETTINGS.get(cls.name, {}))
        network = trained(images, method, STEPS) if isinstance(method, Stateful) else plain
        with torch.no_grad():
            picture, label = mixed(method, network, images)
        cells.append((cls.name, picture, f"{label[0]:.2f} china, {label[1]:.2f} flower"))
        print(cls.name, flush=True)
    columns = 4
    rows = -(-len(cells) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.2 * columns, 2.5 * rows))
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, picture, label) in zip(axes.flat, cells, strict=False):
        axis.imshow(picture.permute(1, 2, 0).detach().numpy())
        axis.set_title(f"{name}\n{label}", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def plane() -> tuple[Tensor, Tensor]:
    """Return 24 embeddings in the plane, in three classes, and their class probabilities."""
    generator = Generator().manual_seed(3)
    centres = torch.tensor([[0.0, 1.0], [-0.9, -0.6], [0.9, -0.6]])
    labels = torch.arange(3).repeat_interleave(8)
    return centres[labels] + 0.16 * torch.randn(24, 2, generator=generator), nn.functional.one_hot(labels, 3).float()


def draw_planes(folder: Path) -> None:
    """Draw where the examples of a step lie, by their mixed labels: all panels, and three for the README."""
    points, labels = plane()
    generator = Generator().manual_seed(0)
    b = len(points)
    lam = ops.beta(40 * b, 1.0, generator=generator)
    pairs = torch.zeros(40 * b, b)
    pairs[torch.arange(40 * b), torch.arange(b).repeat(40)] += lam
    pairs[torch.arange(40 * b), torch.randint(b, (40 * b,), generator=generator)] += 1 - lam
    like = torch.zeros(1)

    def tuples(method: MultiMix) -> Tensor:
        return method.draw_weights(b, like=like, generator=generator)

    zeta = [ZetaMixup().draw(None, points, labels.argmax(1), generator).weights for _ in range(40)]
    panels = {
        "the mini-batch: 24 examples": torch.eye(b),
        "pairs (mixup, 40 steps: 960 examples)": pairs,
        "zeta-mixup (40 steps: 960 examples)": torch.cat(zeta),
        "MultiMix, 1000 tuples of one step, effective 2": tuples(MultiMix()),
        "MultiMix, alpha in (0.5, 2) as published": tuples(MultiMix(alpha=(0.5, 2.0))),
        "MultiMix, tuples of 3 examples, alpha 1": tuples(MultiMix(tuple_length=3, alpha=1.0)),
    }
    _scatter(folder / "plane.png", panels, rows=2)
    front = {
        "a mini-batch": torch.eye(b),
        "mixup: one partner each": pairs,
        "MultiMix: tuples of the whole mini-batch": tuples(MultiMix()),
    }
    _scatter(folder / "hull.png", front, rows=1)


def _scatter(path: Path, panels: Mapping[str, Tensor], *, rows: int) -> None:
    points, labels = plane()
    figure, axes = plt.subplots(rows, 3, figsize=(11, 3.7 * rows))
    for axis, (title, weights) in zip(axes.flat, panels.items(), strict=True):
        places = weights @ points
        colours = (weights @ labels @ COLOURS).clamp(0, 1)
        axis.scatter(*points.T, s=60, facecolors="none", edgecolors="0.6", linewidths=0.8)
        axis.scatter(*places.T, c=colours.numpy(), s=5 if len(weights) > len(points) else 30)
        axis.set(title=title, xticks=[], yticks=[], aspect="equal", xlim=(-1.6, 1.6), ylim=(-1.3, 1.6))
        axis.title.set_fontsize(9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Draw all of them, into the folder given."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/gallery")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    draw_planes(folder)
    draw_images(folder / "images.png")


if __name__ == "__main__":
    main()
