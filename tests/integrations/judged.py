"""What trainers are to train for and to judge by: objectives with targets, torch's own loss, and what is right."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

import multimix as mm

CLASSES = torch.arange(36) % 4
SOME = CLASSES.clone().index_fill_(0, torch.tensor([*range(9), 10, 35]), -100)  # a batch of 9 without any label
SEVERAL = torch.rand(36, 4, generator=torch.Generator().manual_seed(0)).round()
AMOUNTS = (0.5, 1.0, 4.0, 0.1)
ALL = {"label_smoothing": 0.2, "ignore_index": -100}


def weighted_loss(logits, labels, **options):
    return F.cross_entropy(logits, labels, torch.tensor(AMOUNTS), **options)


def right(logits, labels):
    labels = labels.argmax(1) if labels.is_floating_point() else labels
    return (logits.argmax(1) == labels)[labels >= 0]


def held(logits, labels):
    return (logits > 0) == labels.bool()


OBJECTIVES = {
    "classes": (None, CLASSES, F.cross_entropy, right),
    "probabilities": (None, SEVERAL.softmax(1), F.cross_entropy, right),
    "ignored": (mm.CrossEntropy(ignore_index=-100), SOME, F.cross_entropy, right),
    "weighted": (mm.CrossEntropy(AMOUNTS), CLASSES, weighted_loss, right),
    "all": (mm.CrossEntropy(AMOUNTS, **ALL), SOME, partial(weighted_loss, **ALL), right),
    "labels": (mm.BinaryCrossEntropy(), SEVERAL, F.binary_cross_entropy_with_logits, held),
    "values": (mm.SquaredError(), SEVERAL, F.mse_loss, None),
}
objectives = pytest.mark.parametrize(("objective", "targets", "loss", "hits"), OBJECTIVES.values(), ids=OBJECTIVES)


def of_weighted(logits, both):
    """The loss of examples that have weights, both in a row: (label, weight)."""
    losses = F.cross_entropy(logits, both[:, 0].long(), reduction="none")
    return (losses * both[:, 1]).sum() / both[:, 1].sum().clamp_min(1e-9)
