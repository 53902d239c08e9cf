"""Batches of images with boxes are a function of seed, epoch and position."""

import numpy as np
import pytest
import torch
from PIL import Image

from data.boxes.folders import coco_content, coco_folder, picture
from multimix.lab.data.boxes import BoxBatches, Objects, load_boxes


@pytest.fixture
def boxes(tmp_path):
    """Twelve images; the box of each tells which it is."""
    numbers = range(1, 13)
    content = {
        **coco_content(),
        "images": [{"id": i, "file_name": f"{i}.png", "height": 30, "width": 40} for i in numbers],
        "annotations": [{"id": i, "image_id": i, "category_id": 5, "bbox": [i, 2, 3, 4]} for i in numbers],
    }
    coco_folder(tmp_path, content)
    for i in numbers:
        picture(tmp_path / "train" / f"{i}.png", i)
    return load_boxes(f"coco:{tmp_path}", "train")


def served(batches, epoch=0, start=0):
    return [(batch.images, [o.boxes for o in batch.objects]) for batch in batches.epoch(epoch, start)]


def same(first, second):
    assert len(first) == len(second)
    for (images, boxes), (others, other_boxes) in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(images, others, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(boxes, other_boxes, strict=True))


def test_in_order_images_and_boxes_are_as_they_are(boxes):
    batches = BoxBatches(boxes, batch_size=5)
    assert len(batches) == 3
    images = [image for part, _ in served(batches) for image in part]
    for image, photo in zip(images, boxes.photos, strict=True):
        pixels = np.asarray(Image.open(photo.path), dtype=np.float32).transpose(2, 0, 1) / 255
        assert torch.equal(image, torch.from_numpy(pixels))
    left = [float(b[0, 0]) for _, part in served(batches) for b in part]
    assert left == list(range(1, 13))


def test_a_mirrored_image_has_mirrored_boxes(boxes):
    """What is inside a box stays inside."""
    mirrored = 0
    for epoch in range(3):
        for images, parts in served(BoxBatches(boxes, batch_size=4, shuffle=True, flip=True, seed=1), epoch):
            for image, box in zip(images, parts, strict=True):
                left, top, right, bottom = box[0].int().tolist()
                flipped = right > 20
                number = 40 - right if flipped else left
                mirrored += flipped
                original = torch.from_numpy(np.array(Image.open(boxes.photos[number - 1].path))).permute(2, 0, 1)
                patch = original[:, 2:6, number : number + 3].float() / 255
                assert torch.equal(image[:, top:bottom, left:right], patch.flip(-1) if flipped else patch)
    assert 8 < mirrored < 28  # of 36


def test_mirrored_twice_is_as_before():
    objects = Objects(torch.tensor([[1.0, 2, 5, 9]]), torch.tensor([1]), torch.tensor([28.0]), torch.tensor([False]))
    assert objects.flipped(11).boxes.tolist() == [[6, 2, 10, 9]]
    assert torch.equal(objects.flipped(11).flipped(11).boxes, objects.boxes)


def test_an_epoch_can_be_had_again_from_any_batch_and_by_any_workers(boxes):
    whole = served(BoxBatches(boxes, batch_size=5, shuffle=True, flip=True, seed=3), 2)
    before = torch.manual_seed(99).get_state()
    again = BoxBatches(boxes, batch_size=5, shuffle=True, flip=True, seed=3)
    same(served(again, 2, start=1), whole[1:])
    same(served(BoxBatches(boxes, batch_size=5, shuffle=True, flip=True, seed=3, workers=1), 2), whole)
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(len(part) for part, _ in whole) == [2, 5, 5]


def test_order_and_mirroring_change_with_epoch_and_seed(boxes):
    def lefts(seed, epoch):
        return [
            float(b[0, 0])
            for _, p in served(BoxBatches(boxes, batch_size=12, shuffle=True, flip=True, seed=seed), epoch)
            for b in p
        ]

    assert len({tuple(lefts(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    plain = BoxBatches(boxes, batch_size=12, shuffle=True)
    assert sorted(float(b[0, 0]) for _, p in served(plain) for b in p) == list(range(1, 13))


def test_grey_images_for_networks_of_one_channel(boxes):
    images = served(BoxBatches(boxes, batch_size=2, channels=1))[0][0]
    assert images[0].shape == (1, 30, 40)


@pytest.mark.bad_input
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_none_or_of_another_size_is_named(boxes, tmp_path, workers):
    picture(tmp_path / "train" / "2.png", size=(31, 40))
    with pytest.raises(ValueError, match=r"2\.png is 40 x 31 px, its annotations say 40 x 30"):
        served(BoxBatches(boxes, batch_size=2, workers=workers))
    (tmp_path / "train" / "2.png").write_text("no image")
    with pytest.raises(ValueError, match=r"2\.png cannot be read as an image"):
        served(BoxBatches(boxes, batch_size=2, workers=workers))


@pytest.mark.bad_input
def test_a_backbone_of_other_channels_is_refused(boxes):
    with pytest.raises(ValueError, match="1 or 3 channels, but the backbone was trained on images of 4"):
        BoxBatches(boxes, batch_size=2, channels=4)
