"""What load adds to its sources: validation, smaller training sets, sizes, statistics."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import resize

from multimix.lab.data import DATASETS, Augment, Batches, Images, load


def rows(part: object) -> set[bytes]:
    assert isinstance(part, Images)
    return {image.numpy().tobytes() for image in part.images}


@pytest.fixture
def uneven(archive):
    """Return an archive of 100 distinct training images in classes of 60, 30 and 10."""
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.repeat([0, 1, 2], [60, 30, 10]))
    images = rng.integers(0, 256, (100, 6, 6), dtype=np.uint8)
    return archive(
        {"train_images": images, "train_labels": labels, "test_images": images[:9], "test_labels": labels[:9]}
    )


def test_validation_is_stratified_and_disjoint(uneven):
    splits = load(uneven, validation=0.2)
    assert torch.bincount(splits.validation.labels).tolist() == [12, 6, 2]
    assert torch.bincount(splits.train.labels).tolist() == [48, 24, 8]
    assert not rows(splits.train) & rows(splits.validation)
    assert rows(splits.train) | rows(splits.validation) == rows(load(uneven, validation=0.0).train)


def test_validation_depends_on_the_split_seed_alone(uneven):
    first = rows(load(uneven, split_seed=0).validation)
    torch.manual_seed(1)
    np.random.default_rng(1).random()
    assert rows(load(uneven, split_seed=0).validation) == first
    assert rows(load(uneven, split_seed=1).validation) != first


def test_the_run_seed_moves_no_image_between_the_parts(uneven):
    splits = load(uneven)
    settings = {"batch_size": 90, "mean": splits.mean, "std": splits.std}
    (one, _), (other, _) = (next(iter(Batches(splits.train, seed=seed, **settings))) for seed in (0, 1))
    assert not torch.equal(one, other)
    assert torch.equal(one.flatten(1).sum(1).sort().values, other.flatten(1).sum(1).sort().values)


def test_a_small_fraction_still_holds_one_image_out(uneven):
    splits = load(uneven, validation=0.001)
    assert (len(splits.train), len(splits.validation)) == (99, 1)


@pytest.mark.parametrize(("size", "counts"), [(50, [30, 15, 5]), (3, [1, 1, 1]), (80, [48, 24, 8])])
def test_train_size_is_stratified_and_leaves_validation_alone(uneven, size, counts):
    whole, part = load(uneven, validation=0.2), load(uneven, validation=0.2, train_size=size)
    assert torch.bincount(part.train.labels).tolist() == counts
    assert rows(part.train) <= rows(whole.train)
    assert rows(part.validation) == rows(whole.validation)


def test_statistics_are_those_of_the_training_images_in_use(uneven):
    splits = load(uneven, validation=0.3, train_size=40)
    pixels = splits.train.images.double() / 255
    assert splits.mean == pytest.approx((pixels.mean().item(),), rel=1e-12)
    assert splits.std == pytest.approx((pixels.std(correction=0).item(),), rel=1e-12)


def test_each_channel_has_its_own_statistics(archive, arrays):
    arrays["train_images"][..., 1] //= 2
    arrays["train_images"][..., 2] = 51
    splits = load(archive(arrays), validation=0.0)
    truth = arrays["train_images"] / 255
    assert splits.mean == pytest.approx(tuple(truth.mean((0, 1, 2))), rel=1e-12)
    assert splits.std[:2] == pytest.approx(tuple(truth.std((0, 1, 2)))[:2], rel=1e-12)
    assert splits.std[2] == 1.0  # never varies: centred and left alone


def test_image_size_resizes_every_part(archive, arrays):
    plain, large = load(archive(arrays)), load(archive(arrays), image_size=9)
    for part in ("train", "validation", "test"):
        truth = resize(getattr(plain, part).images, [9, 9], antialias=True)
        assert torch.equal(getattr(large, part).images, truth)
        assert torch.equal(getattr(large, part).labels, getattr(plain, part).labels)
    assert large.shape == (3, 9, 9)


def test_digits_go_from_name_to_batch():
    splits = load("digits")
    assert (splits.name, splits.shape, splits.classes) == ("digits", (1, 8, 8), tuple("0123456789"))
    batches = Batches(
        splits.train, batch_size=64, mean=splits.mean, std=splits.std, augment=Augment(crop_padding=1, flip=False)
    )
    inputs, labels = next(batches.epoch(0))
    assert (inputs.shape, inputs.dtype, labels.shape) == ((64, 1, 8, 8), torch.float32, (64,))


def test_the_list_of_names():
    named = ("digits", "cifar10", "cifar100", "svhn", "fashion-mnist", "tiny-imagenet", "imagenet")
    assert (*named, "folder:PATH", "npz:PATH") == DATASETS


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifer10", r"unknown data set 'cifer10'; did you mean cifar10.*known are digits, .*npz:PATH"),
        ("CIFAR100", "did you mean cifar100"),
        ("zebra", "unknown data set 'zebra'; known are digits"),
        ("zip:x", "unknown data set 'zip:x'"),
        ("npz:", "'npz:' lacks its path: npz:PATH"),
        ("folder:", "'folder:' lacks its path: folder:PATH"),
        ("", "unknown data set ''"),
    ],
)
def test_unknown_names_get_near_ones(name, message):
    with pytest.raises(ValueError, match=message):
        load(name)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": 1.0}, r"validation must lie in \[0, 1\), got 1.0"),
        ({"validation": -0.1}, "got -0.1"),
        ({"validation": float("nan")}, "got nan"),
        ({"validation": 0.98}, "validation=0.98 leaves too few training images: 2 of 100 .* 3 classes"),
        ({"train_size": 91}, "train_size=91 does not fit: 91 of 90 images"),
        ({"train_size": 2}, "train_size=2 does not fit: 2 of 90 .* 3 classes"),
        ({"train_size": 0}, "train_size=0 does not fit"),
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_named(uneven, settings, message):
    with pytest.raises(ValueError, match=message):
        load(uneven, **settings)
