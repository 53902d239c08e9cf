"""What is measured is what each method trains on: its interpolations reproduce its own loss."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import toy
from multimix import SelfDistilled
from multimix.lab.evaluate.intrusion import LastStage, interpolate, places_of
from multimix.methods import (
    ERM,
    METHODS,
    AdaMixUp,
    AlignMix,
    Alternate,
    AutoMix,
    CoMixup,
    CutMix,
    DenseMultiMix,
    FMix,
    ManifoldMixup,
    Mixup,
    MultiMix,
    OptTransMix,
    PuzzleMix,
    ResizeMix,
    SaliencyMix,
    StyleCutMix,
    StyleMix,
    SuperMix,
    Until,
    ZetaMixup,
)
from multimix.ops import soft_cross_entropy
from multimix.protocols import declares

CLASSES, SIZE = 5, 12

WHOLE_BATCH: list[Any] = [
    Mixup(),
    Mixup(mode="elem"),
    CutMix(),
    ResizeMix(),
    FMix(),
    ZetaMixup(),
    ManifoldMixup(),
    ManifoldMixup(stages=(2,)),
    LastStage(),
    AlignMix(prob=1.0),
    AlignMix(prob=0.0),
    SaliencyMix(),
    PuzzleMix(),
    OptTransMix(),
    SuperMix(iterations=3),
    MultiMix(tuples=SIZE),
    MultiMix(tuples=SIZE, alpha=(0.5, 2.0), tuple_length=4),
    DenseMultiMix(tuples=SIZE),
    DenseMultiMix(tuples=SIZE, shared=True, query="cam", activation="softmax"),
]


def batch(seed: int = 3) -> tuple[Tensor, Tensor]:
    return toy.batch(SIZE, 3, 8, 8, classes=CLASSES, seed=seed)


def mixes(method: Any) -> bool:
    return declares(method, "mixes")


def mixed(method: Any, *, seed: int = 0, positions: int = 99, network: toy.Toy | None = None) -> Any:
    network = toy.images().eval() if network is None else network
    generator = Generator().manual_seed(seed)
    with torch.no_grad():
        return interpolate(
            method, network, *batch(), classes=CLASSES, generator=generator, positions=positions
        )


def moves_everything(method: Any) -> int:
    """Return a seed under which no example is left as it is, so that the loss is the mean over all of them."""
    return next(seed for seed in range(500) if (m := mixed(method, seed=seed)) and m.embeddings.shape[1] == SIZE)


@pytest.mark.parametrize("method", WHOLE_BATCH, ids=repr)
def test_interpolations_have_the_loss_that_the_method_trains_with(method):
    network, seed = toy.images().eval(), moves_everything(method)
    found = mixed(method, seed=seed)
    wanted = method(network, *batch(), generator=Generator().manual_seed(seed)).terms["labels"]
    ours = torch.stack(
        [
            soft_cross_entropy(network.classify(embeddings), weights)
            for embeddings, weights in zip(found.embeddings, found.weights, strict=True)
        ]
    )
    assert ours.mean().item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("method", [*WHOLE_BATCH, StyleMix(prob=1.0), StyleCutMix(), CoMixup()], ids=repr)
def test_weights_are_probabilities_of_every_embedding(method):
    found = mixed(copy.deepcopy(method))
    p, n, _ = found.embeddings.shape
    assert found.weights.shape == (p, n, CLASSES)
    assert n <= SIZE
    assert (found.weights >= 0).all()
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(p, n))
    assert not found.embeddings.requires_grad


def test_every_method_is_heard_of():
    """A new method needs a look here: what does it interpolate?"""
    covered = {type(method) for method in WHOLE_BATCH} | {StyleMix, StyleCutMix, CoMixup, ERM, AutoMix, AdaMixUp}
    assert covered >= set(METHODS)


@pytest.mark.parametrize("method", [AutoMix(), AdaMixUp()], ids=lambda m: m.name)
def test_methods_with_networks_of_their_own_count_once_these_are_there(method):
    network = toy.images().eval()
    assert not mixes(method)
    assert mixed(method) is None
    method.prepare(network)
    assert mixes(method)
    found = mixed(method, network=network)
    assert found.embeddings.shape[1] <= SIZE // 2  # the others are clean
    assert (found.weights < 1).any()


def test_what_a_method_leaves_as_it_is_does_not_count():
    """AutoMix mixes a third here; in mixup an example may be its own partner."""
    method = AutoMix(share=1 / 3)
    method.prepare(toy.images())
    assert mixed(method).embeddings.shape[1] <= 4
    kept = {seed: mixed(Mixup(), seed=seed).embeddings.shape[1] for seed in range(20)}
    own = {
        seed: int((torch.randperm(SIZE, generator=Generator().manual_seed(seed)) == torch.arange(SIZE)).sum())
        for seed in range(20)
    }
    assert kept == {seed: SIZE - count for seed, count in own.items()}
    assert max(own.values()) > 0


def test_a_draw_that_mixes_nothing_is_drawn_again():
    """Half of the steps are plain; that ten in a row are has a probability of 0.001."""
    assert all(mixed(CutMix(prob=0.5), seed=seed) for seed in range(20))
    assert mixed(CutMix(prob=0.0)) is None


@pytest.mark.parametrize(
    ("method", "inner"),
    [
        (SelfDistilled(MultiMix()), MultiMix()),
        (Until(Mixup(), 0.5), Mixup()),
        (SelfDistilled(Until(DenseMultiMix())), DenseMultiMix()),
    ],
    ids=lambda m: m.name,
)
def test_a_method_around_a_method_interpolates_as_that_one(method, inner):
    assert mixes(method)
    assert torch.equal(mixed(method).embeddings, mixed(inner).embeddings)


def test_of_several_methods_each_is_drawn():
    both = Alternate((DenseMultiMix(), Mixup()))
    kinds = [mixed(both, seed=seed).places is None for seed in range(40)]
    assert 10 < sum(kinds) < 30
    assert not mixes(Alternate((ERM(), ERM())))
    assert mixes(Alternate((ERM(), Mixup())))
    assert mixed(ERM()) is None


def test_some_positions_are_those_of_all():
    """With shared weights, what is left out changes nothing of the rest."""
    method = DenseMultiMix(shared=True)
    everywhere, somewhere = mixed(method), mixed(method, positions=3)
    assert everywhere.places == tuple(range(16))
    assert somewhere.places == (0, 8, 15)
    torch.testing.assert_close(somewhere.embeddings, everywhere.embeddings[[0, 8, 15]])
    torch.testing.assert_close(somewhere.weights, everywhere.weights[[0, 8, 15]])
    assert places_of(5, 8) == [0, 1, 2, 3, 4]
    assert places_of(7, 1) == [0]


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
    assert replace(Mixup(), mode="elem").alpha == 1
