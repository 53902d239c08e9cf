"""Mixing at a stage: hooks that do what they should and go away."""

import copy

import pytest
import timm
import torch
from torch import nn

from multimix.models import adapt, preact_resnet18


def hooks(network):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


@pytest.fixture(params=["own", "adapted"])
def network(request):
    if request.param == "own":
        return preact_resnet18(width=2, num_classes=5).eval()
    return adapt(timm.create_model("resnet10t", num_classes=5)).eval()


IMAGES = torch.linspace(-2, 2, 3 * 3 * 16 * 16).sin().reshape(3, 3, 16, 16)


def test_every_stage_is_mixed_once_by_what_leaves_it_and_in_order(network):
    assert network.stages == range(5)
    seen, order = [], []

    def flip(x):
        seen.append(x)
        return x.flip(0)

    with network.mixing_at(1, flip):  # the first batch: not in its comparison with the model
        mixed = network(IMAGES)
    plain = network(IMAGES)
    torch.testing.assert_close(mixed, plain.flip(0))
    for stage in network.stages:
        with network.mixing_at(stage, flip):
            mixed = network(IMAGES)
        # The stages treat each image by itself, so that flipping the batch inside flips the logits.
        torch.testing.assert_close(mixed, plain.flip(0))
        assert torch.equal(network(IMAGES), plain)
        assert len(seen) == stage + 2
        assert hooks(network) == 0
    for stage in network.stages:
        module = network.get_submodule(network._stage_names[stage])
        module.register_forward_hook(lambda module, arguments, output, stage=stage: order.append(stage))
    network.embed(IMAGES)
    assert order == list(network.stages)


def test_stage_zero_is_the_input(network):
    with network.mixing_at(0, lambda x: 0.3 * x + 0.7 * x.flip(0)):
        mixed = network.embed(IMAGES)
    torch.testing.assert_close(mixed, network.embed(0.3 * IMAGES + 0.7 * IMAGES.flip(0)))


def test_contexts_nest_and_copies_are_mixed_by_themselves(network):
    plain, twin = network(IMAGES), copy.deepcopy(network)
    with network.mixing_at(1, lambda x: x.flip(0)), network.mixing_at(3, lambda x: x.roll(1, 0)):
        torch.testing.assert_close(network(IMAGES), plain.flip(0).roll(1, 0))
        assert torch.equal(twin(IMAGES), plain)


def test_an_exception_leaves_no_hook(network):
    def fail(x):
        raise KeyError("mix")

    plain = network(IMAGES)
    with pytest.raises(KeyError, match="mix"), network.mixing_at(2, fail):
        network(IMAGES)
    with pytest.raises(ZeroDivisionError), network.mixing_at(2, torch.zeros_like):
        _ = 1 / 0
    assert hooks(network) == 0
    assert torch.equal(network(IMAGES), plain)


@pytest.mark.bad_input
@pytest.mark.parametrize("stage", [-1, 5, 1.5, "layer1"])
def test_unknown_stage(network, stage):
    with pytest.raises(ValueError, match=r"stage must be one of \[0, 1, 2, 3, 4\], got"), network.mixing_at(stage, abs):
        pass


@pytest.mark.parametrize(
    ("stage", "error", "words"),
    [
        (1, TypeError, r"stage 1 \(model.1\) must leave a tensor to be mixed, got tuple"),
        (2, RuntimeError, r"stage 2 \(model.2\) did not run as a module; was the model compiled"),
    ],
)
def test_a_stage_that_does_not_leave_a_tensor_is_an_error(stage, error, words):
    model = nn.Sequential(nn.Linear(4, 6), nn.Identity(), nn.Identity(), nn.Linear(6, 2))
    model.forward = lambda x: model[3](model[1]((model[0](x), 0))[0])
    network = adapt(model, encoder="1", head="3", stages=["1", "2"])
    mixing = network.mixing_at(stage, torch.zeros_like)
    with pytest.raises(error, match=words), mixing:
        network(torch.randn(3, 4))
    assert hooks(network) == 0
