"""Label maps and boxes are mixed as the images are: pixel by pixel, and object by object, in plain loops."""

import itertools

import pytest
import torch
from torch import nn

import multimix as mm
import toy
from multimix import methods
from multimix.methods import ERM, CutMix, FMix, Mixup, RegMixup, ResizeMix, SaliencyMix, ZetaMixup
from multimix.ops import BinaryCrossEntropy, Boxes, CrossEntropy, SquaredError
from toy import seeded

PASTE = {
    **{f"cutmix-{mode}": CutMix(mode=mode) for mode in ("batch", "pair", "elem")},
    "cutmix-never": CutMix(prob=0.0),
    "fmix": FMix(),
    "resizemix": ResizeMix(),
    "resizemix-bilinear": ResizeMix(interpolation="bilinear"),
    "resizemix-tiny": ResizeMix(scales=(0.0, 0.3)),
    "saliencymix": SaliencyMix(),
    "gridmix": methods.GridMix(),
    "erm": ERM(),
}
BLEND = {
    "mixup": Mixup(),
    "mixup-elem": Mixup(mode="elem"),
    "path": methods.MixupPath(),
    "zeta-mixup": ZetaMixup(),
    "regmixup": RegMixup(),
}
SHAPES = [(1, 6, 6), (5, 6, 7)]
pastes = pytest.mark.parametrize("name", PASTE)
blends = pytest.mark.parametrize("name", BLEND)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def drawn_of(method, b, height, width, seed):
    """The images of a mini-batch and what a method draws for them."""
    images, _ = toy.batch(b, 3, height, width)
    return images, method.draw(None, images, torch.zeros(b, dtype=torch.long), seeded(seed))


def origin(drawn, i, y, x, height, width):
    """Whether a pixel is pasted, and of which pixel of its image it is a copy."""
    given = getattr(drawn, "given", {})
    if "size" in given:
        (tall, broad), (top, left) = given["size"], given["corners"][:, i].tolist()
        inside = top <= y < top + tall and left <= x < left + broad
        return (True, (y - top) * height // tall, (x - left) * width // broad) if inside else (False, y, x)
    if "kept" in given:
        return bool(given["kept"][y, x] == 0), y, x
    if not given:
        return False, y, x
    (box,) = given.values()
    top, bottom, left, right = box.of(i) if isinstance(box, Boxes) else box
    return top <= y < bottom and left <= x < right, y, x


def partners_of(drawn, b):
    return getattr(drawn, "partners", torch.arange(b)).tolist()


@shapes
@pastes
def test_maps_are_pasted_pixel_by_pixel(name, shape):
    b, height, width = shape
    labels = torch.randint(200, shape, generator=seeded(9))
    for seed in range(3):
        images, drawn = drawn_of(PASTE[name], *shape, seed)
        sources, rows, columns = torch.empty(3, *shape, dtype=torch.long)
        for (i, j), y, x in itertools.product(enumerate(partners_of(drawn, b)), range(height), range(width)):
            pasted, rows[i, y, x], columns[i, y, x] = origin(drawn, i, y, x, height, width)
            sources[i, y, x] = j if pasted else i
        numbers = torch.randn(b, 3, height, width)
        for maps in (labels, labels.byte(), labels > 99, labels.unsqueeze(1), numbers, numbers.bfloat16()):
            mixed, ours = PASTE[name].mix(images, maps, generator=seeded(seed))
            truth = maps.reshape(b, -1, height, width)[sources, :, rows, columns].movedim(-1, 1)
            assert ours.dtype == maps.dtype
            assert torch.equal(ours, truth.reshape(maps.shape))
        if "bilinear" not in name:
            assert torch.equal(mixed, images[sources, :, rows, columns].movedim(-1, 1))


@shapes
@blends
@pytest.mark.parametrize("given", [{}, {"objective": CrossEntropy(ignore_index=255)}], ids=["all", "ignored"])
def test_maps_are_blended_pixel_by_pixel(name, shape, given):
    b, height, width = shape
    labels = torch.randint(4, (b, height, width), generator=seeded(9))
    if given:
        labels[labels == 3] = 255
    images, drawn = drawn_of(BLEND[name], *shape, 0)
    weights = drawn.mix_targets(torch.eye(b)).tolist()
    truth = torch.zeros(len(weights), 4, height, width)
    for i, (j, y, x) in itertools.product(range(len(weights)), itertools.product(range(b), *map(range, shape[1:]))):
        if labels[j, y, x] < 4:
            truth[i, labels[j, y, x], y, x] += weights[i][j]
    for maps in (labels, labels.byte(), labels.unsqueeze(1)):
        mixed, ours = BLEND[name].mix(images, maps, num_classes=4, generator=seeded(), **given)
        assert torch.equal(mixed, drawn.mix(images))
        torch.testing.assert_close(ours, truth)
    numbers = torch.randn(b, 2, height, width)
    for maps, objective in ((numbers, None), ((numbers > 0).long(), BinaryCrossEntropy()), (numbers, SquaredError())):
        ours = BLEND[name].mix(images, maps, objective=objective, generator=seeded())[1]
        torch.testing.assert_close(ours, torch.einsum("ij,jkhw->ikhw", torch.tensor(weights), maps.float()))


# ------------------------------------------------------------------------------------------------------- objects


def objects(b, height, width, *, masks=False):
    """Objects whose boxes end at quarters of pixels; one image has none."""
    generator, found = seeded(3), []
    for i in range(b):
        q = 4 if i != 1 else 0
        size = torch.tensor([width, height]).repeat(2) * 4
        corners = (torch.rand(q, 4, generator=generator) * size).floor()
        boxes = torch.cat(
            [torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])], 1
        )
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1).minimum(size[:2])
        each = {"boxes": boxes / 4, "labels": 10 * i + torch.arange(q), "image_id": i}
        each |= {"area": torch.arange(q) + 1.0, "iscrowd": torch.arange(q) % 2}
        if masks:
            each["masks"] = (torch.rand(q, height, width, generator=generator) < 0.6).byte()
        found.append(each)
    return found


def cells(box, there):
    """The quarters of pixels, in quarters, that lie in a box and where something is."""
    left, top, right, bottom = (4 * box).round().int().tolist()
    return [(y, x) for y in range(top, bottom) for x in range(left, right) if there[y // 4][x // 4]]


def left_of(each, k, visible):
    """What is left of an object where pixels (h, w) are visible: the share of its area, its box and its mask."""
    mask = each["masks"][k] if "masks" in each else torch.ones_like(visible)
    whole, seen = (cells(each["boxes"][k], there.tolist()) for there in (mask, mask * visible))
    if not seen:
        return 0, None, None
    rows, columns = zip(*seen, strict=True)
    around = torch.tensor([min(columns), min(rows), max(columns) + 1, max(rows) + 1]) / 4
    return len(seen) / len(whole), each["boxes"][k] if len(seen) == len(whole) else around, mask * visible


@shapes
@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
@pytest.mark.parametrize("name", ["cutmix-batch", "cutmix-elem", "cutmix-never", "fmix", "saliencymix"])
def test_objects_are_pasted_and_clipped(name, shape, masks):
    (_, height, width), given = shape, objects(*shape, masks=masks)
    for seed, least in ((0, 0.1), (1, 0.5), (2, 1.0)):
        images, drawn = drawn_of(PASTE[name], *shape, seed)
        ours = PASTE[name].mix(images, given, min_visible=least, generator=seeded(seed))[1]
        for i, j in enumerate(drawn.partners.tolist()):
            pixels = [[origin(drawn, i, y, x, height, width)[0] for x in range(width)] for y in range(height)]
            pasted = torch.tensor(pixels).byte() * (i != j)
            expected = []
            for source, visible in ((i, 1 - pasted), (j, pasted)):
                for k in range(len(given[source]["boxes"])):
                    share, box, mask = left_of(given[source], k, visible)
                    if share >= max(least, 1e-9):
                        expected.append(([*box, given[source]["labels"][k], share * (k + 1), k % 2, 1.0], mask))
            rows = [ours[i]["boxes"], *(ours[i][key].unsqueeze(1) for key in ("labels", "area", "iscrowd", "weights"))]
            torch.testing.assert_close(torch.cat(rows, 1), torch.tensor([row for row, _ in expected]).view(-1, 8))
            assert ours[i]["image_id"] == i
            if masks and expected:
                assert torch.equal(ours[i]["masks"], torch.stack([mask for _, mask in expected]))


@shapes
@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
def test_objects_are_made_smaller(shape, masks):
    """Those of the partner are whole, where they are pasted, unless the nearest pixels leave nothing of a mask."""
    (b, height, width), given = shape, objects(*shape, masks=masks)
    method = ResizeMix(scales=(0.5, 0.9))
    for seed in range(3):
        images, drawn = drawn_of(method, *shape, seed)
        ours = method.mix(images, given, min_visible=0.0, generator=seeded(seed))[1]
        (tall, broad), corners = drawn.given["size"], drawn.given["corners"]
        for i, j in enumerate(partners_of(drawn, b)):
            found, theirs = ours[i], given[j]
            top, left = corners[:, i].tolist()
            pasted = torch.zeros(height, width)
            pasted[top : top + tall, left : left + broad] = 1
            own = sum(left_of(given[i], k, 1 - pasted)[0] > 0 for k in range(len(given[i]["labels"])))
            if masks:
                small = theirs["masks"][:, torch.arange(tall) * height // tall][
                    :, :, torch.arange(broad) * width // broad
                ]
                for mask, label in zip(found["masks"][own:], found["labels"][own:], strict=True):
                    assert torch.equal(mask[pasted > 0], small[label % 10].flatten())
                    assert mask[pasted == 0].sum() == 0
                continue
            scale, shift = torch.tensor([broad / width, tall / height] * 2), torch.tensor([left, top] * 2)
            torch.testing.assert_close(found["boxes"][own:], theirs["boxes"] * scale + shift)
            torch.testing.assert_close(found["area"][own:], theirs["area"] * tall * broad / (height * width))
            assert torch.equal(found["labels"][own:], theirs["labels"])


@shapes
@blends
def test_objects_of_blended_images_have_weights(name, shape):
    b, given = shape[0], objects(*shape, masks=True)
    images, drawn = drawn_of(BLEND[name], *shape, 0)
    mixed, ours = BLEND[name].mix(images, given, generator=seeded())
    shares = drawn.mix_targets(torch.eye(b)).tolist()
    assert len(ours) == len(mixed) == len(shares)
    for i, found in enumerate(ours):
        own_first = sorted(range(b), key=lambda j, i=i: j != i)
        whose = [j for j in own_first for _ in given[j]["labels"] if shares[i][j] > 0]
        torch.testing.assert_close(found["weights"], torch.tensor([shares[i][j] for j in whose]))
        for key in ("boxes", "labels", "masks", "area", "iscrowd"):
            assert torch.equal(found[key], torch.cat([given[j][key] for j in own_first if shares[i][j] > 0]))
    again = BLEND[name].mix(images, ours[:b], generator=seeded())[1]
    total = [each["weights"].sum().item() for each in ours[:b]]
    for i, found in enumerate(again):  # what has weights already keeps them as factors
        assert found["weights"].sum().item() == pytest.approx(sum(w * t for w, t in zip(shares[i], total, strict=True)))


def test_an_image_that_is_its_own_partner_keeps_its_objects():
    (given,) = objects(1, 6, 6, masks=True)
    given["masks"][:] = 1
    images, _ = toy.batch(1, 3, 6, 6)
    for method in (Mixup(), CutMix(), FMix(), SaliencyMix(), ERM()):
        (ours,) = method.mix(images, [given], generator=seeded(1))[1]
        assert torch.equal(ours.pop("weights"), torch.ones(4))
        for key, value in ours.items():
            assert key == "image_id" or torch.equal(value, given[key])


def test_arguments_are_left_alone_and_several_targets_share_a_draw():
    images, labels = toy.batch(5, 3, 7, 8)
    maps, given = torch.randint(4, (5, 7, 8), generator=seeded(9)), objects(5, 7, 8, masks=True)
    before = [{key: torch.as_tensor(value).clone() for key, value in each.items()} for each in given]
    for method in (mm.Alternate((Mixup(), CutMix())), FMix(), RegMixup()):
        options = {"num_classes": 5, "objective": CrossEntropy()}
        mixed, found = method.mix(images, (labels, maps, given), generator=seeded(4), **options)
        for targets, ours in zip((labels, maps, given), found, strict=True):
            alone = method.mix(images, targets, generator=seeded(4), **options)
            torch.testing.assert_close((mixed, ours), alone, rtol=0, atol=0)
    for each, kept in zip(given, before, strict=True):
        assert all(torch.equal(torch.as_tensor(each[key]), value) for key, value in kept.items())


# ------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize(
    "method",
    [CutMix(), FMix(), ResizeMix(), mm.SelfDistilled(CutMix()), mm.Chain(CutMix(), ERM())],
    ids=lambda m: m.name,
)
def test_what_pastes_trains_on_label_maps(method):
    """As plain training does on images and maps that are mixed already."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 1))
    net = mm.adapt(model, encoder="0", head="1", dense=True, objective=CrossEntropy(ignore_index=255))
    images, maps = toy.batch(5, 3, 7, 8)[0], torch.randint(4, (5, 7, 8), generator=seeded(9))
    maps[0, :3] = 255
    losses, inner = (
        method(net, images, maps, generator=seeded(1)),
        getattr(method, "method", getattr(method, "first", method)),
    )
    mixed, pasted = inner.mix(images, maps, generator=seeded(1))
    truth = nn.functional.cross_entropy(model(mixed), pasted, ignore_index=255)
    torch.testing.assert_close(losses.terms["labels"], truth.detach())


# -------------------------------------------------------------------------------------------------------- refused

IMAGES, BOXES = toy.batch(2, 3, 6, 6)[0], torch.tensor([[0.0, 0.0, 1.0, 1.0]])
MAPS, GIVEN = torch.zeros(2, 6, 6).long(), [{"boxes": BOXES, "labels": torch.zeros(1)}] * 2


@pytest.mark.bad_input
@pytest.mark.parametrize("targets", [MAPS, torch.rand(2, 3, 6, 6), GIVEN], ids=["maps", "numbers", "objects"])
@pytest.mark.parametrize("method", [methods.PuzzleMix(), methods.StyleMix(), methods.AutoMix(), methods.CoMixup()])
def test_methods_that_can_do_neither_say_so(method, targets):
    name = type(method).__name__
    with pytest.raises(ValueError, match=f"an example for {name}, which mixes neither label maps nor boxes; Mixup and"):
        method.mix(IMAGES, targets, num_classes=3)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("method", "targets", "given", "error", "said"),
    [
        (
            CutMix(),
            MAPS[:, :5],
            {},
            ValueError,
            r"targets must be maps of the images' \(6, 6\) pixels, got \(2, 5, 6\)",
        ),
        (Mixup(), MAPS, {}, ValueError, "num_classes must be given for targets that are class indices"),
        (Mixup(), MAPS + 7, {"num_classes": 3}, ValueError, r"targets must lie in 0\.\.2 for 3 classes, got 7"),
        (
            Mixup(),
            MAPS[:, None].repeat(1, 2, 1, 1),
            {"num_classes": 3},
            ValueError,
            r"shape \(b, h, w\), got \(2, 2, 6",
        ),
        (CutMix(), MAPS[:1], {}, ValueError, "targets has 1 rows for a mini-batch of 2"),
        (CutMix(), GIVEN * 2, {}, ValueError, "targets has 4 rows for a mini-batch of 2"),
        (CutMix(), (), {}, TypeError, "targets must be a tensor, got tuple"),
        (CutMix(), GIVEN, {"min_visible": 1.5}, ValueError, r"min_visible must lie in \[0, 1\], got 1\.5"),
        (CutMix(), [{"labels": MAPS}] * 2, {}, ValueError, r"targets\[0\] must hold boxes, labels, got labels"),
        (CutMix(), [GIVEN[0], {"boxes": BOXES}], {}, ValueError, r"targets\[1\] must hold boxes, labels as those of"),
        (CutMix(), [{"boxes": BOXES[0]}] * 2, {}, ValueError, r"targets\[0\]\['boxes'\] must have shape \(q, 4\), got"),
        (
            CutMix(),
            [{"boxes": [[0, 0, 1, 1]]}] * 2,
            {},
            TypeError,
            r"targets\[0\]\['boxes'\] must be a tensor, got list",
        ),
        (
            CutMix(),
            [{"boxes": BOXES, "labels": torch.zeros(2)}] * 2,
            {},
            ValueError,
            r"targets\[0\]\['labels'\] must have shape \(1,\), got \(2,\)",
        ),
        (
            Mixup(),
            [{"boxes": BOXES, "masks": torch.zeros(1, 5, 6)}] * 2,
            {},
            ValueError,
            r"\['masks'\] must have shape \(1, 6, 6\), got \(1, 5, 6\)",
        ),
    ],
)
def test_targets_that_cannot_be_mixed_are_named(method, targets, given, error, said):
    with pytest.raises(error, match=said):
        method.mix(IMAGES, targets, **given)


@pytest.mark.bad_input
def test_inputs_that_are_no_images_are_named():
    for targets in (MAPS, GIVEN):
        with pytest.raises(ValueError, match=r"inputs must be images for label maps and boxes, got \(2, 6\)"):
            Mixup().mix(IMAGES[:, 0, 0], targets)
    net = mm.adapt(nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)), encoder="0", head="1", dense=True)
    with pytest.raises(ValueError, match=r"targets must be maps of the images' \(6, 6\) pixels"):
        CutMix()(net, IMAGES, MAPS[:, :5])
    for targets in (MAPS.flatten(1), torch.rand(2, 36, 4).softmax(-1)):
        with pytest.raises(ValueError, match=r"CutMix and others that paste take class indices \(b, h, w\)"):
            CutMix()(net, IMAGES, targets)
