"""Batches of images in memory: coverage, order, resumption, views and shards."""

import pytest
import torch

from multimix.lab.data import Augment, Batches, Images, normalise

Batch = tuple[torch.Tensor | tuple[torch.Tensor, ...], torch.Tensor]
MEAN, STD = (0.4,), (0.3,)


def numbered(size: int = 23) -> Images:
    """Return images whose every pixel is their own number, labelled with it modulo 5."""
    numbers = torch.arange(size)
    pixels = numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 5)
    return Images(pixels, numbers % 5, tuple("abcde"))


def batches(dataset: Images | None = None, **settings: object) -> Batches:
    arguments: dict[str, object] = {"batch_size": 4, "mean": MEAN, "std": STD} | settings
    return Batches(numbered() if dataset is None else dataset, **arguments)  # type: ignore[arg-type]


def alike() -> Images:
    """Return eight copies of one textured image."""
    picture = torch.arange(240, dtype=torch.uint8).view(1, 1, 15, 16)
    return Images(picture.repeat(8, 1, 1, 1), torch.arange(8) % 2, ("a", "b"))


def numbers(inputs: torch.Tensor | tuple[torch.Tensor, ...]) -> list[int]:
    """Read the numbers of unaugmented images back."""
    assert isinstance(inputs, torch.Tensor)
    return (inputs[:, 0, 2, 2].mul(STD[0]).add(MEAN[0]).mul(255)).round().int().tolist()


def same(one: list[Batch], other: list[Batch]) -> bool:
    def flat(batch: Batch) -> list[torch.Tensor]:
        inputs, labels = batch
        return [*((inputs,) if isinstance(inputs, torch.Tensor) else inputs), labels]

    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(flat(x), flat(y), strict=True))


def test_in_order_and_unaugmented_it_is_the_data_set() -> None:
    served = list(batches(shuffle=False))
    assert [n for inputs, _ in served for n in numbers(inputs)] == list(range(23))
    assert torch.cat([labels for _, labels in served]).tolist() == [n % 5 for n in range(23)]
    assert torch.equal(served[1][0], normalise(numbered().images[4:8], MEAN, STD))


@pytest.mark.parametrize("epoch", [0, 3])
def test_a_shuffled_epoch_has_each_image_once_with_its_own_label(epoch: int) -> None:
    served = list(batches().epoch(epoch))
    seen = [n for inputs, _ in served for n in numbers(inputs)]
    assert seen != sorted(seen)
    assert sorted(seen) == list(range(23))
    assert [n % 5 for n in seen] == torch.cat([labels for _, labels in served]).tolist()


@pytest.mark.parametrize(
    ("size", "batch_size", "drop_last", "sizes"),
    [
        (23, 4, False, [4, 4, 4, 4, 4, 3]),
        (23, 4, True, [4, 4, 4, 4, 4]),
        (9, 4, False, [4, 4, 1]),
        (8, 4, True, [4, 4]),
        (3, 4, False, [3]),
        (1, 1, True, [1]),
    ],
)
def test_the_number_and_size_of_batches(size: int, batch_size: int, drop_last: bool, sizes: list[int]) -> None:
    served = batches(numbered(size), batch_size=batch_size, drop_last=drop_last, augment=Augment())
    assert len(served) == len(sizes)
    assert [len(labels) for _, labels in served.epoch(1)] == sizes


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("start", [0, 2, 5, 6])
def test_resuming_anywhere_continues_the_same_stream(start: int, views: int) -> None:
    settings = {"augment": Augment(crop_padding=2), "views": views, "seed": 5}
    whole = list(batches(**settings).epoch(2))
    torch.manual_seed(1234)  # a resumed process starts from another global state
    assert same(list(batches(**settings).epoch(2, start)), whole[start:])


def test_another_seed_or_epoch_is_another_stream() -> None:
    settings = {"augment": Augment(crop_padding=2)}
    first = list(batches(**settings, seed=0).epoch(0))
    assert not same(first, list(batches(**settings, seed=1).epoch(0)))
    assert not same(first, list(batches(**settings, seed=0).epoch(1)))


def test_augmentation_differs_from_batch_to_batch() -> None:
    one, two = (inputs for inputs, _ in batches(alike(), augment=Augment()))
    assert not torch.equal(one, two)


def test_views_are_of_the_same_images_and_differ() -> None:
    textured = torch.randint(0, 256, (6, 1, 12, 12), dtype=torch.uint8)
    augment = Augment(crop_padding=3)
    served = list(batches(Images(textured, torch.arange(6) % 2, ("a", "b")), augment=augment, views=3, shuffle=False))
    padded = torch.nn.functional.pad(textured, (3, 3, 3, 3))
    for position, (inputs, _) in enumerate(served):
        assert isinstance(inputs, tuple)
        assert len(inputs) == 3
        assert not torch.equal(inputs[0], inputs[1])
        assert not torch.equal(inputs[1], inputs[2])
        for view in inputs:
            for i, image in enumerate(view):
                assert any(torch.equal(image, window) for window in windows(padded[4 * position + i]))


def windows(padded: torch.Tensor) -> list[torch.Tensor]:
    """Return every normalised 12x12 window of a padded image, each way round."""
    cut = [padded[:, y : y + 12, x : x + 12] for y in range(7) for x in range(7)]
    return [normalise(turned[None], MEAN, STD)[0] for window in cut for turned in (window, window.flip(2))]


def test_views_without_augmentation_are_the_same() -> None:
    (inputs, _), *_ = batches(views=2)
    assert isinstance(inputs, tuple)
    assert torch.equal(inputs[0], inputs[1])


@pytest.mark.parametrize(("size", "world"), [(23, 2), (23, 3), (24, 3), (7, 5)])
def test_shuffled_shards_are_disjoint_and_take_the_same_steps(size: int, world: int) -> None:
    shards = [batches(numbered(size), shard=(rank, world)) for rank in range(world)]
    seen = [[n for inputs, _ in shard.epoch(1) for n in numbers(inputs)] for shard in shards]
    assert len({len(shard) for shard in shards}) == 1
    assert [len(s) for s in seen] == [size // world] * world
    assert len({n for shard in seen for n in shard}) == size // world * world


@pytest.mark.parametrize(("size", "world"), [(23, 2), (23, 3), (9, 4)])
def test_shards_in_order_cover_every_image_once(size: int, world: int) -> None:
    shards = [batches(numbered(size), shard=(rank, world), shuffle=False) for rank in range(world)]
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]
    assert sorted(n for shard in shards for inputs, _ in shard for n in numbers(inputs)) == list(range(size))


def test_shards_augment_apart() -> None:
    one, two = (next(iter(batches(alike(), augment=Augment(), shard=(rank, 2))))[0] for rank in range(2))
    assert not torch.equal(one, two)


@pytest.mark.parametrize("views", [1, 2])
def test_shards_dealt_together_are_the_batches_of_one(views: int) -> None:
    whole = batches(numbered(23), batch_size=6, augment=Augment(), views=views)
    shards = [batches(numbered(23), batch_size=2, augment=Augment(), views=views, shard=(rank, 3)) for rank in range(3)]
    served = list(zip(whole.epoch(1), *(shard.epoch(1) for shard in shards), strict=True))
    for (inputs, labels), *ours in served[:-1]:  # the last one leaves out what does not share evenly
        assert torch.equal(torch.stack([part for _, part in ours], 1).flatten(), labels)
        for view in range(views):
            dealt = [part if views == 1 else part[view] for part, _ in ours]
            assert torch.equal(torch.stack(dealt, 1).flatten(0, 1), inputs if views == 1 else inputs[view])


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(batches(augment=Augment(), views=2).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_two_iterations_at_once_do_not_disturb_each_other() -> None:
    served = batches(augment=Augment())
    alone = list(served.epoch(0))
    twice = list(zip(served.epoch(0), served.epoch(0), strict=True))
    assert same([one for one, _ in twice], alone)
    assert same([other for _, other in twice], alone)


def test_batches_live_on_the_device(device: torch.device) -> None:
    inputs, labels = next(iter(batches(augment=Augment(), device=device)))
    assert isinstance(inputs, torch.Tensor)
    assert (inputs.device.type, labels.device.type, inputs.dtype) == (device.type, device.type, torch.float32)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"views": 0}, "views must be at least 1, got 0"),
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"shard": (2, 2)}, r"shard must be \(rank, world size\)"),
        ({"mean": (0.1, 0.2)}, "mean must have one number for each of 1 channels, got 2"),
        ({"std": ()}, "std must have one number"),
        ({"batch_size": 24, "drop_last": True}, "23 images in batches of 24, full batches only.* no batch"),
        ({"shard": (0, 24)}, r"23 images .*shard \(0, 24\): no batch"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches(**settings)


@pytest.mark.bad_input
@pytest.mark.parametrize("start", [-1, 7])
def test_a_start_outside_the_epoch_is_refused_at_once(start: int) -> None:
    with pytest.raises(ValueError, match=rf"start must lie in 0\.\.6, got {start}"):
        batches().epoch(0, start)
