"""Every kind of set gives images of the run's shape, the same whatever the batches, and says what it cannot read."""

import numpy as np
import pytest
import torch
from PIL import Image

from evaluate.made import normalised, source
from multimix.lab.data import Batches, Files, Images
from multimix.lab.evaluate.ood.sets import Fitting, Outside, labels_of, open_set

SHAPE = (3, 8, 8)


def run(shape=SHAPE, *, test=None, **options):
    test = Images(torch.zeros(1, *shape, dtype=torch.uint8), torch.zeros(1).long(), ("a",)) if test is None else test
    return source(test, **({"root": "nowhere"} | options))


def opened(name, shape=SHAPE, *, limit=20, seed=0, **options):
    return open_set(name, run(shape, **options), limit=limit, seed=seed)


def every(outside, size=7):
    """All images of a set, in batches."""
    return torch.cat([outside.make(chunk.tolist()) for chunk in torch.arange(outside.size).split(size)])


def in_memory(images, shape=SHAPE, *, crop, seed=0):
    """A set of images in memory."""
    return Outside(run(shape), len(images), Fitting(images, shape, crop, seed))


LEFT_OUT = "ignore:ood. .* left out"


@pytest.fixture
def tree(tmp_path):
    """Images of several sizes and kinds at several depths, and things that are no images or hidden."""
    generator = np.random.default_rng(0)
    sizes = {"a.png": (8, 8), "b/c/d.PNG": (20, 30), "b/e.bmp": (9, 40), "f.png": (6, 5)}
    for name, (height, width) in (sizes | {".hidden.png": (8, 8), ".h/i.png": (8, 8)}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("no image")
    return tmp_path


def test_noise_has_the_distribution_it_is_said_to_have():
    uniform = every(opened("uniform-noise", limit=300)).long()
    gaussian = every(opened("gaussian-noise", limit=300)).double()
    assert torch.bincount(uniform.flatten(), minlength=256).double().std() / (uniform.numel() / 256) < 0.1
    for value in (0, 255):  # N(1/2, 1) clipped: P(0) = P(1) = Phi(-1/2)
        assert float((gaussian == value).double().mean()) == pytest.approx(0.3085, abs=0.01)
    assert float(gaussian.mean()) == pytest.approx(127.5, abs=2)


@pytest.mark.parametrize("name", ["gaussian-noise", "uniform-noise"])
def test_noise_belongs_to_an_image_and_a_seed(name):
    noise = opened(name)
    assert (every(noise).shape, every(noise).dtype) == ((20, *SHAPE), torch.uint8)
    assert torch.equal(every(noise, 1), every(noise, 20))
    assert torch.equal(every(opened(name, limit=9)), every(noise)[:9])
    assert not torch.equal(every(opened(name, seed=1)), every(noise))
    assert opened(name, (5, 3, 4)).make([0]).shape == (1, 5, 3, 4)


def test_digits_become_colour_images_of_any_size():
    small = every(opened("digits"))
    assert small.shape == (20, *SHAPE)
    assert torch.equal(small[:, 0], small[:, 2])
    assert every(opened("digits", (3, 32, 20))).shape == (20, 3, 32, 20)
    assert opened("digits", limit=10_000).size == 359  # its test images


def test_a_part_of_a_larger_set_is_taken_by_chance_and_in_order():
    whole, part = every(opened("digits", limit=10_000)), every(opened("digits"))
    places = [(whole == image).flatten(1).all(1).nonzero()[0].item() for image in part]
    assert places == sorted(places) != list(range(20))
    assert not torch.equal(every(opened("digits", seed=1)), part)


def test_a_folder_gives_every_image_below_it(tree):
    (tree / "b" / "loop").symlink_to(tree)
    (tree / "g.png").symlink_to(tree / "f.png")
    said = r"4 images; left out, hidden: 2: .*above it: 1: b/loop; .*by its name: 1: b/notes.txt; .*already: 1: g.png"
    with pytest.warns(UserWarning, match=said):
        found = every(opened(f"folder:{tree}"), 3)
    assert found.shape == (4, *SHAPE)
    assert torch.equal(found[0], torch.from_numpy(np.array(Image.open(tree / "a.png"))).permute(2, 0, 1))
    with pytest.warns(UserWarning, match="ood: "):
        grey = every(opened(f"folder:{tree}", (1, 8, 8)))
    assert grey.shape == (4, 1, 8, 8)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert (grey[0] - (found[0] * weights).sum(0)).abs().max() <= 1


def test_tiny_imagenet_is_read_in_both_of_its_layouts(tree):
    for part in ("val/images", "val/n1"):
        root = tree / part.replace("/", "-")
        (root / "tiny-imagenet-200" / part).mkdir(parents=True)
        Image.open(tree / "b/c/d.PNG").save(root / "tiny-imagenet-200" / part / "x.png")
        scaled, cut = (every(opened(f"tiny-imagenet-{how}", root=root)) for how in ("resize", "crop"))
        assert torch.equal(scaled, every(opened(f"folder:{tree / 'b' / 'c'}")))
        assert corner(torch.from_numpy(np.array(Image.open(tree / "b/c/d.PNG"))).permute(2, 0, 1), cut[0])


def test_a_run_on_large_files_reads_others_as_its_own(tree):
    own = Files((str(tree / "b/c/d.PNG"),), torch.zeros(1).long(), ("a",), 8)
    ((wanted, _),) = Batches(own, batch_size=1, mean=(0.0,) * 3, std=(1.0,) * 3, shuffle=False)
    found = opened(f"folder:{tree / 'b' / 'c'}", test=own).make([0])
    torch.testing.assert_close(found / 255, wanted)
    assert not torch.equal(opened(f"folder:{tree / 'b' / 'c'}").make([0]), found)


def corner(image, part):
    """Where a part of 8 x 8 pixels was cut out; () if nowhere."""
    windows = image.unfold(1, 8, 1).unfold(2, 8, 1)
    return tuple((windows == part[:, None, None]).flatten(3).all(3).all(0).nonzero().flatten().tolist())


def test_a_crop_is_a_part_of_the_unscaled_image():
    images = torch.arange(5 * 3 * 12 * 10).remainder(251).byte().view(5, 3, 12, 10)
    cut = in_memory(images, crop=True, seed=3)
    corners = set(map(corner, images, every(cut, 2)))
    assert () not in corners
    assert len(corners) > 1
    assert torch.equal(every(cut, 5), every(cut, 2))


def test_each_file_is_cut_at_a_place_of_its_own(tmp_path):
    pixels = np.arange(20 * 20 * 3).reshape(20, 20, 3) % 251
    for number in range(6):
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
    assert len(every(opened(f"crop:folder:{tmp_path}")).unique(dim=0)) > 1


def test_crops_reach_every_corner():
    images = torch.arange(9 * 9).byte().view(1, 1, 9, 9).repeat(200, 1, 1, 1)
    found = every(in_memory(images, (1, 8, 8), crop=True))
    assert set(found[:, 0, 0, 0].tolist()) == {0, 1, 9, 10}
    assert every(in_memory(images[:, :, :6], crop=True)).shape == (200, *SHAPE)  # too small to cut from: scaled


def test_an_image_is_scaled_to_cover_and_its_centre_kept():
    images = torch.zeros(1, 3, 16, 48, dtype=torch.uint8)
    images[..., 16:32] = 200
    assert (every(in_memory(images, crop=False)) >= 180).float().mean() > 0.7
    wide = torch.full((1, 1, 5, 11), 7, dtype=torch.uint8)
    assert every(in_memory(wide, (3, 13, 7), crop=False)).shape == (1, 3, 13, 7)


@pytest.mark.parametrize(("key", "form"), [("test_images", (6, 8, 8)), ("images", (6, 8, 8, 1)), ("x", (6, 10, 12, 3))])
def test_an_archive_needs_no_labels(tmp_path, key, form):
    pixels = np.random.default_rng(0).random(form)
    others = {} if key == "x" else {"train_images": pixels[:0], "notes": np.zeros(3)}
    np.savez(tmp_path / "set.npz", **{key: pixels}, **others)
    found = every(opened(f"npz:{tmp_path / 'set.npz'}"))
    assert found.shape == (6, *SHAPE)
    if form[1:3] == (8, 8):
        assert torch.equal(found[:, 0], torch.from_numpy(np.rint(pixels * 255).astype(np.uint8)).view(6, 8, 8))


@pytest.mark.filterwarnings(LEFT_OUT)
def test_batches_are_normalised_and_in_order_whoever_makes_them(tree):
    outside, random = opened(f"crop:folder:{tree}", batch_size=3), torch.get_rng_state()
    inputs, labels = zip(*outside, strict=True)
    assert torch.equal(torch.get_rng_state(), random)
    assert len(outside) == len(inputs) == 2
    torch.testing.assert_close(torch.cat(inputs), normalised(every(outside) / 255))
    assert torch.cat(labels).tolist() == [0] * 4
    by_workers = opened(f"crop:folder:{tree}", batch_size=3, workers=1)
    assert all(torch.equal(here, there) for here, (there, _) in zip(inputs, by_workers, strict=True))


def test_labels_have_no_slash_and_no_twin():
    names = ("digits", "folder:/a/LSUN crop/", "crop:folder:/b/LSUN crop", "npz:x/LSUN-crop.npz", "npz:LSUN-crop.npz")
    assert labels_of(names) == ["digits", "LSUN-crop", "LSUN-crop-crop", "LSUN-crop-2", "LSUN-crop-3"]
    assert labels_of(("tiny-imagenet-crop", "resize:tiny-imagenet")) == ["tiny-imagenet-crop", "tiny-imagenet-resize"]
    assert labels_of(("folder:mean", "folder:...", "folder:/")) == ["mean-2", "set", "set-2"]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "gausian-noise",
            "unknown set 'gausian-noise'; did you mean gaussian-noise.*known are gaussian-noise.*npz:PATH",
        ),
        ("Fashion_MNIST", "did you mean fashion-mnist"),
        ("crop:gaussian-noise", "unknown set"),
        ("folder:", "unknown set"),
        ("zip:x", "unknown set"),
        ("folder:/no/where", "'folder:/no/where': /no/where is not a folder"),
        ("npz:/no/where.npz", "/no/where.npz is not a file"),
        ("fashion-mnist", "'fashion-mnist': fashion-mnist is not, or not whole, under nowhere"),
        ("tiny-imagenet-resize", "'tiny-imagenet-resize': nowhere/tiny-imagenet-200/val is not a folder"),
    ],
)
def test_a_set_that_is_not_there_is_refused_by_name(name, says):
    with pytest.raises(ValueError, match=f"sets: .*{says}") as caught:
        opened(name)
    assert "\n" not in str(caught.value)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"a": np.zeros(3), "b": np.zeros(4)}, "neither test_images nor images, but a, b"),
        ({}, "neither test_images nor images, but nothing"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, r"must hold images .* one or more, not \(0, 8, 8, 3\)"),
        ({"images": np.zeros((4, 3))}, "must hold images"),
        ({"images": np.full((4, 8, 8, 3), 2.0)}, r"must lie in \[0, 1\] as floats, without NaN, got \[2.0, 2.0\]"),
        ({"images": np.zeros((4, 8, 8, 4), np.uint8)}, "images of 4 channels cannot be made into the run's, of 3"),
        ({"images": np.array([{}, {}], dtype=object)}, "is damaged or no .npz archive"),
    ],
)
def test_an_archive_without_images_is_refused(tmp_path, arrays, says):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(ValueError, match=f"sets: 'npz:.*{says}"):
        opened(f"npz:{tmp_path / 'set.npz'}")


@pytest.mark.bad_input
@pytest.mark.filterwarnings(LEFT_OUT)
def test_damaged_files_are_named(tree):
    for name in ("z/a.txt", "set.npz", "f.png"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"PK\x03\x04 and nothing")
    with pytest.raises(ValueError, match=r"holds no image file, nor do the folders in it; left out, no .*: 1: a.txt"):
        opened(f"folder:{tree / 'z'}")
    with pytest.raises(ValueError, match=r"set\.npz is damaged or no \.npz archive"):
        opened(f"npz:{tree / 'set.npz'}")
    (tree / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"sets: 'folder:.*2 of 4 files cannot be read .*: .*a\.png: .*; .*f\.png: "):
        opened(f"folder:{tree}")
