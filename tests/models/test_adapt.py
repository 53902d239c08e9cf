"""What the way in makes of models of timm and torchvision, and which of them it refuses."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from multimix.models import adapt, preact_resnet18
from multimix.ops import SquaredError
from multimix.protocols import Network

IMAGES = torch.linspace(-9, 9, 2 * 3 * 32 * 32).sin().reshape(2, 3, 32, 32)


def test_a_network_comes_back_as_it_is():
    network = preact_resnet18(width=2)
    assert adapt(network) is network
    compiled = torch.compile(network)
    assert adapt(compiled) is compiled


@pytest.mark.bad_input
def test_options_do_not_apply_to_a_network():
    options = {"encoder": "stem", "head": "head", "pool": torch.sum, "stages": ["group1"], "mask": "mask"}
    for name, value in (options | {"objective": SquaredError(), "dense": True, "gather": True}).items():
        with pytest.raises(ValueError, match=f"{name} does not apply: the model is a network already"):
            adapt(preact_resnet18(width=2), **{name: value})


def test_stages_are_those_of_the_family_or_given_by_name():
    names = adapt(timm.create_model("twins_svt_small", depths=(1, 1, 1, 1), num_classes=2))._stage_names
    assert names == ("inputs",)  # its blocks are lists, which no hook can monitor
    resnet = adapt(torchvision.models.resnet18(num_classes=2))
    assert resnet._stage_names == ("inputs", "model.layer1", "model.layer2", "model.layer3", "model.layer4")
    for model in (timm.create_model("test_resnet", num_classes=3), torchvision.models.resnet18(num_classes=2)):
        network = adapt(model.eval(), stages=("conv1", "layer2"))
        assert network._stage_names == ("inputs", "model.conv1", "model.layer2")
        plain = model(IMAGES)
        with network.mixing_at(2, lambda x: x.flip(0)):
            torch.testing.assert_close(network(IMAGES), plain.flip(0))


def test_a_new_head_of_a_torchvision_model():
    model = torchvision.models.resnet18(num_classes=5)
    model.fc = nn.Sequential(nn.Dropout(0.1), nn.Linear(512, 16), nn.ReLU(), nn.Linear(16, 3))
    network = adapt(model.eval())
    torch.testing.assert_close(network(IMAGES), model(IMAGES))
    assert network.head is model.fc[3]
    assert network.pool(network.embed(IMAGES)).shape == (2, 16)


def test_the_head_may_be_replaced_later():
    model = timm.create_model("test_resnet", num_classes=3)
    network = adapt(model)
    network(IMAGES)
    model.reset_classifier(8)
    assert network(IMAGES).shape == (2, 8)
    assert network.head is model.get_classifier()


def test_on_the_device(device):
    model = timm.create_model("test_vit", num_classes=3).eval().to(device)
    network, size = adapt(model), model.default_cfg["input_size"]
    assert isinstance(network, Network)
    images = torch.randn(2, *size, device=device)
    state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    torch.testing.assert_close(network(images), model(images))
    if state is not None:
        assert torch.equal(torch.cuda.get_rng_state(device), state)


def bent():
    resnet, block = torchvision.models.ResNet, torchvision.models.resnet.BasicBlock
    return type("Bent", (resnet,), {"forward": lambda m, x: resnet.forward(m, x.flip(1))})(block, [1, 1, 1, 1])


def of_timm(name, **settings):
    return lambda: timm.create_model(name, **({"num_classes": 2} | settings))


LAZY = nn.Sequential(nn.LazyConv2d(3, 1), nn.Flatten(), nn.LazyLinear(2))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.DataParallel(preact_resnet18(width=2)), "is a DataParallel: .*; adapt the plain model inside"),
        (lambda: torch.compile(nn.Linear(2, 2)), "model is a OptimizedModule: .* compile its parts, one by one"),
        (lambda: LAZY, r"uninitialised parameters \('0.weight', '0.bias', '2.weight', ... \(4 in all\)\); run a batch"),
        (of_timm("test_resnet", num_classes=0), "model: ResNet has no classifier; create it with num"),
        (of_timm("coat_tiny", img_size=32), "model: CoaT gives a list of features, .*; pass head='head', to mix maps"),
        (bent, "Bent, split at its head 'fc', is not itself"),
    ],
)
def test_models_that_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        adapt(make())(IMAGES)


@pytest.mark.bad_input
def test_a_mapping_for_a_model_that_takes_a_tensor():
    for model in (timm.create_model("test_resnet"), torchvision.models.resnet18()):
        network = adapt(model)
        with pytest.raises(TypeError, match="inputs must be a tensor for ResNet, got a mapping of pixel_values"):
            network({"pixel_values": IMAGES})
        assert network(IMAGES).ndim == 2
