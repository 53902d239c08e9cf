"""Random images with objects, and detections that are near, beside, doubled or of another class."""

import torch

from multimix.lab.data.boxes import Objects
from multimix.lab.evaluate.detection import Detections

CLASSES = ("a", "b", "c", "d")


def objects(boxes, labels, ignored=None, areas=None) -> Objects:
    """Objects from lists."""
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    sizes = (corners[:, 2:] - corners[:, :2]).prod(1) if areas is None else torch.tensor(areas)
    flags = torch.zeros(len(corners)) if ignored is None else torch.tensor(ignored)
    return Objects(corners, torch.tensor(labels, dtype=torch.int64), sizes, flags.bool())


def detections(boxes, labels, scores) -> Detections:
    """Detections from lists."""
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Detections(corners, torch.tensor(scores, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64))


def scenes(
    seed: int, *, images: int = 12, classes: int = 3, ignored: float = 0.2, ties: bool = False
) -> tuple[list[Detections], list[Objects]]:
    """Random detections and objects of 200 x 200 images, some of them without either."""
    generator = torch.Generator().manual_seed(seed)
    found, truths = [], []
    for _ in range(images):
        truth = _truth(generator, classes, ignored)
        found.append(_found(generator, truth, classes, ties=ties))
        truths.append(truth)
    return found, truths


def _truth(generator: torch.Generator, classes: int, ignored: float) -> Objects:
    count = int(torch.randint(0, 7, (), generator=generator))
    corner = torch.rand(count, 2, generator=generator) * 120
    size = 5 + torch.rand(count, 2, generator=generator) ** 2 * 75
    labels = torch.randint(1, classes + 1, (count,), generator=generator)
    flags = torch.rand(count, generator=generator) < ignored
    return Objects(torch.cat([corner, corner + size], 1), labels, size.prod(1), flags)


def _found(generator: torch.Generator, truth: Objects, classes: int, *, ties: bool) -> Detections:
    copies = truth.boxes.repeat(2, 1)
    size = (copies[:, 2:] - copies[:, :2]).repeat(1, 2)
    near = copies + size * 0.07 * torch.randn(copies.shape, generator=generator)
    corner = torch.rand(3, 2, generator=generator) * 120
    stray = torch.cat([corner, corner + 40], 1)
    boxes = torch.cat([near, stray])
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = torch.cat([truth.labels.repeat(2), torch.randint(1, classes + 1, (3,), generator=generator)])
    other = torch.rand(len(labels), generator=generator) < 0.15
    labels[other] = torch.randint(1, classes + 1, (int(other.sum()),), generator=generator)
    kept = torch.rand(len(labels), generator=generator) < 0.8
    scores = torch.rand(len(labels), generator=generator)
    scores = (scores * 4).round() / 4 if ties else scores
    return Detections(boxes[kept], scores[kept], labels[kept])
