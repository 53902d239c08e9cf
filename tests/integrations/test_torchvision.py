"""Masks and boxes in torchvision's transforms: its types, its formats, and the mini-batches of its detectors."""

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import convert_bounding_box_format

import multimix as mm
from multimix.integrations.torchvision import MixCollate, MixTransform
from toy import seeded

IMAGES = torch.rand(5, 3, 6, 8, generator=seeded())
MASKS = torch.randint(4, (5, 6, 8), generator=seeded(1))
LABELS = torch.arange(5)
CORNERS = [torch.tensor([[0.0, 1.0, 4.0, 5.0], [2.5, 0.0, 8.0, 6.0]])[: i % 3] for i in range(5)]


def objects(form="XYXY", kind=list, dtype=torch.float32):
    found = []
    for i, corners in enumerate(CORNERS):
        boxes = convert_bounding_box_format(corners, old_format="XYXY", new_format=form).to(dtype)
        there = (torch.rand(len(boxes), 6, 8, generator=seeded(i)) < 0.7).byte()
        boxes = tv_tensors.BoundingBoxes(boxes.view(-1, 4), format=form, canvas_size=(6, 8))
        found.append({"boxes": boxes, "labels": torch.full((len(boxes),), i), "masks": tv_tensors.Mask(there), "id": i})
    return kind(found)


def plain(given):
    return [{key: value.as_subclass(Tensor) if key != "id" else value for key, value in each.items()} for each in given]


def own(method, *targets, seed=2, **options):
    """What the method itself makes of the images and of targets, one or several."""
    return method.mix(IMAGES, targets[0] if len(targets) == 1 else targets, generator=seeded(seed), **options)


@pytest.mark.parametrize("method", [mm.CutMix(), mm.methods.ResizeMix(), mm.Mixup()], ids=lambda m: m.name)
@pytest.mark.parametrize("masks", [MASKS, MASKS.unsqueeze(1), MASKS.byte()], ids=["maps", "channel", "bytes"])
def test_masks_are_mixed_beside_images_and_labels(method, masks):
    image, mask = tv_tensors.Image(IMAGES), tv_tensors.Mask(masks)
    mixed, (rows, maps) = own(method, LABELS, masks, num_classes=5)
    wanted = {id(image): mixed, id(mask): maps, id(LABELS): rows}
    for given in (
        (image, mask),
        {"image": image, "mask": mask},
        (image, {"labels": LABELS, "mask": mask, "name": "a"}),
        [{"mask": mask, "image": image}, LABELS],
    ):
        found = MixTransform(method, num_classes=5, seed=2)(given)
        (before, structure), (after, same) = tree_flatten(given), tree_flatten(found)
        assert same == structure
        for old, new in zip(before, after, strict=True):
            assert type(old) is type(new)
            assert new is old if id(old) not in wanted else torch.equal(new.as_subclass(Tensor), wanted[id(old)])
    ours = MixTransform(method, num_classes=5, seed=2)(IMAGES, masks)  # as a loader collates them
    assert all(torch.equal(*pair) for pair in zip(ours, (mixed, maps), strict=True))


@pytest.mark.parametrize("method", [mm.CutMix(), mm.methods.ResizeMix(), mm.Mixup(), mm.methods.RegMixup()])
@pytest.mark.parametrize("form", ["XYXY", "XYWH", "CXCYWH"])
def test_boxes_keep_their_format(method, form):
    given = objects(form)
    _, wanted = own(method, plain(objects()), min_visible=0.3)
    mixed, found = MixTransform(method, seed=2, min_visible=0.3)(tv_tensors.Image(IMAGES), given)
    assert len(mixed) == len(found) == len(wanted)
    for i, (ours, truth) in enumerate(zip(found, wanted, strict=True)):
        boxes = ours["boxes"]
        assert (type(boxes), boxes.format.name, boxes.canvas_size) == (tv_tensors.BoundingBoxes, form, (6, 8))
        corners = convert_bounding_box_format(boxes.as_subclass(Tensor), old_format=form, new_format="XYXY")
        torch.testing.assert_close(corners, truth["boxes"])
        assert type(ours["masks"]) is tv_tensors.Mask
        assert torch.equal(ours["masks"].as_subclass(Tensor), truth["masks"])
        assert torch.equal(ours["labels"], truth["labels"])
        assert torch.equal(ours["weights"], truth["weights"])
        assert ours["id"] == i % 5


def test_mini_batches_of_detectors():
    """Images in a list or a tuple, as bytes; a loader's pairs; boxes in integers; several kinds of targets at once."""
    method, collate = mm.CutMix(), MixCollate(mm.CutMix(), seed=2)
    mixed, wanted = own(method, plain(objects()))
    (_, (rows, maps, several)), whole = own(method, LABELS, MASKS, plain(objects()), num_classes=5), objects(kind=tuple)
    images, found = MixTransform(method, seed=2)(tuple(tv_tensors.Image(image) for image in IMAGES), whole)
    assert (type(images), type(images[0]), type(found)) == (tuple, tv_tensors.Image, tuple)
    assert torch.equal(torch.stack(images), mixed)
    images, pairs = collate(list(zip(IMAGES, whole, strict=True)))
    assert torch.equal(images, mixed)
    given = {"labels": LABELS, "mask": tv_tensors.Mask(MASKS), "objects": whole}
    _, all_kinds = MixTransform(method, num_classes=5, seed=2)(tv_tensors.Image(IMAGES), given)
    assert torch.equal(all_kinds["labels"], rows)
    assert torch.equal(all_kinds["mask"], maps)
    for ours in (found, pairs, all_kinds["objects"]):
        for each, truth, again in zip(ours, wanted, several, strict=True):
            assert torch.equal(each["boxes"], truth["boxes"])
            assert torch.equal(again["boxes"], truth["boxes"])
    bytes_, boxes = (255 * IMAGES).byte(), objects(dtype=torch.int64)
    images, found = MixTransform(method, seed=2)(list(bytes_), boxes)
    assert (type(images), images[0].dtype, found[2]["boxes"].dtype) == (list, torch.uint8, torch.float32)
    assert torch.equal(torch.stack(images), method.mix(bytes_.float(), boxes, generator=seeded(2))[0].byte())


def test_goes_on_with_torchvisions_transforms():
    given = tv_tensors.Image(IMAGES), objects()
    images, found = MixTransform(mm.CutMix(), seed=2)(*given)
    flipped, also = v2.Compose([MixTransform(mm.CutMix(), seed=2), v2.RandomHorizontalFlip(1.0)])(*given)
    assert torch.equal(flipped, images.flip(-1))
    for each, other in zip(found, also, strict=True):
        assert torch.equal(
            other["boxes"][:, [2, 1, 0, 3]], torch.tensor([8, 0, 8, 0]) - each["boxes"] * torch.tensor([1, -1, 1, -1])
        )
        assert torch.equal(other["masks"], each["masks"].flip(-1))


@pytest.mark.bad_input
def test_what_cannot_be_mixed_is_named():
    image, mix = tv_tensors.Image(IMAGES), MixTransform(mm.CutMix(), num_classes=5)
    sloping = []
    if hasattr(tv_tensors, "is_rotated_bounding_format"):  # from torchvision 0.23 on
        boxes = tv_tensors.BoundingBoxes(torch.rand(1, 5), format="XYWHR", canvas_size=(6, 8))
        sloping = [((image, [{"boxes": boxes}] * 5), r"targets\[0\]\['boxes'\] must be corners, XYXY, got XYWHR")]
    for given, said in (
        ((image, tv_tensors.Mask(MASKS[:, :5])), r"masks must have the images' \(6, 8\) pixels, got \(5, 5, 8\)"),
        *sloping,
        (
            (tv_tensors.Image(IMAGES[..., :7]), objects()),
            r"boxes must have the canvas of the images, \(6, 7\), got \(6, 8",
        ),
        (([*IMAGES[:4], IMAGES[4, :, :3]], objects()), r"images of one size to be mixed, got \(3, 3, 8\), \(3, 6, 8\)"),
        (
            (image, {"labels": LABELS, "boxes": objects()[0]["boxes"]}),
            "got BoundingBoxes; boxes are mixed in a list of",
        ),
        ((image, objects()[:4]), "targets has 4 rows for a mini-batch of 5"),
    ):
        with pytest.raises(ValueError, match=said):
            mix(*given)
    with pytest.raises(ValueError, match=r"min_visible must lie in \[0, 1\], got 2"):
        MixTransform(mm.CutMix(), min_visible=2)
    mix = MixTransform("puzzlemix", network=torch.nn.Identity())
    with pytest.raises(ValueError, match="PuzzleMix, which mixes neither label maps nor boxes"):
        mix(image, objects())
