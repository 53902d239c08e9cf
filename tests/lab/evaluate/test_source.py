"""What a run offers its suites: batches, pixels, and numbers that belong to an example."""

import pytest
import torch

import toy
from multimix.lab.data import Images, Splits
from multimix.lab.evaluate import Normalised, Source
from multimix.lab.evaluate.predict import per_example
from multimix.methods import ERM


@pytest.fixture
def source() -> Source:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (30, 3, 4, 4), generator=generator, dtype=torch.uint8)
    part = Images(images, torch.arange(30) % 5, tuple("abcde"))
    splits = Splits("random", part, None, part, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    return Source(splits, ERM(), torch.device("cpu"), batch_size=8)


def test_pixels_are_those_of_the_set_in_its_order(source):
    for _ in range(2):  # batches start over
        pixels = torch.cat([images for images, _ in source.pixels(source.test())])
        assert torch.equal((pixels * 255).round().byte(), source.splits.test.images)
        assert (pixels.min() >= 0, pixels.max() <= 1) == (True, True)
    labels = torch.cat([labels for _, labels in source.batches(source.test())])
    assert torch.equal(labels, source.splits.test.labels)


def test_normalised_pixels_are_the_batches(source):
    network = Normalised(toy.images(), source.splits.mean, source.splits.std)
    pairs = zip(source.pixels(source.test()), source.batches(source.test()), strict=True)
    for (pixels, _), (inputs, _) in pairs:
        torch.testing.assert_close(network.normalise(pixels), inputs, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(network.eval()(pixels), network.network(inputs), rtol=1e-5, atol=1e-5)


def test_fewer_examples_keep_the_shares_of_the_classes(source):
    fewer = source.test(10)
    assert torch.bincount(fewer.labels).tolist() == [2] * 5
    assert len(source.test(30)) == len(source.test()) == 30


@pytest.mark.bad_input
def test_examples_that_do_not_fit_are_refused(source):
    for wanted in (4, 31):
        with pytest.raises(ValueError, match=f"examples={wanted} does not fit: {wanted} of 30 images cannot hold"):
            source.test(wanted)


@pytest.mark.bad_input
@pytest.mark.parametrize(("mean", "std"), [((0.0,), (1.0, 1.0)), ((0.0,), (0.0,)), ((0.0,), (float("nan"),))])
def test_statistics_that_cannot_be_are_refused(mean, std):
    with pytest.raises(ValueError, match="mean and std must have one number a channel, std above 0, got"):
        Normalised(toy.images(), mean, std)


def test_draws_belong_to_examples_and_not_to_batches():
    def draw(generator: torch.Generator) -> torch.Tensor:
        return torch.rand(2, 3, generator=generator)

    whole = per_example(draw, range(9), seed=3, device=torch.device("cpu"))
    parts = [per_example(draw, range(at, min(at + 4, 9)), seed=3, device=torch.device("cpu")) for at in range(0, 9, 4)]
    assert torch.equal(torch.cat(parts), whole)
    assert len(whole.flatten().unique()) == whole.numel()
    assert not torch.equal(per_example(draw, range(9), seed=4, device=torch.device("cpu")), whole)
