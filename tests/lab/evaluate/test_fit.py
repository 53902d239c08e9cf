"""Fit: training images counted by hand, and what is said of the regime."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import one_hot

import toy
from evaluate.made import MEAN, STD, accuracy, images, normalised, source
from multimix.lab import about
from multimix.lab.evaluate import Fit, FitSettings


def test_training_images_are_counted_as_they_are():
    network, run = toy.images().eval(), source()
    fitted, tested = (
        accuracy(network, split.images / 255, split.labels) for split in (run.splits.train, run.splits.test)
    )
    found = dict(Fit.of(run, FitSettings())(network))
    assert found["train_accuracy"] == pytest.approx(fitted)
    assert found["gap"] == pytest.approx(fitted - tested)
    logp = network(normalised(run.splits.train.images / 255)).detach().double().log_softmax(1)
    nll = -logp[torch.arange(60), run.splits.train.labels].mean()
    assert found["train_nll"] == pytest.approx(nll.item(), rel=1e-5)


@pytest.mark.parametrize(("right", "said"), [(100, "over-fitted"), (99, "over-fitted"), (98, "under-fitted")])
def test_the_regime_is_told_by_training_accuracy(right, said):
    train = images(100, seed=2)
    wrong = replace(train, labels=torch.cat([train.labels[:right], (train.labels[right:] + 1) % 5]))
    known = {
        tuple(pixels.flatten().tolist()): int(label) for pixels, label in zip(train.images, train.labels, strict=True)
    }

    def network(inputs):
        """Knows the training images, and calls any other one an a."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        pixels = (255 * (std * inputs + mean)).round().int().flatten(1).tolist()
        return one_hot(torch.tensor([known.get(tuple(each), 0) for each in pixels]), 5).float()

    found = dict(Fit.of(source(train=wrong), FitSettings())(network))
    assert found["train_accuracy"] == pytest.approx(right / 100)
    sentence = about.SUITES["fit"].says(found)
    assert sentence.startswith(f"right about {right}.0 % of its training images and 20.0 % of test: {said}. ")


def test_as_many_training_images_as_asked_for():
    assert sum(len(labels) for _, labels in Fit.of(source(), FitSettings(train_examples=10)).train) == 10
