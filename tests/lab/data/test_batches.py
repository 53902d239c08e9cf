"""Augmentation and batches: order, resumption, views, shards, workers and damaged files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare
from torchvision.transforms import v2

from multimix.lab.data import Augment, Batches, Files, Images, normalise
from multimix.lab.data._batches import augmented, decoded
from multimix.lab.data._folder import class_tree
from multimix.lab.data._pixels import UnreadableError, read_image

MEAN, STD = (0.4,), (0.3,)
# Python 3.12 and later warn when a process with threads forks, as torch's loader does.
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
CENTRE, SPREAD = (0.3, 0.5, 0.6), (0.2, 0.25, 0.3)


def random_images(b, c=3, h=9, w=7):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (b, c, h, w), dtype=torch.uint8, generator=generator)


def loop(images, crops, padding):
    """Crop and flip pixel by pixel: the truth that the batched form must equal."""
    b, h, w = len(images), *images.shape[2:]
    out = np.zeros_like(images)
    for i in range(b):
        for y in range(h):
            for x in range(w):
                row = int(crops.top[i]) + y - padding
                column = int(crops.left[i]) + (w - 1 - x if crops.mirrored[i] else x) - padding
                if 0 <= row < h and 0 <= column < w:
                    out[i, :, y, x] = images[i, :, row, column]
    return out


@pytest.mark.parametrize(
    ("b", "c", "h", "w", "padding"), [(17, 3, 9, 7, 4), (1, 1, 8, 8, 2), (5, 4, 1, 6, 3), (6, 3, 5, 5, 0)]
)
def test_apply_equals_the_loop(b, c, h, w, padding, generator):
    images, augment = random_images(b, c, h, w), Augment(crop_padding=padding)
    crops = augment.draw(b, generator)
    assert np.array_equal(augment.apply(images, crops).numpy(), loop(images.numpy(), crops, padding))


def test_call_draws_applies_and_normalises():
    images, augment = random_images(11), Augment(crop_padding=2)
    crops = augment.draw(11, torch.Generator().manual_seed(3))
    before = torch.get_rng_state()
    got = augment(images, CENTRE, SPREAD, torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images, random_images(11))
    truth = loop(images.numpy(), crops, 2) / 255.0
    truth = (truth - np.reshape(CENTRE, (3, 1, 1))) / np.reshape(SPREAD, (3, 1, 1))
    np.testing.assert_allclose(got.numpy(), truth, rtol=0, atol=2e-6)
    assert got.dtype == torch.float32


def test_corners_and_flips_are_uniform_and_apart_for_each_image(generator):
    crops = Augment().draw(81 * 200, generator)
    cells = np.bincount((crops.top * 9 + crops.left).numpy() * 2 + crops.mirrored.numpy(), minlength=162)
    assert len(cells) == 162
    assert chisquare(cells).pvalue > 1e-3
    assert not Augment(flip=False).draw(200, generator).mirrored.any()


def numbered(size=23):
    """Return images whose every pixel is their own number, labelled with it modulo 5."""
    numbers = torch.arange(size)
    return Images(numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 5), numbers % 5, tuple("abcde"))


def batches(dataset=None, **settings):
    channels = 1 if dataset is None else dataset.shape[0]
    statistics = {"mean": MEAN * channels, "std": STD * channels}
    return Batches(numbered() if dataset is None else dataset, **{"batch_size": 4, **statistics, **settings})


def numbers(inputs):
    """Read the numbers of unaugmented images back."""
    return (inputs[:, 0, 2, 2].mul(STD[0]).add(MEAN[0]).mul(255)).round().int().tolist()


def flat(served):
    """Return all tensors of batches."""
    return [part for x, labels in served for part in (*(x if isinstance(x, tuple) else (x,)), labels)]


def same(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


def test_in_order_and_unaugmented_it_is_the_data_set():
    served = list(batches(shuffle=False))
    assert [n for inputs, _ in served for n in numbers(inputs)] == list(range(23))
    assert torch.cat([labels for _, labels in served]).tolist() == [n % 5 for n in range(23)]
    assert torch.equal(served[1][0], normalise(numbered().images[4:8], MEAN, STD))


def test_a_shuffled_epoch_has_each_image_once_with_its_own_label():
    served = list(batches().epoch(3))
    seen = [n for inputs, _ in served for n in numbers(inputs)]
    assert seen != sorted(seen)
    assert sorted(seen) == list(range(23))
    assert [n % 5 for n in seen] == torch.cat([labels for _, labels in served]).tolist()


@pytest.mark.parametrize(
    ("size", "batch_size", "drop_last", "sizes"),
    [(23, 4, False, [4, 4, 4, 4, 4, 3]), (11, 4, True, [4, 4]), (9, 4, False, [4, 4, 1]), (8, 4, True, [4, 4])],
)
def test_the_number_and_size_of_batches(size, batch_size, drop_last, sizes):
    served = batches(numbered(size), batch_size=batch_size, drop_last=drop_last, augment=Augment())
    assert len(served) == len(sizes)
    assert [len(labels) for _, labels in served.epoch(1)] == sizes


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("start", [0, 2, 6])
def test_resuming_anywhere_continues_the_same_stream(start, views):
    settings = {"augment": Augment(crop_padding=2), "views": views, "seed": 5}
    before = torch.get_rng_state()
    whole = list(batches(**settings).epoch(2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1234)  # a resumed process starts from another global state
    assert same(flat(batches(**settings).epoch(2, start)), flat(whole[start:]))


def test_another_seed_epoch_or_batch_is_augmented_otherwise():
    image = torch.arange(240, dtype=torch.uint8).view(1, 1, 15, 16)
    alike = Images(image.repeat(8, 1, 1, 1), torch.arange(8) % 2, ("a", "b"))

    def first(seed, epoch, start=0):
        return next(batches(alike, augment=Augment(), seed=seed).epoch(epoch, start))[0]

    made = [first(0, 0), first(1, 0), first(0, 1), first(0, 0, 1)]
    assert len({views.numpy().tobytes() for views in made}) == 4
    orders = [numbers(next(batches(seed=seed).epoch(epoch))[0]) for seed, epoch in ((0, 0), (1, 0), (0, 1))]
    assert len(set(map(tuple, orders))) == 3


def test_views_are_of_the_same_images_and_differ_where_they_are_augmented():
    for inputs, _ in batches(augment=Augment(crop_padding=2), views=3, mean=(0.0,), std=(1.0,)):
        first, second, third = (view.amax((1, 2, 3)).tolist() for view in inputs)  # of the images, all of one value
        assert first == second == third
        assert not torch.equal(inputs[0], inputs[1])
        assert not torch.equal(inputs[1], inputs[2])
    (inputs, _), *_ = batches(views=2)
    assert torch.equal(*inputs)


@pytest.mark.parametrize(("size", "world"), [(23, 2), (24, 3), (7, 5), (9, 4)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_shards_are_disjoint_and_take_the_same_steps_where_they_are_shuffled(size, world, shuffle):
    shards = [batches(numbered(size), shard=(rank, world), shuffle=shuffle) for rank in range(world)]
    seen = [[n for inputs, _ in shard.epoch(1) for n in numbers(inputs)] for shard in shards]
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]
    share = [size // world + (rank < size % world and not shuffle) for rank in range(world)]
    assert [len(numbers) for numbers in seen] == share
    assert len({n for numbers in seen for n in numbers}) == sum(share)


@pytest.mark.parametrize("views", [1, 2])
def test_interleaved_shards_are_the_batches_of_one(views):
    whole = batches(numbered(23), batch_size=6, augment=Augment(), views=views)
    shards = [batches(numbered(23), batch_size=2, augment=Augment(), views=views, shard=(rank, 3)) for rank in range(3)]
    served = list(zip(whole.epoch(1), *(shard.epoch(1) for shard in shards), strict=True))
    for (inputs, labels), *ours in served[:-1]:  # the last one leaves out what does not share evenly
        assert torch.equal(torch.stack([part for _, part in ours], 1).flatten(), labels)
        for view in range(views):
            parts = [part if views == 1 else part[view] for part, _ in ours]
            assert torch.equal(torch.stack(parts, 1).flatten(0, 1), inputs if views == 1 else inputs[view])


def test_batches_live_on_the_device(device):
    inputs, labels = next(iter(batches(augment=Augment(), device=device)))
    assert (inputs.device.type, labels.device.type, inputs.dtype) == (device.type, device.type, torch.float32)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"views": 0}, "views must be at least 1, got 0"),
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"shard": (2, 2)}, r"shard must be \(rank, world size\)"),
        ({"mean": (0.1, 0.2)}, r"mean must have one number for each of 1 channels, got \(2,\)"),
        ({"std": ()}, "std must have one number"),
        ({"batch_size": 24, "drop_last": True}, "23 images in batches of 24, full batches only.* no batch"),
        ({"shard": (0, 24)}, r"23 images .*shard \(0, 24\): no batch"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        batches(**settings)


@pytest.mark.bad_input
def test_bad_arguments_are_named_at_once():
    for start in (-1, 7):
        with pytest.raises(ValueError, match=rf"start must lie in 0\.\.6, got {start}"):
            batches().epoch(0, start)
    with pytest.raises(ValueError, match="crop_padding must be at least 0, got -1"):
        Augment(crop_padding=-1)
    with pytest.raises(ValueError, match=r"images must be uint8 .*float32"):
        normalise(torch.zeros(1, 3, 2, 2), (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def files(tree):
    found = class_tree(tree(each=3, size=(30, 24)))
    return Files(found.paths, found.labels, found.classes, 16)


def test_evaluation_is_torchvisions_resize_and_centre_crop(files):
    served = flat(batches(files, shuffle=False))
    assert all(images.is_contiguous() for images in served[::2])  # torch crashes on few channels that come last
    transform = v2.Compose([v2.Resize(18), v2.CenterCrop(16), v2.PILToTensor()])  # 16 * 256 / 224 = 18.3
    for path, image in zip(files.paths, torch.cat(served[::2]), strict=True):
        truth = normalise(transform(Image.open(path).convert("RGB"))[None], MEAN * 3, STD * 3)[0]
        assert torch.equal(image, truth)
    assert torch.equal(torch.cat(served[1::2]), files.labels)


def test_training_is_torchvisions_resized_crop_and_flip_under_a_seed_of_its_own(files):
    image = read_image(files.paths[0])
    before = torch.get_rng_state()
    view = augmented(image, 16, Augment(), 77)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(77)
    truth = v2.Compose([v2.RandomResizedCrop(16, antialias=True), v2.RandomHorizontalFlip()])(image)
    assert np.array_equal(np.asarray(view), np.asarray(truth))


def test_crop_and_flip_can_be_had_apart(files):
    image = read_image(files.paths[0])
    centre, *flips = [
        np.asarray(augmented(image, 16, Augment(crop_padding=0, flip=seed > 0), seed)) for seed in range(13)
    ]
    mirrored = [np.array_equal(view, centre[:, ::-1]) for view in flips]
    assert len(set(mirrored)) == 2
    assert all(np.array_equal(view, centre) for view, m in zip(flips, mirrored, strict=True) if not m)


@forks
@pytest.mark.parametrize("views", [1, 2])
def test_neither_workers_nor_batch_size_nor_start_change_an_images_own_view(files, views):
    settings = {"augment": Augment(), "views": views, "seed": 3}
    before = torch.get_rng_state()
    whole = flat(batches(files, **settings).epoch(2))
    assert same(flat(batches(files, **settings, workers=2).epoch(2)), whole)
    assert same(flat(batches(files, **settings).epoch(2, 1)), whole[views + 1 :])
    assert flat(batches(files, **settings).epoch(2, 3)) == []
    single = flat(batches(files, **settings, batch_size=1).epoch(2))
    assert torch.equal(torch.cat(single[:: views + 1]), torch.cat(whole[:: views + 1]))
    assert torch.equal(torch.get_rng_state(), before)


def test_views_epochs_and_images_have_randomness_of_their_own(files):
    dataset = Files(files.paths[:1] * 4, torch.tensor([0, 1, 0, 1]), ("a", "b"), 16)
    served = batches(dataset, augment=Augment(), views=2, shuffle=False)
    (first, second), _ = next(served.epoch(0))
    (later, _), _ = next(served.epoch(1))
    images = [*first, *second, *later]
    assert len({image.numpy().tobytes() for image in images}) == len(images)


def test_every_kind_of_image_becomes_rgb(tmp_path):
    for mode in ("L", "RGBA", "P"):
        Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(tmp_path / "image.png")
        image = read_image(str(tmp_path / "image.png"))
        assert (image.mode, image.size, np.asarray(image).min()) == ("RGB", (5, 4), 255)


@forks
@pytest.mark.bad_input
@pytest.mark.parametrize(("content", "workers"), [("cut", 0), (b"no image", 0), (b"", 0), (None, 0), ("cut", 1)])
def test_a_damaged_file_is_named_on_one_line(files, content, workers):
    path = Path(files.paths[5])
    whole = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(whole[: len(whole) // 2] if content == "cut" else content)
    with pytest.raises(ValueError, match="cannot be read as an image") as caught:
        flat(batches(files, workers=workers))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def doubled(job):
    if job == 5:
        raise UnreadableError("five cannot be read")
    return torch.full((3,), 2 * job)


@forks
@pytest.mark.parametrize("workers", [0, 2])
def test_jobs_are_decoded_in_order_and_what_cannot_be_read_is_said_when_its_turn_comes(workers):
    made = decoded(doubled, [3, 1, 4, 1, 5], workers=workers)
    assert [next(made).tolist() for _ in range(4)] == [[6] * 3, [2] * 3, [8] * 3, [2] * 3]
    with pytest.raises(ValueError, match=r"^five cannot be read$"):
        next(made)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_batch_cut_off_names_the_worker(error):
    def dropped(job):
        raise error  # what the main process may meet while it takes a batch from a worker that has just been killed

    with pytest.raises(RuntimeError, match=r"DataLoader worker was killed by signal, or exited unexpectedly: "):
        next(decoded(dropped, [1], workers=0))
