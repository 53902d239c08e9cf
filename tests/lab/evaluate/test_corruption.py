"""What holds for every corruption, and the suite: accuracies by hand, names, figure and progress."""

import pytest
import torch
from torch import Tensor

import toy
from evaluate.made import accuracy, photos, source
from listening import Kept
from multimix.lab.data import Images
from multimix.lab.evaluate.corruption import CORRUPTIONS, SEVERITIES, Corruption, CorruptionSettings, corrupt
from multimix.lab.evaluate.corruption.suite import LEVELS, level_of

NAMES = list(CORRUPTIONS)
CERTAIN = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
SIZES = (32, 64, 224)

# Their published parameters do not move pixels further with every step: those of elastic_transform trade shear for
# wobble, those of glass_blur blur for rounds, those of frost the image for ice; ImageNet's fog changes its shape.
UNORDERED = {("fog", 224), *((name, size) for name in ("elastic_transform", "glass_blur", "frost") for size in SIZES)}


def corrupted(pixels: Tensor, name: str, severity: int, *, first: int = 0, seed: int = 0) -> Tensor:
    return corrupt(pixels, name, severity, examples=range(first, first + len(pixels)), seed=seed)


def test_they_are_the_fifteen():
    assert tuple(NAMES) == (
        *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    )
    assert all(len(LEVELS[name][size]) == len(SEVERITIES) == 5 for name in NAMES for size in SIZES)


def test_the_shorter_side_says_whose_parameters_are_taken():
    for size, sides in {32: [(32, 32), (28, 300), (45, 45)], 64: [(46, 46), (120, 200)], 224: [(121, 121)]}.items():
        assert {level_of("snow", 2, *side) for side in sides} == {LEVELS["snow"][size][1]}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("severity", [1, 5])
def test_images_stay_images(name, severity):
    pixels, state = photos(32, 5).requires_grad_(), torch.get_rng_state()
    found = corrupted(pixels, name, severity)
    assert (found.shape, found.dtype, found.requires_grad) == (pixels.shape, pixels.dtype, False)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert torch.equal(pixels, photos(32, 5))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(found, pixels)


@pytest.mark.parametrize("name", NAMES)
def test_neither_the_batch_nor_the_order_matters(name):
    pixels = photos(32, 9)
    whole = corrupted(pixels, name, 4)
    ones = torch.cat([corrupted(pixels[i : i + 1], name, 4, first=i) for i in range(9)])
    torch.testing.assert_close(ones, whole, atol=2e-6, rtol=0)
    order = [7, 2, 5]
    torch.testing.assert_close(corrupt(pixels[order], name, 4, examples=order), whole[order], atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_random_depends_on_seed_and_example(name):
    pixels = photos(32, 1).expand(2, -1, -1, -1)
    first, second = corrupted(pixels, name, 5)
    other = corrupted(pixels, name, 5, seed=1)[0]
    assert torch.equal(first, second) == torch.equal(first, other) == (name in CERTAIN)


@pytest.mark.parametrize(("name", "size"), [(n, s) for n in NAMES for s in SIZES if (n, s) not in UNORDERED])
def test_each_severity_is_further_from_the_clean_images(name, size):
    pixels = photos(size, 24 if size < 224 else 2)
    distances = [float((corrupted(pixels, name, s) - pixels).square().mean()) for s in SEVERITIES]
    # CIFAR-10-C's motion blur has one step (3 to 4) that only lengthens a tail that is cut off.
    assert distances == pytest.approx(sorted(distances), rel=1e-4)
    assert distances[4] > 1.3 * distances[0] > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 8), (2, 4, 5), (3, 40, 70), (4, 33, 32)])
def test_any_size_and_any_channels_will_do(name, shape):
    pixels = torch.rand(2, *shape)
    for severity in (1, 5):
        found = corrupted(pixels, name, severity)
        assert found.shape == pixels.shape
        assert found.isfinite().all()
    assert corrupted(pixels[:0], name, 1).shape == (0, *shape)


@pytest.mark.parametrize("name", NAMES)
def test_precision_is_that_of_the_images(name):
    pixels = photos(32, 2)
    exact = corrupted(pixels.double(), name, 3)
    assert exact.dtype == torch.float64
    # A float32 flake at the threshold, a count at its border: a few pixels may differ.
    assert float(((exact - corrupted(pixels, name, 3)).abs() > 1e-4).double().mean()) < 2e-3
    assert corrupted(pixels.bfloat16(), name, 3).dtype == torch.bfloat16


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("pixels", "name", "severity", "message"),
    [
        (torch.zeros(1, 3, 8, 8), "rain", 1, "unknown corruption rain; known are gaussian_noise, "),
        (torch.zeros(1, 3, 8, 8), "fog", 0, "severity must be one of 1, 2, 3, 4, 5, got 0"),
        (torch.zeros(1, 3, 8, 8).byte(), "fog", 1, "pixels must be floating-point images .* got torch.uint8"),
        (torch.zeros(3, 8, 8), "fog", 1, r"got torch.float32 \(3, 8, 8\)"),
        (torch.zeros(1, 3, 3, 8), "fog", 1, "of at least 4 x 4 pixels"),
        (torch.zeros(2, 3, 8, 8), "fog", 1, "one position an image, got 1 for 2 images"),
        (torch.full((1, 3, 8, 8), 1.5), "fog", 1, r"pixels must lie in \[0, 1\], got 1.5 to 1.5"),
        (torch.full((1, 3, 8, 8), -0.1), "fog", 1, r"pixels must lie in \[0, 1\], got -0.1"),
        (torch.full((1, 3, 8, 8), torch.nan), "fog", 1, r"pixels must lie in \[0, 1\], got nan"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(pixels, name, severity, message):
    with pytest.raises(ValueError, match=message):
        corrupt(pixels, name, severity, examples=[0])


def test_its_accuracies_are_those_of_corrupted_images():
    run = source(Images((photos(32, 24) * 255).round().byte(), torch.arange(24) % 5, tuple("abcde")))
    network, monitor = toy.images(), Kept()
    chosen = CorruptionSettings(corruptions=("fog", "gaussian_noise"), severities=(5, 2), seed=3)
    found = dict(Corruption.of(run, chosen)(network, monitor))
    pixels = torch.cat([images for images, _ in run.pixels(run.test())])
    labels = run.splits.test.labels
    expected = {"clean/accuracy": accuracy(network, pixels, labels)}
    for name in ("fog", "gaussian_noise"):
        for severity in (5, 2):
            corrupted = corrupt(pixels, name, severity, examples=range(24), seed=3)
            expected[f"{name}/{severity}/accuracy"] = accuracy(network, corrupted, labels)
        expected[f"{name}/accuracy"] = (expected[f"{name}/5/accuracy"] + expected[f"{name}/2/accuracy"]) / 2
    expected["mean/accuracy"] = (expected["fog/accuracy"] + expected["gaussian_noise/accuracy"]) / 2
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=1e-12)
    assert monitor.passes == ["clean", "fog 5", "fog 2", "gaussian_noise 5", "gaussian_noise 2"]
    assert monitor.figures["corruption"] == {
        "corruptions": ["fog", "gaussian_noise"],
        "severities": [5, 2],
        "accuracy": [[found[f"{name}/{s}/accuracy"] for s in (5, 2)] for name in ("fog", "gaussian_noise")],
        "clean": found["clean/accuracy"],
        "examples": 24,
    }
