"""Wrong labels: does mixing help where a share of the training labels is wrong?

399 training images of scikit-learn's digits for 75 epochs, or 4,500 of CIFAR-10 at half their size for 60, others for
each seed; a share of all but the test images has the label of another class, drawn once for the whole set. Nothing is
tuned; seeds 0 to 7 are tested once on true labels.
Success, for each share: a form of ours above cross-entropy, the paired 95 % interval above 0, and in the mean no more
than 0.3 points below the best pairwise method.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import numpy as np

from comparison import RECOMMENDED
from multimix.lab.data import Images, load
from multimix.lab.recipes import Study, arms, cifar10_small, digits_few
from multimix.lab.train import CrossEntropy, TrainConfig
from multimix.methods import ERM, Alternate, CutMix, Mixup, MultiMix
from multimix.protocols import Method


def wrong(share: float) -> dict[str, np.ndarray]:
    """Return the images of ``digits-few``, a share of whose training labels is wrong."""
    splits = load("digits-few", validation=0.0)
    train, test = cast("Images", splits.train), cast("Images", splits.test)
    return {
        "train_images": train.images.numpy().squeeze(1),
        "train_labels": _changed(train.labels.numpy(), share),
        "test_images": test.images.numpy().squeeze(1),
        "test_labels": test.labels.numpy(),
    }


def wrong_photos(share: float) -> dict[str, np.ndarray]:
    """Return CIFAR-10 out of ``cifar10.npz`` in the current folder, a share of its training labels wrong."""
    arrays = dict(np.load("cifar10.npz"))
    return {
        "train_images": arrays["train_images"],
        "train_labels": _changed(arrays["train_labels"].reshape(-1).astype(np.int64), share),
        "test_images": arrays["test_images"],
        "test_labels": arrays["test_labels"].reshape(-1).astype(np.int64),
    }


def _changed(labels: np.ndarray, share: float) -> np.ndarray:
    draw = np.random.default_rng(0)
    hit = draw.permutation(len(labels))[: round(share * len(labels))]
    labels[hit] = (labels[hit] + draw.integers(1, 10, len(hit))) % 10
    return labels


def fifth() -> dict[str, np.ndarray]:
    """Return digits with 20 % wrong labels."""
    return wrong(0.2)


def two_fifths() -> dict[str, np.ndarray]:
    """Return digits with 40 % wrong labels."""
    return wrong(0.4)


def photos_fifth() -> dict[str, np.ndarray]:
    """Return CIFAR-10 with 20 % wrong labels."""
    return wrong_photos(0.2)


def photos_two_fifths() -> dict[str, np.ndarray]:
    """Return CIFAR-10 with 40 % wrong labels."""
    return wrong_photos(0.4)


def noise_20() -> Study:
    """20 % wrong labels on 399 digits: which loss or mixing is most accurate on true ones?"""
    return _study("noise-20", noise_20.__doc__ or "", _few("fifth"))


def noise_40() -> Study:
    """40 % wrong labels on 399 digits: which loss or mixing is most accurate on true ones?"""
    return _study("noise-40", noise_40.__doc__ or "", _few("two_fifths"))


def noise_photos_20() -> Study:
    """20 % wrong labels on 4,500 photographs: which loss or mixing is most accurate on true ones?"""
    return _study("noise-photos-20", noise_photos_20.__doc__ or "", _photos("photos_fifth"))


def noise_photos_40() -> Study:
    """40 % wrong labels on 4,500 photographs: which loss or mixing is most accurate on true ones?"""
    return _study("noise-photos-40", noise_photos_40.__doc__ or "", _photos("photos_two_fifths"))


def _few(data: str) -> TrainConfig:
    return replace(digits_few(), data=f"{__file__}:{data}", train_size=None, epochs=75, validate_every=75)


def _photos(data: str) -> TrainConfig:
    small = replace(cifar10_small(), image_size=16, crop_padding=2, width=16)
    return replace(small, data=f"{__file__}:{data}", split_seed=None, epochs=60, validate_every=60)


def _study(name: str, question: str, base: TrainConfig) -> Study:
    forms: dict[str, Method | Iterable[Method]] = {
        "erm": ERM(),
        "mixup": Mixup(alpha=1.0),
        "coin": Alternate((Mixup(alpha=1.0), CutMix())),
        "multimix": MultiMix(balanced=False),
        "multimix-recommended": RECOMMENDED,
    }
    chosen = arms(base, forms)
    smoothed = replace(chosen["erm"][0], label="smoothing", objective=CrossEntropy(label_smoothing=0.2))
    return Study(name=name, question=question.strip(), arms={**chosen, "smoothing": (smoothed,)}, seeds=8)
