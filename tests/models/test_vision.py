"""Models of timm and torchvision: what the way in makes of them, where positions lie, how prefix tokens are pooled."""

from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.video.resnet import BasicBlock, BasicStem, Conv3DNoTemporal, Conv3DSimple, VideoResNet

from models.small_vision import make as shrunk
from multimix.methods import ERM
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


def test_the_head_may_be_replaced_later():
    model = timm.create_model("test_resnet", num_classes=3)
    network = adapt(model)
    network(IMAGES)
    model.reset_classifier(8)
    assert network(IMAGES).shape == (2, 8)
    assert network.head is model.get_classifier()


@pytest.mark.parametrize("names", [{}, {"encoder": "layer4", "head": "fc"}], ids=["whole", "maps"])
@pytest.mark.parametrize("later", [Conv3DSimple, Conv3DNoTemporal], ids=["r3d", "mc3"])
def test_videos_have_the_losses_and_gradients_of_plain_training(later, names):
    model = VideoResNet(BasicBlock, [Conv3DSimple, *[later] * 3], [1, 1, 1, 1], BasicStem, num_classes=3)
    videos, labels = torch.randn(4, 3, 4, 16, 16), torch.tensor([0, 2, 1, 1])
    expected = nn.functional.cross_entropy(model(videos), labels)
    gradients = torch.autograd.grad(expected, model.parameters())
    loss = ERM()(adapt(model, **names), videos, labels).total
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(torch.autograd.grad(loss, model.parameters()), gradients, rtol=1e-3, atol=1e-4)


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


# The maps below are computed by the models' own layers, not by what the adaptors call.
@pytest.mark.parametrize(
    ("name", "last", "channels_last"),
    [
        ("resnet/10t", "layer4", False),
        ("swin_transformer", "norm", True),
        ("SwinTransformer", "norm", True),
        ("MobileNetV2", "features", False),
        ("MaxVit", "blocks.1", False),
    ],
)
def test_positions_are_row_major(name, last, channels_last):
    model, images = shrunk(name)
    images = torch.cat([images, images], dim=3) if "resnet" in name or "MobileNet" in name else images
    maps = []
    model.get_submodule(last).register_forward_hook(lambda module, arguments, output: maps.append(output.detach()))
    model.eval()(images)
    output = adapt(model).embed(images)
    grid = maps[0] if channels_last else maps[0].permute(0, 2, 3, 1)
    assert output.grid == grid.shape[1:3] != (1, 1)
    assert torch.equal(output.features, grid.flatten(1, 2))


def test_pooling_takes_the_class_token_or_skips_prefix_tokens():
    for name, prefix in (
        ("vision_transformer/registers", 4),
        ("vision_transformer/token", 1),
        ("VisionTransformer", 1),
    ):
        model, images = shrunk(name)
        network = adapt(model.eval())
        output = network.embed(images)
        assert output.features.shape == (3, prefix + 16, 24)
        if name == "VisionTransformer":
            assert torch.equal(network.pool(output), output.features[:, 0])
            assert torch.equal(network.pool(output.each_position()), output.features.flatten(0, 1))
        if prefix == 4:
            torch.testing.assert_close(network.pool(output), model.fc_norm(output.features[:, 4:].mean(1)))


@pytest.mark.bad_input
def test_other_grids_can_be_pooled_if_they_are_one():
    model, images = shrunk("ResNet")
    network = adapt(model.eval())
    wide = torch.cat([images, images], dim=3)
    small, large = network.embed(images), network.embed(wide)
    assert (small.features.shape[1], large.features.shape[1]) == (4, 6)
    with torch.no_grad():
        torch.testing.assert_close(network.classify(network.pool(small)), model(images))
        torch.testing.assert_close(network.classify(network.pool(large)), model(wide))
    square = replace(large, features=large.features[:, :1].expand(-1, 9, -1), grid=None)
    torch.testing.assert_close(network.pool(square), large.features[:, 0])
    with pytest.raises(ValueError, match="pass what embed gives"):
        network.pool(small.features)
    with pytest.raises(ValueError, match=r"as many positions as embed gave, 4 on a grid \(2, 2\), or one; got 3"):
        network.pool(replace(small, features=torch.randn(2, 3, 512)))


@pytest.mark.parametrize(
    "name", ["test_resnet", "mobilenetv3_small_050", "dla46_c", "pvt_v2_b0", "xcit_nano_12_p8_224"]
)
def test_half_precision(name):
    model = timm.create_model(name, num_classes=7).eval()
    network, images = adapt(model), torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network(images), model(images))
