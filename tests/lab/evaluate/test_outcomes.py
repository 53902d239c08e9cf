"""What became of each class, against plain loops over the examples."""

import base64
import io
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

import toy
from multimix.lab.data import Files, Images, load
from multimix.lab.evaluate import Accuracy
from multimix.lab.evaluate.outcomes import outcomes
from multimix.protocols import Monitor
from photos import photos


class Kept(Monitor):
    def __init__(self):
        self.figures = {}

    def record(self, name, data):
        self.figures[name] = data


def images_of(labels: torch.Tensor, k: int, channels: int = 3, side: int = 8) -> Images:
    pixels = torch.randint(256, (len(labels), channels, side, side), generator=torch.Generator().manual_seed(1))
    return Images(pixels.byte(), labels, tuple(f"class {index}" for index in range(k)))


def decoded(picture: str) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(picture)))
    assert image.format == "PNG"
    return np.asarray(image)


@pytest.fixture
def answers():
    """Logits and labels of 60 examples and 5 classes, the last of which has no example."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (60,), generator=generator)
    return torch.randn(60, 5, generator=generator) + 2 * torch.eye(5)[labels], labels


def test_every_class_pair_and_mistake_is_that_of_a_loop(answers):
    logits, labels = answers
    images = images_of(labels, 5)
    found = dict(outcomes(logits, labels, images))
    predicted = [max(range(5), key=row.__getitem__) for row in logits.tolist()]
    pairs = Counter(zip(labels.tolist(), predicted, strict=True))
    totals = Counter(labels.tolist())
    classes = found["classes"]
    assert classes["accuracy"] == [pairs[c, c] / totals[c] if totals[c] else None for c in range(5)]
    assert (classes["count"], classes["classes"]) == ([totals[c] for c in range(5)], list(images.classes))
    confusion = found["confusion"]
    counted = zip(confusion["true"], confusion["predicted"], strict=True)
    assert dict(zip(counted, confusion["count"], strict=True)) == dict(pairs)
    powers = np.exp(logits.double().numpy())
    sure = (powers / powers.sum(1, keepdims=True)).max(1)
    wrong = [index for index in range(60) if predicted[index] != labels[index]]
    worst = sorted(wrong, key=lambda index: -sure[index])[:8]
    mistakes = found["mistakes"]
    assert mistakes["probability"] == pytest.approx([sure[index] for index in worst], rel=1e-12)
    assert mistakes["true"] == [f"class {labels[index]}" for index in worst]
    assert mistakes["predicted"] == [f"class {predicted[index]}" for index in worst]
    assert mistakes["names"] == [f"image {index} of 60" for index in worst]
    for index, picture in zip(worst, mistakes["pictures"], strict=True):
        assert np.array_equal(decoded(picture), np.kron(images.images[index].permute(1, 2, 0), np.ones((16, 16, 1))))


def test_nothing_is_shown_where_nothing_is_wrong_and_without_images():
    labels = torch.arange(3)
    assert "mistakes" not in dict(outcomes(torch.eye(3), labels, images_of(labels, 3)))
    kept = Kept()
    dict(Accuracy([(torch.eye(3), labels)])(toy.identity(3), kept))
    assert kept.figures == {}


def test_of_very_many_classes_the_most_frequent_mistakes_are_kept():
    labels = torch.arange(300) % 150
    taken = (labels + 1) % 150
    taken[labels % 3 == 0] = labels[labels % 3 == 0]
    (_, (_, found), _) = outcomes(torch.eye(150)[taken], labels, images_of(labels, 150, channels=1))
    assert len(found["count"]) == 100
    assert set(found["count"]) == {2}
    assert all(p == (t + 1) % 150 for t, p in zip(found["true"], found["predicted"], strict=True))


def test_files_are_named_and_shown_as_the_network_sees_them(tmp_path):
    paths = []
    for name, shade in (("cat", 40), ("dog", 200)):
        (tmp_path / name).mkdir()
        paths.append(str(tmp_path / name / "1.png"))
        Image.new("RGB", (600, 300), (shade, 0, 0)).save(paths[-1])
    files = Files(tuple(paths), torch.tensor([0, 1]), ("cat", "dog"), image_size=224)
    found = dict(outcomes(torch.tensor([[0.0, 1.0], [0.0, 2.0]]), files.labels, files))["mistakes"]
    assert (found["names"], found["true"], found["predicted"]) == (["cat/1.png"], ["cat"], ["dog"])
    (picture,) = map(decoded, found["pictures"])
    assert picture.shape == (160, 160, 3)
    assert np.unique(picture.reshape(-1, 3), axis=0).tolist() == [[40, 0, 0]]


def test_small_files_keep_their_names_in_memory(tmp_path):
    photos(tmp_path / "pics", each=5)
    test = load(f"folder:{tmp_path / 'pics'}", image_size=8).test
    wrong = (test.labels + 1) % 3
    found = dict(outcomes(torch.eye(3)[wrong], test.labels, test))["mistakes"]
    assert len(found["names"]) >= 3
    assert [name.split("/")[0] for name in found["names"]] == found["true"]
    assert {len(list((tmp_path / "pics").rglob(name))) for name in found["names"]} == {1}


def test_labels_of_which_an_image_has_several_have_their_own_precision():
    labels = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 0]])
    logits = torch.tensor([[2.0, 3, 0], [1, 2, 0], [3, 1, 0]])
    kept, images = Kept(), images_of(labels, 3)
    dict(Accuracy([(logits, labels)], images=images)(torch.nn.Identity(), kept))
    # First label: ranked 3, 1, 2, of which the last two have it: (1/2 + 2/3) / 2. Second: ranked 1, 2, 3: the same.
    expected = (1 / 2 + 2 / 3) / 2
    assert kept.figures["labels"]["average_precision"] == [pytest.approx(expected), pytest.approx(expected), None]
    assert (kept.figures["labels"]["count"], len(kept.figures)) == ([2, 2, 0], 1)
