"""Methods on networks that are trained for something else than one class an example, and on inputs of other forms."""

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import cases
import references
import toy
from multimix.distill import SelfDistilled
from multimix.methods import (
    ERM,
    METHODS,
    Alternate,
    AutoMix,
    Chain,
    DenseMultiMix,
    ManifoldMixup,
    Mixup,
    MultiMix,
    PuzzleMix,
)
from multimix.ops import BinaryCrossEntropy, CrossEntropy, SquaredError
from multimix.protocols import EncoderOutput
from toy import seeded

TUPLES = 40
LEARNS_FOR_CLASSES = {"augmix", "automix", "stylecutmix", "decoupled-mixup"}
"""A divergence of class distributions, styles of classes, and classes that do not compete."""
TRAINABLE = [
    *(cls(**cases.settings_of(cls)) for cls in METHODS if cls.name not in LEARNS_FOR_CLASSES),
    Chain(Mixup(), MultiMix(TUPLES)),
    Alternate((Mixup(), MultiMix(TUPLES))),
]


def images(objective, **options):
    network, *batch = cases.images(**options)
    network.objective = objective
    return network, *batch


OBJECTIVES = {
    "weights": (CrossEntropy(class_weights=(1.0, 2.0, 0.5, 3.0, 1.0)), lambda y: y),
    "smooth": (CrossEntropy(label_smoothing=0.1), lambda y: y),
    "ignoring": (CrossEntropy(ignore_index=-100), lambda y: torch.where(y == y[0], -100, y)),
    "labels": (BinaryCrossEntropy(), lambda y: (torch.arange(5) >= y.unsqueeze(1)).float()),
    "values": (SquaredError(), lambda y: y.unsqueeze(1) - torch.arange(5.0)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("method", TRAINABLE, ids=lambda method: method.name)
@pytest.mark.parametrize("taught", [False, True])
def test_every_method_trains_for_every_objective(method, name, taught):
    objective, targets_of = OBJECTIVES[name]
    network, inputs, targets = images(objective)
    method = SelfDistilled(method) if taught else copy.deepcopy(method)
    losses = method(network, inputs, targets_of(targets), generator=seeded())
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize(
    ("method", "name"),
    # With an affine head the dense form leaves ignored images out of tuples, without one their labels only.
    [(MultiMix(TUPLES), name) for name in OBJECTIVES]
    + [(DenseMultiMix(TUPLES), name) for name in OBJECTIVES if name != "ignoring"],
    ids=str,
)
def test_an_affine_head_may_be_unknown(method, name):
    objective, targets_of = OBJECTIVES[name]
    totals = []
    for affine in (True, False):
        network, inputs, targets = images(objective, affine=affine)
        totals.append(method(network, inputs, targets_of(targets), generator=seeded()).total)
    torch.testing.assert_close(*totals)


def test_mixup_mixes_values():
    network, inputs, _ = images(SquaredError())
    targets, method = torch.randn(7, 5, generator=seeded()), Mixup(alpha=1.0)
    drawn = method.draw(network, inputs, targets, seeded(3))
    mixed = [references.pairs(values, drawn.partners, float(drawn.lam)).float() for values in (inputs, targets)]
    ours = method(network, inputs, targets, generator=seeded(3)).total
    torch.testing.assert_close(ours, nn.functional.mse_loss(network(mixed[0]), mixed[1]))


@pytest.mark.parametrize("method", [ERM(), MultiMix(TUPLES, clean=0.5), DenseMultiMix(TUPLES)], ids=str)
def test_regression_with_one_output_takes_plain_numbers(method):
    network, inputs, _ = images(SquaredError(), classes=1)
    targets = torch.randn(7, generator=seeded())
    flat, column = (method(network, inputs, t, generator=seeded()).total for t in (targets, targets.unsqueeze(1)))
    torch.testing.assert_close(flat, column)


class Tagger(toy.Toy):
    """Token indices to embeddings, with a mask from their own padding; pooled over what is there."""

    def __init__(self, d=6, classes=5):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(nn.Embedding(11, d), nn.Linear(d, d), width=d, classes=classes)

    def embed(self, inputs):
        tokens = inputs["tokens"] if isinstance(inputs, Mapping) else inputs
        hidden = tokens
        for block in self.blocks:
            hidden = block(hidden)
        return EncoderOutput(hidden, tokens != 0)

    def pool(self, output):
        if output.features.shape[1] == 1:
            return output.features.squeeze(1)
        weights = output.mask / output.mask.sum(1, keepdim=True)
        return torch.einsum("br,brd->bd", weights, output.features)


def sentences(length=6):
    lengths = torch.tensor([2, 6, 3, 5, 1, 4, 6])
    tokens = torch.randint(1, 11, (7, length), generator=seeded(1))
    return torch.where(torch.arange(length) < lengths.unsqueeze(1), tokens, 0), torch.tensor([0, 1, 2, 3, 4, 0, 1])


METHODS_OF_EMBEDDINGS = {
    "erm": ERM(),
    "multimix": MultiMix(TUPLES),
    "dense": DenseMultiMix(TUPLES),
    "dense-shared": DenseMultiMix(TUPLES, shared=True, balanced=True, alpha=0.5),
    "dense-short": DenseMultiMix(TUPLES, tuple_length=2),
    "dense-softmax": DenseMultiMix(TUPLES, activation="softmax", query="cam", clean=0.5),
    "manifold": ManifoldMixup(stages=(0, 1, 2)),
}


@pytest.mark.parametrize("name", METHODS_OF_EMBEDDINGS)
@pytest.mark.parametrize("taught", [False, True])
def test_sequences_of_different_length(name, taught):
    network, (tokens, targets) = Tagger(), sentences()
    method = METHODS_OF_EMBEDDINGS[name]
    method = SelfDistilled(method) if taught else method
    losses = method(network, {"tokens": tokens}, targets, generator=seeded())
    losses.total.backward()
    assert losses.total.isfinite()
    gradient = network.blocks[1].weight.grad
    assert torch.equal(gradient[0], torch.zeros(6)) or name == "manifold"  # of padding, which nothing may depend on
    assert gradient[1:].abs().sum() > 0


@pytest.mark.parametrize("name", [name for name in METHODS_OF_EMBEDDINGS if name != "manifold"] + ["label maps"])
def test_more_padding_changes_nothing(name):
    """For labels at every position either: they are those of the positions that some sequence has."""
    (tokens, targets), totals = sentences(), []
    labels = torch.randint(5, tokens.shape, generator=seeded(2))
    for more in (0, 5):
        network, padded = Tagger(), nn.functional.pad(tokens, (0, more))
        if name == "label maps":
            network.pool, targets = (lambda output: output.features), nn.functional.pad(labels, (0, more))
        method = METHODS_OF_EMBEDDINGS.get(name, DenseMultiMix(TUPLES))
        totals.append(method(network, padded, targets, generator=seeded()).total)
    torch.testing.assert_close(*totals)


def test_packed_sequences_are_counted():
    class Packed(Tagger):
        def embed(self, inputs):
            padded, _ = nn.utils.rnn.pad_packed_sequence(inputs, batch_first=True)
            return super().embed(padded)

    tokens, targets = sentences()
    packed = pack_sequence([row[row != 0] for row in tokens], enforce_sorted=False)
    ours = DenseMultiMix(TUPLES)(Packed(), packed, targets, generator=seeded()).total
    theirs = DenseMultiMix(TUPLES)(Tagger(), tokens, targets, generator=seeded()).total
    torch.testing.assert_close(ours, theirs)


class Segmenter(toy.Toy):
    """Logits at every position of a map half as large as the image."""

    def __init__(self, objective=None):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(nn.Conv2d(3, 6, 3, stride=2, padding=1), width=6, classes=5)
        self.objective = objective

    def embed(self, inputs):
        return EncoderOutput(super().embed(inputs), grid=(3, 4))

    def pool(self, output):
        return output.features


MAPPERS = {
    "erm": ERM(),
    "mixup": Mixup(),
    "manifold": ManifoldMixup(),
    "dense": DenseMultiMix(TUPLES),
    "dense-balanced": DenseMultiMix(TUPLES, balanced=True, alpha=1.0, clean=0.3),
    "dense-taught": SelfDistilled(DenseMultiMix(TUPLES)),
    "mixup-taught": SelfDistilled(Mixup(), teacher="mix"),
}


def maps(b=4):
    inputs, _ = toy.batch(b, 3, 6, 8)
    labels = torch.randint(5, (b, 6, 8), generator=seeded(5))
    labels[0, :3] = 255
    return inputs, labels


@pytest.mark.parametrize("name", MAPPERS)
def test_label_maps(name):
    network, (inputs, labels) = Segmenter(CrossEntropy(ignore_index=255)), maps()
    for targets in (labels, labels[:, 1::2, 1::2], labels[:, 1::2, 1::2].flatten(1)):
        if "taught" in name and targets is labels and MAPPERS[name].teacher == "mix":
            continue  # a blend of labels and predictions has the size of the predictions
        network.zero_grad()
        losses = MAPPERS[name](network, inputs, targets, generator=seeded())
        losses.total.backward()
        assert losses.total.isfinite()
        assert all(p.grad.abs().sum() > 0 for p in network.parameters())


def test_plain_segmentation_is_torchs():
    network, (inputs, labels) = Segmenter(CrossEntropy(ignore_index=255)), maps()
    nearest = labels[:, 1::2, 1::2].flatten(1)
    ours = ERM()(network, inputs, labels).total
    torch.testing.assert_close(ours, nn.functional.cross_entropy(network(inputs).mT, nearest, ignore_index=255))


def test_ignored_positions_give_no_gradient():
    network, (inputs, _) = Segmenter(CrossEntropy(ignore_index=255)), maps()
    labels = torch.full((4, 12), 255)
    labels[:, :6] = 1
    embeddings = []
    network.classify = lambda z: embeddings.append(z) or network.classifier(z)
    total = DenseMultiMix(TUPLES)(network, inputs, labels, generator=seeded()).total
    (gradient,) = torch.autograd.grad(total, embeddings[0])
    assert gradient[:, :6].abs().sum() > 0
    assert torch.equal(gradient[:, 6:], torch.zeros_like(gradient[:, 6:]))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("method", "inputs", "error", "said"),
    [
        (Mixup(), {"tokens": torch.ones(7, 3).long()}, TypeError, "inputs must be a tensor, got dict"),
        (MultiMix(), {"tokens": torch.ones(6, 3).long()}, ValueError, "targets has 7 rows for a mini-batch of 6"),
        (MultiMix(), {"text": "a"}, ValueError, "inputs must hold a tensor with one row an example"),
        (MultiMix(), {"a": torch.ones(7, 1), "b": torch.ones(5, 1)}, ValueError, "as many rows in every tensor"),
        (MultiMix(), "text", TypeError, "inputs must be a tensor, a mapping of tensors or a packed sequence, got str"),
    ],
)
def test_wrong_inputs_are_named(method, inputs, error, said):
    with pytest.raises(error) as caught:
        method(Tagger(), inputs, torch.zeros(7, dtype=torch.long))
    assert said in str(caught.value)


@pytest.mark.bad_input
def test_methods_that_cannot_say_so():
    network, (inputs, labels) = Segmenter(CrossEntropy(ignore_index=255)), maps()
    for method in (PuzzleMix(), Chain(PuzzleMix(), ERM())):
        with pytest.raises(ValueError, match="targets must be one row an example: this method does not mix label maps"):
            method(network, inputs, labels, generator=seeded())
    network, inputs, _ = images(SquaredError())
    with pytest.raises(ValueError, match="objective must be CrossEntropy for AutoMix"):
        AutoMix()(network, inputs, torch.rand(7, 5))
