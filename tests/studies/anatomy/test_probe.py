import pytest
import torch
from torch import Generator
from torch.nn import Linear, Sequential
from torch.nn.functional import cross_entropy

import multimix as mm
import toy
from anatomy.probe import TOTAL, Probe, layers_of
from multimix.methods import ERM, DenseMultiMix, MultiMix


def by_hand(network, loss):
    """Gradients of every parameter after a backward pass, in order, as one vector."""
    network.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in network.parameters()])


@pytest.fixture
def network():
    return toy.images().double().train()


@pytest.fixture
def batch():
    return toy.batch(7, 3, 6, 6, dtype=torch.float64)


def test_plain_gradient_pulled_back_is_that_of_plain_training(network, batch):
    probe = Probe(network, *batch)
    found = probe.pull_back(probe.plain())
    assert list(found) == ["blocks", "classifier", TOTAL]
    torch.testing.assert_close(found[TOTAL], by_hand(network, cross_entropy(network(batch[0]), batch[1])))
    torch.testing.assert_close(found[TOTAL], Probe(network, *batch).through(ERM(), Generator())[TOTAL])
    torch.testing.assert_close(torch.cat([found["blocks"], found["classifier"]]), found[TOTAL])


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("alpha", [0.3, (0.5, 2.0)])
def test_mixed_gradient_pulled_back_is_that_of_the_method(network, batch, alpha, balanced):
    method = MultiMix(50, alpha=alpha, balanced=balanced)
    probe = Probe(network, *batch)
    found = probe.pull_back(probe.mixed(method, Generator().manual_seed(3)))[TOTAL]
    loss = method(network, *batch, generator=Generator().manual_seed(3)).total
    torch.testing.assert_close(found, by_hand(network, loss))


def test_any_method_goes_through_by_itself(network, batch):
    method = DenseMultiMix(20, effective=2.0)
    found = Probe(network, *batch).through(method, Generator().manual_seed(3))[TOTAL]
    loss = method(network, *batch, generator=Generator().manual_seed(3)).total
    torch.testing.assert_close(found, by_hand(network, loss))


def test_frozen_layers_are_left_out_and_adapted_models_looked_into(network):
    network.blocks.requires_grad_(False)
    assert list(layers_of(network)) == ["classifier"]
    model = Sequential(Linear(4, 3), Linear(3, 2))
    adapted = mm.adapt(model, encoder="0", head="1")
    assert list(layers_of(adapted)) == ["0", "1"]


@pytest.mark.bad_input
def test_networks_that_cannot_be_measured_are_named():
    with pytest.raises(ValueError, match=r"network must have an affine head.*got head=None"):
        Probe(toy.bent(), *toy.batch(4, 8))
    with pytest.raises(ValueError, match="network must have parameters that take a gradient, got none"):
        layers_of(toy.vectors().requires_grad_(False))
