"""Image files: per-sample transforms, seeds, workers and damaged files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from data.trees import Tree
from multimix.lab.data import Augment, Batches, Files, normalise
from multimix.lab.data._folder import class_tree
from multimix.lab.data._images import augmented, read_image

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
# Python 3.12 and later warn when a process with threads forks, as torch's loader does.
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def files(tree: Tree, size: int = 16) -> Files:
    found = class_tree(tree(each=3, size=(30, 24)))
    return Files(found.paths, found.labels, found.classes, size)


def batches(dataset: Files, **settings: object) -> Batches:
    arguments: dict[str, object] = {"batch_size": 4, "mean": MEAN, "std": STD, "seed": 3} | settings
    return Batches(dataset, **arguments)  # type: ignore[arg-type]


def flat(served: Batches, epoch: int = 0, start: int = 0) -> list[torch.Tensor]:
    parts = [[*(x if isinstance(x, tuple) else (x,)), labels] for x, labels in served.epoch(epoch, start)]
    return [part for batch in parts for part in batch]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_evaluation_is_torchvisions_resize_and_centre_crop(tree: Tree) -> None:
    dataset = files(tree)
    served = flat(batches(dataset, shuffle=False))
    transform = v2.Compose([v2.Resize(18), v2.CenterCrop(16), v2.PILToTensor()])  # 16 * 256 / 224 = 18.3
    for i, (path, image) in enumerate(zip(dataset.paths, torch.cat(served[::2]), strict=True)):
        truth = normalise(transform(Image.open(path).convert("RGB"))[None], MEAN, STD)[0]
        assert torch.equal(image, truth), i
    assert torch.equal(torch.cat(served[1::2]), dataset.labels)


def test_training_is_torchvisions_resized_crop_and_flip_under_a_seed_of_its_own(tree: Tree) -> None:
    picture = read_image(files(tree).paths[0])
    before = torch.get_rng_state()
    view = augmented(picture, 16, Augment(), 77)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(77)
    truth = v2.Compose([v2.RandomResizedCrop(16, antialias=True), v2.RandomHorizontalFlip()])(picture)
    assert np.array_equal(np.asarray(view), np.asarray(truth))


def test_crop_and_flip_can_be_had_apart(tree: Tree) -> None:
    picture = read_image(files(tree).paths[0])
    centre = augmented(picture, 16, Augment(crop_padding=0, flip=False), 0)
    flips = [augmented(picture, 16, Augment(crop_padding=0), seed) for seed in range(12)]
    mirrored = [np.array_equal(np.asarray(view), np.asarray(centre)[:, ::-1]) for view in flips]
    assert any(mirrored)
    assert not all(mirrored)
    assert all(np.array_equal(np.asarray(v), np.asarray(centre)) for v, m in zip(flips, mirrored, strict=True) if not m)


@forks
@pytest.mark.parametrize("views", [1, 2])
def test_the_number_of_workers_changes_nothing(tree: Tree, views: int) -> None:
    dataset, settings = files(tree), {"augment": Augment(), "views": views}
    before = torch.get_rng_state()
    alone = flat(batches(dataset, **settings, workers=0), 1)
    assert equal(alone, flat(batches(dataset, **settings, workers=2), 1))
    assert torch.equal(torch.get_rng_state(), before)


def test_resuming_and_batch_size_keep_every_images_own_view(tree: Tree) -> None:
    dataset = files(tree)
    whole = flat(batches(dataset, augment=Augment()), 2)
    assert equal(flat(batches(dataset, augment=Augment()), 2, 1), whole[2:])
    single = flat(batches(dataset, augment=Augment(), batch_size=1), 2)
    assert torch.equal(torch.cat(single[::2]), torch.cat(whole[::2]))
    assert flat(batches(dataset, augment=Augment()), 2, 3) == []


def test_views_epochs_and_images_have_randomness_of_their_own(tmp_path: Path, tree: Tree) -> None:
    one = class_tree(tree(each=1, size=(30, 24))).paths[0]
    dataset = Files((one,) * 4, torch.tensor([0, 1, 0, 1]), ("a", "b"), 16)
    served = batches(dataset, augment=Augment(), views=2, shuffle=False)
    first, second, _ = flat(served, 0)
    later, _, _ = flat(served, 1)
    pictures = [*first, *second, *later]
    assert len({picture.numpy().tobytes() for picture in pictures}) == len(pictures)


def test_a_single_image_is_a_batch(tree: Tree) -> None:
    sizes = [len(labels) for _, labels in batches(files(tree), augment=Augment())]
    assert sizes == [4, 4, 1]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(path)
    picture = read_image(str(path))
    assert (picture.mode, picture.size) == ("RGB", (5, 4))
    assert np.asarray(picture).min() == 255


def break_file(dataset: Files, how: str) -> Path:
    path = Path(dataset.paths[5])
    content = path.read_bytes()
    damaged = {"cut": content[: len(content) // 2], "text": b"not an image", "empty": b""}
    path.unlink() if how == "gone" else path.write_bytes(damaged[how])
    return path


@forks
@pytest.mark.bad_input
@pytest.mark.parametrize(("how", "workers"), [("cut", 0), ("text", 0), ("empty", 0), ("gone", 0), ("cut", 1)])
def test_a_damaged_file_is_named_on_one_line(tree: Tree, how: str, workers: int) -> None:
    dataset = files(tree)
    path = break_file(dataset, how)
    with pytest.raises(ValueError, match="cannot be read as an image") as caught:
        flat(batches(dataset, workers=workers))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
