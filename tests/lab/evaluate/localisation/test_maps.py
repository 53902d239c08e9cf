"""Maps, boxes around them and overlaps against loops, a search by hand and torchvision."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import box_iou

import toy
from multimix.lab.evaluate.localisation import box_above, overlap, score_maps
from multimix.lab.evaluate.localisation import grid_of


def bright(patch: int = 4) -> toy.Toy:
    """A network whose embedding of a patch is how bright it is in each channel: so is its attention."""
    return toy.Toy(nn.AvgPool2d(patch), nn.ReLU(), width=3, classes=2)


def largest_part(mask: np.ndarray) -> list[tuple[int, int]]:
    """Flood fill over eight neighbours; the first of the largest parts, from the top."""
    left = {(int(y), int(x)) for y, x in zip(*mask.nonzero(), strict=True)}
    parts = []
    for start in sorted(left):
        if start not in left:
            continue
        left.discard(start)
        part, todo = [], [start]
        while todo:
            y, x = todo.pop()
            part.append((y, x))
            around = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= around
            todo.extend(around)
        parts.append(part)
    return max(parts, key=len)


@pytest.mark.parametrize("density", [0.1, 0.3, 0.5, 0.9])
def test_the_box_is_that_of_a_flood_fill(density):
    for seed in range(10):
        scores = np.random.default_rng(seed).random((9, 13))
        part = largest_part(scores >= 1 - density)
        ys, xs = [y for y, _ in part], [x for _, x in part]
        assert box_above(scores, 1 - density).tolist() == [min(xs), min(ys), max(xs) + 1, max(ys) + 1]


def test_boxes_by_hand():
    scores = np.zeros((4, 5))
    scores[1, 1] = scores[2, 2] = 1.0  # touch at a corner
    scores[0, 4] = 0.7
    assert box_above(scores, 1.0).tolist() == [1, 1, 3, 3]
    assert box_above(scores, 0.7).tolist() == [1, 1, 3, 3]
    assert box_above(scores, 0.0).tolist() == [0, 0, 5, 4]
    assert box_above(scores, 1.1).tolist() == [0, 0, 0, 0]
    scores[2, 2] = 0  # of two parts of one pixel, the upper one
    assert box_above(scores, 0.7).tolist() == [4, 0, 5, 1]


def test_overlap_is_torchvisions():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        corners = torch.rand(4, 2, 2, generator=generator, dtype=torch.float64).sort(1).values.flatten(1) * 10
        wanted = box_iou(corners[:1], corners[1:]).max()
        assert overlap(corners[0].numpy(), corners[1:].numpy()) == pytest.approx(float(wanted))
    assert overlap(np.zeros(4), np.array([[1.0, 1, 2, 2]])) == 0
    assert overlap(np.array([0.0, 0, 2, 2]), np.array([[1.0, 0, 3, 2]])) == pytest.approx(1 / 3)


def test_maps_are_attention_scaled_to_the_image():
    """A bright block of 2 x 3 patches in the dark: at half height the map's edge is the block's."""
    images = torch.zeros(2, 3, 32, 32)
    images[0, :, 8:16, 4:16] = 0.7
    images[1, :, 20:28, 24:32] = 0.2
    maps = score_maps(bright(), images, torch.zeros(2, dtype=torch.int64))
    assert maps.shape == (2, 32, 32)
    assert maps.amin((1, 2)).tolist() == [0, 0]
    assert maps.amax((1, 2)).tolist() == pytest.approx([1, 1])
    assert box_above(maps[0].numpy(), 0.5).tolist() == [4, 8, 16, 16]
    assert box_above(maps[1].numpy(), 0.5).tolist() == [24, 20, 32, 28]


def test_a_flat_map_is_the_whole_image():
    labels = torch.zeros(1, dtype=torch.int64)
    for image in (torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.1)):
        assert (score_maps(bright(), image, labels) == 1).all()


def test_the_class_query_asks_for_the_true_class():
    """Class 0 looks for red, class 1 for blue; red lies to the left and blue to the right."""
    network = bright()
    with torch.no_grad():
        network.classifier.weight.copy_(torch.tensor([[1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]]))
    image = torch.zeros(1, 3, 16, 16)
    image[:, 0, :, :4] = 1
    image[:, 2, :, 12:] = 1
    for label, column in ((0, 0), (1, 15)):
        maps = score_maps(network, image, torch.tensor([label]), "cam")
        assert maps[0].amax(0).argmax().item() in range(column - 3, column + 4)
        assert maps[0, :, column].tolist() == [1.0] * 16
    # The pooled embedding is red and blue alike.
    assert score_maps(network, image, torch.tensor([0]))[0, 0, [0, 15]].tolist() == [1, 1]


class Tokens(toy.Toy):
    """A transformer's layout: two tokens that see everything come before those of the patches."""

    def embed(self, inputs):
        features = super().embed(inputs)
        return torch.cat([features.mean(1, keepdim=True) * torch.tensor([[[9.0], [-9.0]]]), features], 1)


def test_tokens_before_the_map_are_left_out():
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = bright()
    tokens = Tokens(nn.AvgPool2d(4), nn.ReLU(), width=3, classes=2)
    labels = torch.tensor([0, 1])
    torch.testing.assert_close(score_maps(tokens, image, labels), score_maps(plain, image, labels))


@pytest.mark.parametrize(
    ("positions", "height", "width", "grid"),
    [
        (16, 32, 32, (0, 4, 4)),
        (197, 224, 224, (1, 14, 14)),
        (201, 224, 224, (5, 14, 14)),
        (49, 224, 224, (0, 7, 7)),
        (8, 16, 32, (0, 2, 4)),
        (9, 16, 32, (1, 2, 4)),
    ],
)
def test_positions_are_a_map_of_the_images_proportions(positions, height, width, grid):
    assert grid_of(positions, height, width) == grid


@pytest.mark.bad_input
def test_networks_without_a_map_are_refused():
    with pytest.raises(ValueError, match="embeds images of 8x8 at 1, which is no map"):
        score_maps(bright(8), torch.rand(1, 3, 8, 8), torch.tensor([0]))
    bent = toy.Toy(nn.AvgPool2d(4), width=3, classes=2, affine=False)
    with pytest.raises(ValueError, match="query=cam needs a network with an affine head"):
        score_maps(bent, torch.rand(1, 3, 8, 8), torch.tensor([0]), "cam")
