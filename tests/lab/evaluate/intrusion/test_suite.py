"""The intrusion suite: by hand, against a loop in NumPy, and what it must not depend on."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

import toy
from listening import Kept
from multimix.lab.data import Images, Splits
from multimix.lab.evaluate import Source
from multimix.lab.evaluate.intrusion import Interpolated, Intrusion, IntrusionSettings, References
from multimix.methods import ERM, Alternate, DenseMultiMix, Mixup, MultiMix, StyleMix
from multimix.methods._predict import Predicts
from multimix.methods.mixup import Pairing

FEW = IntrusionSettings(mixing_batches=3, mixing_batch=20, positions=2)


@dataclass(frozen=True)
class Halfway(Predicts):
    """The first example of each mini-batch with the second, and so on around."""

    name: ClassVar[str] = "halfway"

    def draw(self, network, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Pairing:
        return Pairing(torch.arange(len(inputs)).roll(-1), torch.tensor(0.5))


def source(method: Any = None, *, batch_size: int = 7, n: int = 60) -> Source:
    pixels = torch.randint(256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    part = Images(pixels, torch.arange(n) % 5, tuple("abcde"))
    splits = Splits("made", part, None, part, (0.5,) * 3, (0.25,) * 3)
    return Source(splits, method or Mixup(), torch.device("cpu"), batch_size=batch_size)


def test_three_classes_on_a_line_by_hand():
    """Halfway between class 0 at x = 0 and class 1 at x = 10 lies class 2, at x = 5.5 and y = 0."""
    points = torch.tensor([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0], [5.5, 0.0, 0.0], [0.0, 1.0, 0.0], [10.0, 2.0, 0.0]])
    labels = torch.tensor([0, 1, 2, 0, 1])
    mixing = [(points[:2], labels[:2]), (points[[0, 3]], labels[[0, 3]])]
    suite = Intrusion([(points, labels)], mixing, 3, Halfway())
    monitor = Kept()
    found = dict(suite(toy.identity(3), monitor))
    # Nearest others of the clean ones: 1, 2, 4.5 (the means of 0.. and 10.. are 5.5 and 4.5 away), 1, 2.
    scale = (1 + 2 + 4.5 + 1 + 2) / 5
    assert found["clean/intrusion_rate"] == pytest.approx(1 / 5)
    # (5, 0) twice, nearest (5.5, 0) of class 2; (0, 0.5) twice, nearest a mixed one, at 0.5.
    assert found["own/intrusion_rate"] == pytest.approx(1 / 2)
    assert found["own/nearest_class_weight"] == pytest.approx(1 / 2)
    assert found["own/distance"] == pytest.approx(0.5 / scale)
    assert sum(monitor.figures["intrusion"]["own"]) == pytest.approx(1)


def loop(mixed: Interpolated, clean: np.ndarray, labels: np.ndarray, threshold: float) -> tuple[float, float, float]:
    """Return rate, weight and distance, each over all positions, in NumPy."""
    apart = [
        min(np.linalg.norm(values[i] - values[j]) for j in range(len(values)) if j != i)
        for values in clean
        for i in range(len(values))
    ]
    rate, weights, far = [], [], []
    for values, shares, there in zip(mixed.embeddings.numpy(), mixed.weights.numpy(), clean, strict=True):
        for value, share in zip(values, shares, strict=True):
            distances = [np.linalg.norm(value - other) for other in there]
            kind = labels[int(np.argmin(distances))]
            rate.append(share[kind] < threshold)
            weights.append(share[kind])
            far.append(min(distances) / np.mean(apart))
    return float(np.mean(rate)), float(np.mean(weights)), float(np.mean(far))


@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("threshold", [0.01, 0.3])
def test_it_is_a_search_among_all_clean_embeddings(positions, threshold):
    generator = torch.Generator().manual_seed(positions)
    clean, labels = torch.randn(positions, 30, 4, generator=generator), torch.arange(30) % 5
    mixed = Interpolated(
        torch.randn(positions, 17, 4, generator=generator),
        torch.rand(positions, 17, 5, generator=generator).mul(4).softmax(-1),
    )
    references = References.of([clean[:, :11], clean[:, 11:]], labels)
    far, weight = references.find(mixed)
    wanted = loop(mixed, clean.numpy(), labels.numpy(), threshold)
    found = (float((weight < threshold).double().mean()), float(weight.mean()), float(far.mean()))
    assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("method", [Mixup(), MultiMix(), DenseMultiMix(), Alternate((DenseMultiMix(), Mixup()))])
def test_metrics_passes_and_figure_have_the_names_they_should(method):
    monitor = Kept()
    found = dict(Intrusion.of(source(method), FEW)(toy.images(), monitor))
    names = ["own", "mixup", "manifold-mixup", "multimix"]
    kinds = ["intrusion_rate", "nearest_class_weight", "distance"]
    assert list(found) == ["clean/intrusion_rate", *(f"{name}/{kind}" for name in names for kind in kinds)]
    assert all(np.isfinite(value) for value in found.values())
    assert monitor.passes == ["clean", *names]
    figure = monitor.figures["intrusion"]
    assert list(figure) == ["edges", "clean", *names]
    assert len(figure["edges"]) == 51
    for name in ("clean", *names):
        assert len(figure[name]) == 50
        assert sum(figure[name]) == pytest.approx(1)
    assert figure["edges"][0] == 0


def test_a_method_that_mixes_nothing_has_no_own_metrics():
    monitor = Kept()
    found = dict(Intrusion.of(source(ERM()), FEW)(toy.images(), monitor))
    assert not any(name.startswith("own/") for name in found)
    assert "own" not in monitor.figures["intrusion"]


@pytest.mark.parametrize("size", [1, 60])
def test_no_metric_depends_on_the_batch_size(size):
    method = Alternate((DenseMultiMix(), Mixup()))
    wanted = dict(Intrusion.of(source(method), FEW)(toy.images()))
    assert dict(Intrusion.of(source(method, batch_size=size), FEW)(toy.images())) == pytest.approx(wanted, rel=1e-4)


def test_the_mini_batches_are_those_of_the_settings():
    suite = Intrusion.of(source(), FEW)
    sizes = [len(labels) for _, labels in suite.mixing]
    assert sizes == [20, 20, 20]
    images = torch.cat([inputs for inputs, _ in suite.mixing]).flatten(1)
    assert len(images[:20].unique(dim=0)) == 20  # no image twice in one
    again = Intrusion.of(source(), FEW)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(suite.mixing, again.mixing, strict=True))
    other = Intrusion.of(source(), replace(FEW, seed=1))
    assert not torch.equal(next(iter(other.mixing))[0], next(iter(suite.mixing))[0])


@pytest.mark.parametrize("method", [MultiMix(), StyleMix(prob=1.0)], ids=lambda m: m.name)
def test_twice_the_same_and_the_network_as_it_was(method):
    """StyleMix's autoencoder learns from what it mixes: it must not remember."""
    network = toy.images().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    suite = Intrusion.of(source(method), FEW)
    assert dict(suite(network)) == dict(suite(network))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_higher_the_threshold_the_more_classes_are_third_ones():
    rates = [
        dict(Intrusion.of(source(), replace(FEW, threshold=t))(toy.images()))["own/intrusion_rate"]
        for t in (1e-6, 0.2, 1.0)
    ]
    assert rates == sorted(rates)
    assert rates[0] < rates[2]


def test_where_all_embeddings_are_the_same_there_is_no_distance():
    points, labels = torch.ones(20, 3), torch.arange(20) % 3
    monitor = Kept()
    suite = Intrusion([(points, labels)], [(points, labels)], 3, ERM())
    found = dict(suite(toy.identity(3), monitor))
    assert not any(name.endswith("distance") for name in found)
    assert monitor.figures == {}


@pytest.mark.bad_input
def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="mixing_batch=128 must be at most 60"):
        Intrusion.of(source(), IntrusionSettings())
    with pytest.raises(ValueError, match="mixing_batch must be at least 2, got 1"):
        IntrusionSettings(mixing_batch=1)
    with pytest.raises(ValueError, match="mixing_batches must be at least 1, got 0"):
        IntrusionSettings(mixing_batches=0)
    with pytest.raises(ValueError, match=r"threshold must lie in \(0, 1\], got 0"):
        IntrusionSettings(threshold=0)
