"""What the way in accepts, and what it refuses with which words."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from multimix.models import adapt, build, preact_resnet18
from multimix.ops import SquaredError
from multimix.protocols import Network


def test_a_network_comes_back_as_it_is():
    network = preact_resnet18(width=2)
    assert adapt(network) is network
    compiled = torch.compile(network)
    assert adapt(compiled) is compiled


def test_stages_given_by_name():
    model = timm.create_model("test_resnet", num_classes=3).eval()
    network = adapt(model, stages=("conv1", "layer2"))
    images = torch.randn(2, 3, 32, 32)
    plain = model(images)
    with network.mixing_at(2, lambda x: x.flip(0)):
        torch.testing.assert_close(network(images), plain.flip(0))
    assert network.stages == range(3)


def test_a_new_head_of_a_torchvision_model():
    model = torchvision.models.resnet18(num_classes=5)
    model.fc = nn.Sequential(nn.Dropout(0.1), nn.Linear(512, 16), nn.ReLU(), nn.Linear(16, 3))
    network = adapt(model.eval())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network(images), model(images))
    assert network.head is model.fc[3]
    assert network.pool(network.embed(images)).shape == (2, 16)


def test_the_head_may_be_replaced_later():
    model = timm.create_model("test_resnet", num_classes=3)
    network = adapt(model)
    network(torch.randn(2, 3, 32, 32))
    model.reset_classifier(8)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 8)
    assert network.head is model.get_classifier()


class Bent(torchvision.models.ResNet):
    """A subclass that does what its family does not."""

    def forward(self, x):
        return super().forward(x.flip(1))


def test_default_stages():
    names = adapt(timm.create_model("twins_svt_small", depths=(1, 1, 1, 1), num_classes=2))._stage_names
    assert names == ("inputs",)  # its blocks are lists, which no hook can monitor
    resnet = adapt(torchvision.models.resnet18(num_classes=2))
    assert resnet._stage_names == ("inputs", "model.layer1", "model.layer2", "model.layer3", "model.layer4")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: nn.DataParallel(preact_resnet18(width=2)),
            "model is a DataParallel: .*; adapt the plain model inside, and wrap a module in Dist",
        ),
        (
            lambda: torch.compile(nn.Linear(2, 2)),
            "model is a OptimizedModule: .*; adapt the plain model and compile its parts, one by one",
        ),
        (
            lambda: nn.Sequential(nn.LazyConv2d(3, 1), nn.Flatten(), nn.LazyLinear(2)),
            r"model has uninitialised parameters \('0.weight', '0.bias', '2.weight', \.\.\. \(4 in all\)\); run a",
        ),
        (lambda: nn.Sequential(nn.Flatten(), nn.ReLU()), "Sequential has no layer with weights that could give logits"),
        (
            lambda: timm.create_model("test_resnet", num_classes=0),
            "model: ResNet has no classifier; create it with num",
        ),
        (
            lambda: timm.create_model("deit_tiny_distilled_patch16_224", depth=1, embed_dim=24),
            "VisionTransformerDistilled combines several classifiers, so it has no single head",
        ),
        (
            lambda: torchvision.models.squeezenet1_1(num_classes=2),
            "SqueezeNet ends in a convolution and a ReLU, not",
        ),
        (
            lambda: torchvision.models.googlenet(num_classes=2, init_weights=False),
            r"GoogLeNet has auxiliary classifiers; adapt\(model, head='fc'\) trains",
        ),
        (
            lambda: torchvision.models.inception_v3(num_classes=2, init_weights=False),
            "Inception3 has aux",
        ),
    ],
)
def test_models_that_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        adapt(make())


@pytest.mark.bad_input
def test_models_that_are_refused_on_the_first_batch():
    network = adapt(Bent(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3))
    with pytest.raises(ValueError, match="Bent, split at its head 'fc', is not itself"):
        network(torch.randn(2, 3, 32, 32))
    lists = adapt(timm.create_model("coat_tiny", img_size=32, num_classes=2))
    with pytest.raises(ValueError, match="model: CoaT gives a list of features, not one tensor; pass head='head', to"):
        lists(torch.randn(1, 3, 32, 32))


@pytest.mark.bad_input
def test_no_module_at_all():
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got str"):
        adapt("resnet18")
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got <class"):
        adapt(torchvision.models.ResNet)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("encoder", "stem"),
        ("head", "head"),
        ("pool", torch.sum),
        ("stages", ["group1"]),
        ("mask", "mask"),
        ("objective", SquaredError()),
        ("dense", True),
        ("gather", True),
    ],
)
def test_options_do_not_apply_to_a_network(option, value):
    with pytest.raises(ValueError, match=f"{option} does not apply: the model is a network already"):
        adapt(preact_resnet18(width=2), **{option: value})


@pytest.mark.bad_input
def test_unknown_options():
    with pytest.raises(TypeError, match="options must be of objective, dense, gather, got denes"):
        adapt(nn.Sequential(nn.Linear(2, 2)), denes=True)
    with pytest.raises(TypeError, match="options must be of width, strides, final_norm, pretrained, got widht"):
        build("preact_resnet18", num_classes=2, widht=3)


def test_on_the_device(device):
    model = timm.create_model("test_vit", num_classes=3).eval().to(device)
    network, size = adapt(model), model.default_cfg["input_size"]
    assert isinstance(network, Network)
    images = torch.randn(2, *size, device=device)
    state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    torch.testing.assert_close(network(images), model(images))
    if state is not None:
        assert torch.equal(torch.cuda.get_rng_state(device), state)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "make",
    [lambda: timm.create_model("test_resnet", num_classes=2), lambda: torchvision.models.resnet18(num_classes=2)],
)
def test_a_mapping_for_a_model_that_takes_a_tensor(make):
    network = adapt(make())
    with pytest.raises(TypeError, match="inputs must be a tensor for ResNet, got a mapping of pixel_values"):
        network({"pixel_values": torch.randn(2, 3, 32, 32)})
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 2)
