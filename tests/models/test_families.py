"""The same laws for timm's and torchvision's models: the network is the model, split."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models import convnext, densenet, efficientnet, maxvit, swin_transformer, vision_transformer

from multimix.models import adapt
from multimix.protocols import Network

CLASSES = 7
MBConv = partial(efficientnet.MBConvConfig, width_mult=1.0, depth_mult=1.0)
SMALL_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
TIMM = {  # name and settings, image size
    "resnet10t": ("resnet10t", {}, 40),
    "resnet-one-position": ("test_resnet", {}, 32),
    "resnet-avgmax": ("test_resnet", {"global_pool": "avgmax"}, 64),
    "vit-token": ("vit_tiny_patch16_224", SMALL_VIT, 32),
    "vit-average": ("vit_tiny_patch16_224", SMALL_VIT | {"global_pool": "avg"}, 32),
    "vit-registers": ("vit_tiny_patch16_224", SMALL_VIT | {"global_pool": "avg", "reg_tokens": 3}, 32),
    "vit-attention": ("vit_tiny_patch16_224", SMALL_VIT | {"global_pool": "map", "class_token": False}, 32),
    "vit-bare": ("vit_tiny_patch16_224", SMALL_VIT | {"global_pool": "avg", "class_token": False}, 32),
    "deit3": ("deit3_small_patch16_224", SMALL_VIT, 32),
    "convnext": ("test_convnext", {}, 64),
    "swin": ("swin_tiny_patch4_window7_224", {"img_size": 64, "embed_dim": 12, "depths": (1, 1, 1, 1)}, 64),
    "mobilenetv3": ("mobilenetv3_small_050", {}, 64),
    "efficientnet": ("test_efficientnet", {}, 64),
    "mixer": ("mixer_s32_224", {"img_size": 64}, 64),
    "densenet": ("densenet121", {"growth_rate": 4, "block_config": (1, 1, 1, 1)}, 64),
    "regnet": ("regnetx_002", {}, 64),
    "cait": ("cait_xxs24_224", {"img_size": 32, "depth": 2}, 32),
    "resnetv2-conv-head": ("resnetv2_18", {}, 40),
    "repvit-norm-head": ("repvit_m0_9", {"embed_dim": (8, 12, 16, 24), "depth": (1, 1, 1, 1)}, 64),
}
TORCHVISION = {
    "resnet18": (lambda **k: torchvision.models.resnet18(**k), 40),
    "mobilenet_v2": (lambda **k: torchvision.models.mobilenet_v2(width_mult=0.25, **k), 64),
    "mobilenet_v3": (lambda **k: torchvision.models.mobilenet_v3_small(width_mult=0.5, **k), 64),
    "efficientnet": (
        lambda **k: efficientnet.EfficientNet([MBConv(1, 3, 1, 8, 8, 1), MBConv(4, 3, 2, 8, 16, 2)], 0.2, **k),
        64,
    ),
    "densenet": (lambda **k: densenet.DenseNet(4, (1, 2, 1), 8, **k), 64),
    "shufflenet": (lambda **k: torchvision.models.shufflenet_v2_x0_5(**k), 64),
    "regnet": (lambda **k: torchvision.models.regnet_y_400mf(**k), 64),
    "convnext": (
        lambda **k: convnext.ConvNeXt([convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)], **k),
        64,
    ),
    "mnasnet": (lambda **k: torchvision.models.mnasnet0_5(**k), 64),
    "vit": (lambda **k: vision_transformer.VisionTransformer(32, 8, 2, 2, 24, 48, **k), 32),
    "vit-pre-logits": (
        lambda **k: vision_transformer.VisionTransformer(32, 8, 2, 2, 24, 48, representation_size=10, **k),
        32,
    ),
    "swin": (lambda **k: swin_transformer.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], **k), 64),
    "maxvit": (lambda **k: maxvit.MaxVit((64, 64), 8, 2, [8, 16], [1, 1], 4, 0.0, **k), 64),
    "alexnet": (lambda **k: torchvision.models.alexnet(**k), 64),
    "vgg": (lambda **k: torchvision.models.vgg11_bn(**k), 64),
}
HEAVY = {"vgg", "alexnet"}
NAMES = [
    *(f"timm/{name}" for name in TIMM),
    *(pytest.param(f"torchvision/{name}", marks=[pytest.mark.slow] if name in HEAVY else []) for name in TORCHVISION),
]


def make(name):
    """A model and a batch of images, with nothing left at zero or unnormalised that would hide a difference."""
    torch.manual_seed(1)
    source, _, family = name.partition("/")
    if source == "timm":
        architecture, settings, size = TIMM[family]
        model = timm.create_model(architecture, num_classes=CLASSES, **settings)
    else:
        factory, size = TORCHVISION[family]
        model = factory(num_classes=CLASSES)
    images = nn.functional.interpolate(4 * torch.randn(3, 3, 4, 4), size=size, mode="bicubic")
    if family not in HEAVY:
        settle(model, images)
    return model, images


@torch.no_grad()
def settle(model, images):
    for parameter in model.parameters():
        if parameter.abs().max() < 1e-3:
            parameter.normal_(std=0.1)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    model, images = make(request.param)
    return request.param, model, adapt(model), images


@pytest.fixture
def evaluated(case):
    name, model, network, images = case
    return name, model.eval(), network.eval(), images


def test_network_is_the_model(evaluated):
    _, model, network, images = evaluated
    assert isinstance(network, Network)
    assert isinstance(network, nn.Module)
    assert adapt(network) is network
    with torch.no_grad():
        expected = model(images)
        output = network.embed(images)
        features = output.features
        before = features.clone()
        embeddings = network.pool(output)
        assert features.ndim == 3
        assert embeddings.ndim == 2
        assert torch.equal(features, before)
        torch.testing.assert_close(network.classify(embeddings), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)
        assert embeddings.std(0).max() > 1e-3


def test_training_mode_is_the_models(case):
    name, model, network, images = case
    if name in ("torchvision/vgg", "torchvision/alexnet"):
        pytest.skip("100 million weights")
    with torch.no_grad():
        network.eval()(images)
        network.train()
        assert model.training
        start = copy.deepcopy(model.state_dict())
        torch.manual_seed(2)
        expected, state = model(images), copy.deepcopy(model.state_dict())
        model.load_state_dict(start)
        torch.manual_seed(2)
        torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)
        for key, value in model.state_dict().items():
            torch.testing.assert_close(value, state[key], msg=key)


def test_parameters_are_shared(case):
    _, model, network, _ = case
    ours = [id(parameter) for parameter in network.parameters()]
    assert ours == [id(parameter) for parameter in model.parameters()]
    assert {key.removeprefix("model.") for key in network.state_dict()} == set(model.state_dict())


def test_head(evaluated):
    name, model, network, images = evaluated
    if name == "timm/repvit-norm-head":
        assert network.head is None
    else:
        assert network.head is next(
            m
            for m in list(model.modules())[::-1]
            if isinstance(m, nn.Linear | nn.Conv2d) and m.weight.shape[0] == CLASSES
        )
        with torch.no_grad():
            embeddings = network.pool(network.embed(images))
            expected = embeddings @ network.head.weight.flatten(1).T
            if network.head.bias is not None:
                expected += network.head.bias
            torch.testing.assert_close(network.classify(embeddings), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        rows = network.pool(network.embed(images))
        grid = network.classify(rows.reshape(3, 1, 1, -1))
        torch.testing.assert_close(grid[:, 0, 0], network.classify(rows), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(network.classify(rows[1]), network.classify(rows)[1], rtol=1e-4, atol=1e-5)


def test_a_single_position_is_pooled_by_itself(evaluated):
    _, _, network, images = evaluated
    with torch.no_grad():
        output = network.embed(images)
        r, alone = output.features.shape[1], output.each_position()
        alone = replace(alone, features=alone.features[:6])
        each = network.pool(alone)
        assert each.shape == (len(alone.features), network.pool(output).shape[1])
        assert torch.isfinite(each).all()
        # A position by itself is what an image gives that looks the same everywhere.
        everywhere = network.pool(replace(alone, features=alone.features.expand(-1, r, -1)))
        torch.testing.assert_close(each, everywhere, rtol=1e-4, atol=1e-4)


def test_stages_mix(evaluated):
    name, _, network, images = evaluated
    assert len(network.stages) > 2
    with torch.no_grad():
        plain = network(images)
        for stage in (0, 1, len(network.stages) // 2, len(network.stages) - 1):
            with network.mixing_at(stage, lambda x: x.flip(0)):
                mixed = network(images)
            torch.testing.assert_close(mixed, plain.flip(0), rtol=1e-3, atol=1e-4, msg=f"{name}, stage {stage}")
    assert not any(module._forward_hooks for module in network.modules())


def test_a_copy_is_independent_and_state_loads_back(evaluated):
    _, model, network, images = evaluated
    twin = copy.deepcopy(network)
    with torch.no_grad():
        before = network(images)
        assert torch.equal(twin(images), before)
        for parameter in twin.parameters():
            parameter.mul_(0.5)
        assert torch.equal(network(images), before)
        assert torch.equal(model(images), before)
        assert not torch.equal(twin(images), before)
        assert twin.head is None or twin.head is not network.head
        twin.load_state_dict(network.state_dict())
        assert torch.equal(twin(images), before)


def test_every_parameter_gets_a_gradient(case):
    name, _, network, images = case
    network.train().zero_grad()
    network(images).square().sum().backward()
    idle = [key for key, parameter in network.named_parameters() if parameter.grad is None]
    assert not idle, name
    network.zero_grad()


# The maps below are computed by the models' own layers, not by what the adaptors call.
@pytest.mark.parametrize(
    ("name", "last", "channels_last"),
    [
        ("timm/resnet10t", "layer4", False),
        ("timm/swin", "norm", True),
        ("torchvision/swin", "norm", True),
        ("torchvision/mobilenet_v2", "features", False),
        ("torchvision/maxvit", "blocks.1", False),
    ],
)
def test_positions_are_row_major(name, last, channels_last):
    model, images = make(name)
    images = torch.cat([images, images], dim=3) if "resnet" in name or "mobilenet" in name else images
    maps = []
    model.get_submodule(last).register_forward_hook(lambda module, arguments, output: maps.append(output.detach()))
    model.eval()(images)
    output = adapt(model).embed(images)
    features = output.features
    grid = maps[0] if channels_last else maps[0].permute(0, 2, 3, 1)
    rows, columns = grid.shape[1:3]
    assert rows * columns > 1
    assert output.grid == (rows, columns)
    assert features.shape == (3, rows * columns, grid.shape[3])
    for j in range(rows * columns):
        assert torch.equal(features[:, j], grid[:, j // columns, j % columns])


@pytest.mark.parametrize(("name", "prefix"), [("timm/vit-registers", 4), ("timm/vit-token", 1), ("torchvision/vit", 1)])
def test_prefix_tokens_are_kept(name, prefix):
    model, images = make(name)
    assert adapt(model.eval()).embed(images).features.shape == (3, prefix + 16, 24)


def test_class_token_pooling_takes_the_first_row():
    model, images = make("torchvision/vit")
    network = adapt(model.eval())
    output = network.embed(images)
    assert torch.equal(network.pool(output), output.features[:, 0])
    assert torch.equal(network.pool(output.each_position()), output.features.flatten(0, 1))


def test_average_pooling_skips_prefix_tokens():
    model, images = make("timm/vit-registers")
    network = adapt(model.eval())
    output = network.embed(images)
    torch.testing.assert_close(network.pool(output), model.fc_norm(output.features[:, 4:].mean(1)))


def test_other_grids_can_be_pooled():
    model, images = make("torchvision/resnet18")
    network = adapt(model.eval())
    wide = torch.cat([images, images], dim=3)
    small, large = network.embed(images), network.embed(wide)
    assert (small.features.shape[1], large.features.shape[1]) == (4, 6)
    with torch.no_grad():
        torch.testing.assert_close(network.classify(network.pool(small)), model(images))
        torch.testing.assert_close(network.classify(network.pool(large)), model(wide))
    square = replace(large, features=large.features[:, :1].expand(-1, 9, -1), grid=None)
    torch.testing.assert_close(network.pool(square), large.features[:, 0])


@pytest.mark.bad_input
def test_positions_that_fit_no_grid():
    model, images = make("torchvision/resnet18")
    network = adapt(model.eval())
    with pytest.raises(ValueError, match="pass what embed gives"):
        network.pool(torch.randn(2, 4, 512))
    with pytest.raises(ValueError, match=r"as many positions as embed gave, 4 on a grid \(2, 2\), or one; got 3"):
        network.pool(replace(network.embed(images), features=torch.randn(2, 3, 512)))


@pytest.mark.parametrize(
    "name",
    ["test_resnet", "mobilenetv3_small_050", "dla46_c", "pvt_v2_b0", "xcit_nano_12_p8_224"],
)
def test_half_precision(name):
    model = timm.create_model(name, num_classes=CLASSES).eval()
    network, images = adapt(model), torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network(images), model(images))
