"""Wrong labels: does mixing help where a share of the training labels is wrong?

399 training images of scikit-learn's digits, others for each seed; a share of all but the test images has the label of
another class, drawn once for the whole set. Nothing is tuned, 75 epochs, seeds 0 to 7, each tested once on true labels.
Success, for each share: a form of ours above cross-entropy, the paired 95 % interval above 0, and in the mean no more
than 0.3 points below the best pairwise method.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import numpy as np

from comparison import RECOMMENDED
from multimix.lab.data import Images, load
from multimix.lab.recipes import Study, arms, digits_few
from multimix.lab.train import CrossEntropy
from multimix.methods import ERM, Alternate, CutMix, Mixup, MultiMix
from multimix.protocols import Method


def wrong(share: float) -> dict[str, np.ndarray]:
    """Return the images of ``digits-few``, a share of whose training labels is wrong."""
    splits = load("digits-few", validation=0.0)
    train, test = cast("Images", splits.train), cast("Images", splits.test)
    labels, draw = train.labels.numpy(), np.random.default_rng(0)
    hit = draw.permutation(len(labels))[: round(share * len(labels))]
    labels[hit] = (labels[hit] + draw.integers(1, 10, len(hit))) % 10
    return {
        "train_images": train.images.numpy().squeeze(1),
        "train_labels": labels,
        "test_images": test.images.numpy().squeeze(1),
        "test_labels": test.labels.numpy(),
    }


def fifth() -> dict[str, np.ndarray]:
    """Return digits with 20 % wrong labels."""
    return wrong(0.2)


def two_fifths() -> dict[str, np.ndarray]:
    """Return digits with 40 % wrong labels."""
    return wrong(0.4)


def noise_20() -> Study:
    """20 % wrong labels on 399 digits: which loss or mixing is most accurate on true ones?"""
    return _study("noise-20", noise_20.__doc__ or "", "fifth")


def noise_40() -> Study:
    """40 % wrong labels on 399 digits: which loss or mixing is most accurate on true ones?"""
    return _study("noise-40", noise_40.__doc__ or "", "two_fifths")


def _study(name: str, question: str, data: str) -> Study:
    base = replace(digits_few(), data=f"{__file__}:{data}", train_size=None, epochs=75, validate_every=75)
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
