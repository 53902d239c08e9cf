"""Images and Files: what they hold, and what they refuse."""

import pytest
import torch

from multimix.lab.data import Files, Images

CLASSES = ("a", "b", "c")


def pictures(size: int = 5) -> torch.Tensor:
    return torch.arange(size * 2 * 3 * 4, dtype=torch.int64).remainder(256).to(torch.uint8).view(size, 2, 3, 4)


def test_images_know_their_size_shape_and_classes() -> None:
    images = Images(pictures(), torch.tensor([0, 1, 2, 0, 1]), CLASSES)
    assert (len(images), images.shape, images.classes) == (5, (2, 3, 4), CLASSES)


def test_images_become_contiguous() -> None:
    turned = pictures().permute(0, 1, 3, 2)
    images = Images(turned, torch.zeros(5, dtype=torch.int64), CLASSES)
    assert images.images.is_contiguous()
    assert torch.equal(images.images, turned)


@pytest.mark.parametrize("indices", [[3, 0, 3], torch.tensor([3, 0, 3])])
def test_a_subset_keeps_the_order_asked_for_and_is_a_copy(indices: list[int] | torch.Tensor) -> None:
    images = Images(pictures(), torch.tensor([0, 1, 2, 0, 1]), CLASSES)
    part = images.subset(indices)
    assert torch.equal(part.images, torch.stack([pictures()[3], pictures()[0], pictures()[3]]))
    assert part.labels.tolist() == [0, 0, 0]
    part.images.zero_()
    assert torch.equal(images.images, pictures())


def test_files_subset_keeps_paths_and_labels_together() -> None:
    files = Files(("p0", "p1", "p2"), torch.tensor([2, 0, 1]), CLASSES, 32)
    part = files.subset([2, 0])
    assert (part.paths, part.labels.tolist(), part.shape, len(part)) == (("p2", "p0"), [1, 2], (3, 32, 32), 2)


def test_to_returns_itself_where_it_is_there_already() -> None:
    images = Images(pictures(), torch.zeros(5, dtype=torch.int64), CLASSES)
    assert images.to("cpu") is images


def test_to_moves_images_and_labels(device: torch.device) -> None:
    images = Images(pictures(), torch.zeros(5, dtype=torch.int64), CLASSES).to(device)
    assert (images.images.device.type, images.labels.device.type) == (device.type, device.type)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            torch.zeros(5, 1, 2, 2),
            torch.zeros(5, dtype=torch.int64),
            r"images must .* uint8 .*float32 of \(5, 1, 2, 2\)",
        ),
        (torch.full((5, 1, 2, 2), torch.nan), torch.zeros(5, dtype=torch.int64), "images must .* uint8"),
        (torch.zeros(5, 2, 2, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64), r"got torch.uint8 of \(5, 2, 2\)"),
        (torch.zeros(0, 1, 2, 2, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), "non-empty"),
        (pictures(), torch.zeros(4, dtype=torch.int64), "5 images but 4 labels"),
        (pictures(), torch.tensor([0, 1, 2, 3, 0]), r"labels must lie in 0\.\.2 for 3 classes, got 0\.\.3"),
        (pictures(), torch.tensor([0, -1, 2, 1, 0]), r"got -1\.\.2"),
        (pictures(), torch.zeros(5), "labels must be an int64 tensor .*float32"),
        (pictures(), torch.zeros(5, 1, dtype=torch.int64), r"labels must .* of \(5, 1\)"),
    ],
)
def test_images_refuse(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Images(images, labels, CLASSES)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("paths", "labels", "size", "message"),
    [
        ((), torch.zeros(0, dtype=torch.int64), 8, "at least one image file"),
        (("p",), torch.tensor([3]), 8, r"0\.\.2 for 3 classes, got 3\.\.3"),
        (("p", "q"), torch.tensor([0]), 8, "2 images but 1 labels"),
        (("p",), torch.tensor([0]), 0, "image_size must be at least 1, got 0"),
    ],
)
def test_files_refuse(paths: tuple[str, ...], labels: torch.Tensor, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Files(paths, labels, CLASSES, size)
