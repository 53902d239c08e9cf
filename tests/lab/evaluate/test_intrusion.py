"""What each method interpolates, against its own loss; the intrusion suite, by hand and against a loop in NumPy."""

import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

import toy
from evaluate.made import source
from listening import Kept
from multimix import SelfDistilled, methods
from multimix.lab.evaluate import IntrusionSettings
from multimix.lab.evaluate.intrusion import Interpolated, Intrusion, LastStage, References, interpolate, places_of
from multimix.methods import ERM, METHODS, Alternate, AutoMix, CutMix, DenseMultiMix, Mixup, MultiMix, StyleMix, Until
from multimix.methods._predict import PairMixing, Predicts
from multimix.ops import soft_cross_entropy
from multimix.protocols import declares

CLASSES, SIZE = 5, 12

WHOLE_BATCH: list[Any] = [
    *(Mixup(), Mixup(mode="elem"), CutMix(), methods.ResizeMix(), methods.FMix(), methods.ZetaMixup()),
    *(methods.ManifoldMixup(), methods.ManifoldMixup(stages=(2,)), LastStage()),
    *(methods.AlignMix(prob=1.0), methods.AlignMix(prob=0.0), methods.SaliencyMix(), methods.PuzzleMix()),
    *(methods.OptTransMix(), methods.SuperMix(iterations=3), methods.SnapMix(weighted=False)),
    *(MultiMix(tuples=SIZE), MultiMix(tuples=SIZE, alpha=(0.5, 2.0), tuple_length=4)),
    *(DenseMultiMix(tuples=SIZE), DenseMultiMix(tuples=SIZE, shared=True, query="cam", activation="softmax")),
]
PARTS = [methods.RecursiveMix(), StyleMix(prob=1.0), methods.StyleCutMix(), methods.CoMixup(), methods.MixupPath()]
OWN_NETWORKS = [AutoMix(), methods.AdaMixUp()]
SETTLED = {ERM, methods.AugMix, *map(type, [*WHOLE_BATCH, *PARTS, *OWN_NETWORKS])}
WHOLE_BATCH += [cls() for cls in METHODS if cls not in SETTLED]  # as a new method is tried, unless it stands above


def batch(seed: int = 3) -> tuple[Tensor, Tensor]:
    return toy.batch(SIZE, 3, 8, 8, classes=CLASSES, seed=seed)


def mixed(method: Any, *, seed: int = 0, positions: int = 99, network: toy.Toy | None = None) -> Any:
    network = toy.images().eval() if network is None else network
    generator = Generator().manual_seed(seed)
    with torch.no_grad():
        return interpolate(method, network, *batch(), classes=CLASSES, generator=generator, positions=positions)


def moves_everything(method: Any) -> int:
    """Return a seed under which no example is left as it is, so that the loss is the mean over all of them."""
    return next(seed for seed in range(500) if (m := mixed(method, seed=seed)) and m.embeddings.shape[1] == SIZE)


@pytest.mark.parametrize("method", WHOLE_BATCH, ids=repr)
def test_interpolations_have_the_loss_that_the_method_trains_with(method):
    network, seed = toy.images().eval(), moves_everything(method)
    found = mixed(method, seed=seed)
    wanted = method(network, *batch(), generator=Generator().manual_seed(seed)).terms["labels"]
    ours = soft_cross_entropy(network.classify(found.embeddings.flatten(0, 1)), found.weights.flatten(0, 1))
    assert ours.item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("method", [*WHOLE_BATCH, *PARTS], ids=repr)
def test_weights_are_probabilities_of_every_embedding(method):
    found = mixed(copy.deepcopy(method))
    p, n, _ = found.embeddings.shape
    assert found.weights.shape == (p, n, CLASSES)
    assert n <= SIZE
    assert (found.weights >= 0).all()
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(p, n))
    assert not found.embeddings.requires_grad


@pytest.mark.parametrize("method", OWN_NETWORKS, ids=lambda m: m.name)
def test_methods_with_networks_of_their_own_count_once_these_are_there(method):
    network = toy.images().eval()
    assert not declares(method, "mixes")
    assert mixed(method) is None
    method.prepare(network)
    assert declares(method, "mixes")
    found = mixed(method, network=network)
    assert found.embeddings.shape[1] <= SIZE // 2  # the others are clean
    assert (found.weights < 1).any()


def test_what_a_method_leaves_as_it_is_does_not_count():
    """AutoMix mixes a third here; in mixup an example may be its own partner."""
    method, network = AutoMix(share=1 / 3), toy.images().eval()
    method.prepare(network)
    assert mixed(method, network=network).embeddings.shape[1] <= 4
    partners = [torch.randperm(SIZE, generator=Generator().manual_seed(seed)) for seed in range(20)]
    moved = [int((places != torch.arange(SIZE)).sum()) for places in partners]
    assert [mixed(Mixup(), seed=seed).embeddings.shape[1] for seed in range(20)] == moved
    assert min(moved) < SIZE


def test_a_draw_that_mixes_nothing_is_drawn_again():
    """Half of the steps are plain; that ten in a row are has a probability of 0.001."""
    assert all(mixed(CutMix(prob=0.5), seed=seed) for seed in range(20))
    assert mixed(CutMix(prob=0.0)) is None


@pytest.mark.parametrize("inner", [Mixup(), MultiMix(), DenseMultiMix()], ids=lambda m: m.name)
def test_a_method_around_a_method_interpolates_as_that_one(inner):
    method = SelfDistilled(Until(inner, 0.5))
    assert declares(method, "mixes")
    assert torch.equal(mixed(method).embeddings, mixed(inner).embeddings)


def test_of_several_methods_each_is_drawn():
    both = Alternate((DenseMultiMix(), Mixup()))
    kinds = [mixed(both, seed=seed).places is None for seed in range(40)]
    assert 10 < sum(kinds) < 30
    assert not declares(Alternate((ERM(), ERM())), "mixes")
    assert declares(Alternate((ERM(), Mixup())), "mixes")
    assert mixed(ERM()) is None


def test_some_positions_are_those_of_all():
    """With shared weights, what is left out changes nothing of the rest."""
    method = DenseMultiMix(shared=True)
    everywhere, somewhere = mixed(method), mixed(method, positions=3)
    assert everywhere.places == tuple(range(16))
    assert somewhere.places == (0, 8, 15)
    torch.testing.assert_close(somewhere.embeddings, everywhere.embeddings[[0, 8, 15]])
    torch.testing.assert_close(somewhere.weights, everywhere.weights[[0, 8, 15]])
    assert (places_of(5, 8), places_of(7, 1)) == ([0, 1, 2, 3, 4], [0])


def test_the_baseline_pairs_as_mixup_does():
    """Same generator, same pairs and lambdas: only where the two mix differs."""
    seed = moves_everything(Mixup(mode="elem"))
    first, second = mixed(Mixup(mode="elem"), seed=seed), mixed(LastStage(), seed=seed)
    assert torch.equal(first.weights, second.weights)
    assert not torch.allclose(first.embeddings, second.embeddings)
    network, (inputs, _) = toy.images().eval(), batch()
    clean = network.pool(network.embed(inputs))
    partners = torch.randperm(SIZE, generator=Generator().manual_seed(seed))
    step, way = second.embeddings[0] - clean, clean[partners] - clean
    share = (step * way).sum(1) / way.square().sum(1)
    torch.testing.assert_close(step, share[:, None] * way, atol=1e-5, rtol=1e-4)  # the last stage is pooled linearly
    assert Mixup().alpha == 1


FEW = IntrusionSettings(mixing_batches=3, mixing_batch=20, positions=2)


@dataclass(frozen=True)
class Halfway(Predicts):
    """The first example of each mini-batch with the second, and so on around."""

    name: ClassVar[str] = "halfway"

    def draw(self, network, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        return PairMixing(torch.arange(len(inputs)).roll(-1), torch.tensor(0.5))


def test_three_classes_on_a_line_by_hand():
    """Halfway between class 0 at x = 0 and class 1 at x = 10 lies class 2, at x = 5.5 and y = 0."""
    points = torch.tensor([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0], [5.5, 0.0, 0.0], [0.0, 1.0, 0.0], [10.0, 2.0, 0.0]])
    labels, monitor = torch.tensor([0, 1, 2, 0, 1]), Kept()
    mixing = [(points[:2], labels[:2]), (points[[0, 3]], labels[[0, 3]])]
    found = dict(Intrusion([(points, labels)], mixing, 3, Halfway())(toy.identity(3), monitor))
    scale = (1 + 2 + 4.5 + 1 + 2) / 5  # how far the nearest others of the clean ones are
    assert found["clean/intrusion_rate"] == pytest.approx(1 / 5)
    # (5, 0) twice, nearest (5.5, 0) of class 2; (0, 0.5) twice, nearest a mixed one, at 0.5.
    for name, value in {"intrusion_rate": 1 / 2, "nearest_class_weight": 1 / 2, "distance": 0.5 / scale}.items():
        assert found[f"own/{name}"] == pytest.approx(value)
    assert sum(monitor.figures["intrusion"]["own"]) == pytest.approx(1)


def test_it_is_a_search_among_all_clean_embeddings_of_a_position():
    generator = torch.Generator().manual_seed(3)
    clean, labels = torch.randn(3, 30, 4, generator=generator), torch.arange(30) % 5
    mixed = torch.randn(3, 17, 4, generator=generator)
    shares = torch.rand(3, 17, 5, generator=generator).mul(4).softmax(-1)
    far, weight = References(clean, labels).find(Interpolated(mixed, shares))
    apart = [torch.cdist(values, values).fill_diagonal_(torch.inf).amin(1) for values in clean]
    found = torch.cdist(mixed, clean).min(2)
    torch.testing.assert_close(far.float(), (found.values / torch.cat(apart).mean()).flatten())
    own = shares.gather(2, labels[found.indices].unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(weight, own.flatten().double())


@pytest.mark.parametrize("method", [ERM(), Mixup(), DenseMultiMix(), Alternate((DenseMultiMix(), Mixup()))])
def test_metrics_passes_and_figure_have_the_names_they_should(method):
    monitor = Kept()
    found = dict(Intrusion.of(source(60, method=method), FEW)(toy.images(), monitor))
    names = ["own", "mixup", "manifold-mixup", "multimix"][isinstance(method, ERM) :]
    kinds = ["intrusion_rate", "nearest_class_weight", "distance"]
    assert list(found) == ["clean/intrusion_rate", *(f"{name}/{kind}" for name in names for kind in kinds)]
    assert all(np.isfinite(value) for value in found.values())
    assert monitor.passes == ["clean", *names]
    figure = monitor.figures["intrusion"]
    assert list(figure) == ["edges", "clean", *names]
    assert (len(figure["edges"]), figure["edges"][0]) == (51, 0)
    for name in ("clean", *names):
        assert (len(figure[name]), sum(figure[name])) == (50, pytest.approx(1))


def test_the_mini_batches_are_those_of_the_settings():
    suites = [Intrusion.of(source(60, method=Mixup()), replace(FEW, seed=seed)) for seed in (0, 0, 1)]
    assert [len(labels) for _, labels in suites[0].mixing] == [20, 20, 20]
    first, again, other = (torch.cat([inputs for inputs, _ in suite.mixing]) for suite in suites)
    assert len(first[:20].unique(dim=0)) == 20  # no image twice in one
    assert torch.equal(first, again)
    assert not torch.equal(first[:20], other[:20])
    with pytest.raises(ValueError, match="mixing_batch=61 must be from 2 to 60, as there are only 60 test images"):
        Intrusion.of(source(60, method=Mixup()), IntrusionSettings(mixing_batch=61))


@pytest.mark.parametrize("method", [MultiMix(), StyleMix(prob=1.0)], ids=lambda m: m.name)
def test_twice_the_same(method):
    """StyleMix's autoencoder learns from what it mixes: it must not remember."""
    network, suite = toy.images(), Intrusion.of(source(60, method=method), FEW)
    assert dict(suite(network)) == dict(suite(network))


def test_a_method_whose_own_modules_are_lost_is_left_out_and_said_so():
    served = [(torch.rand(20, 3, 8, 8), torch.arange(20) % 5)]
    with pytest.warns(UserWarning, match="own is left out: what automix learned beside the network is not in the run"):
        found = dict(Intrusion(served, served, 5, Alternate((AutoMix(), Mixup())))(toy.images()))
    assert {name.partition("/")[0] for name in found} == {"clean", "mixup", "manifold-mixup", "multimix"}


def test_where_all_embeddings_are_the_same_there_is_no_distance():
    served, monitor = [(torch.ones(20, 3), torch.arange(20) % 3)], Kept()
    with pytest.warns(UserWarning, match="intrusion: mixup left 1 of 1 mini-batches as they were, which do not count"):
        found = dict(Intrusion(served, served, 3, ERM())(toy.identity(3), monitor))
    assert not any(name.endswith("distance") for name in found)
    assert monitor.figures == {}
