"""One-hot labels in integers, as a loop that encodes them by hand has them."""

import copy

import pytest
import torch
from torch.nn import functional

import cases
import toy
from multimix.methods import ERM, METHODS, CutMix, DenseMultiMix, Mixup, MultiMix
from multimix.ops import BinaryCrossEntropy, SquaredError


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_they_are_probabilities(case):
    network, inputs, targets = cases.images()
    rows = functional.one_hot(targets, 5)
    cases.close(
        cases.step(case.make(), copy.deepcopy(network), inputs, rows),
        cases.step(case.make(), network, inputs, toy.one_hot(targets)),
    )


def test_of_as_many_classes_as_positions_too():
    """Maps of 3 x 3 positions and 9 classes: (b, 9) could be a label map, and is none."""
    network = toy.images(classes=9).eval()
    inputs, targets = toy.batch(7, 3, 6, 6, classes=9)
    assert network.embed(inputs).shape[1] == 9
    for method in (ERM(), MultiMix(31), DenseMultiMix(13)):
        ours = cases.run(method, network, inputs, functional.one_hot(targets, 9)).total
        torch.testing.assert_close(ours, cases.run(method, network, inputs, targets).total)


def test_a_network_with_outputs_at_every_position_takes_them_for_label_maps():
    network = toy.Toy(width=5, classes=4)
    network.pool = lambda features: features
    network.dense = True
    inputs = torch.randn(3, 4, 5)
    maps = torch.eye(4, dtype=torch.long)[:3]
    expected = functional.cross_entropy(network(inputs).flatten(0, 1), maps.flatten())
    torch.testing.assert_close(cases.run(ERM(), network, inputs, maps).total, expected)


@pytest.mark.parametrize("objective", [BinaryCrossEntropy(), SquaredError()], ids=lambda o: type(o).__name__)
def test_other_objectives_have_numbers_of_their_own(objective):
    network, inputs, targets = cases.images()
    network.objective = objective
    rows = functional.one_hot(targets, 5)
    ours, theirs = (cases.run(Mixup(), copy.deepcopy(network), inputs, t).total for t in (rows, rows.float()))
    assert torch.equal(ours, theirs)


@pytest.mark.bad_input
@pytest.mark.parametrize("method", [ERM(), Mixup(), MultiMix(31), DenseMultiMix(13)], ids=lambda m: m.name)
def test_several_labels_in_integers_are_refused_with_what_they_may_be(method):
    network, inputs, targets = cases.images()
    rows = functional.one_hot(targets, 5)
    rows[0] = 1
    with pytest.raises(ValueError, match=r"^targets .*BinaryCrossEntropy"):
        cases.run(method, network, inputs, rows)


@pytest.mark.parametrize("cls", [cls for cls in METHODS if hasattr(cls, "mix")], ids=lambda cls: cls.name)
def test_the_data_alone(cls):
    network, inputs, targets = cases.images()
    mixed = [
        cls().mix(inputs, labels, network=network, num_classes=k, generator=torch.Generator().manual_seed(0))
        for labels, k in ((functional.one_hot(targets, 5), None), (targets, 5))
    ]
    for ours, theirs in zip(*mixed, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.bad_input
def test_the_data_alone_of_several_labels_is_refused():
    _, inputs, targets = cases.images()
    rows = functional.one_hot(targets, 5)
    rows[0] = 1
    with pytest.raises(ValueError, match=r"BinaryCrossEntropy"):
        CutMix().mix(inputs, rows, num_classes=5)
