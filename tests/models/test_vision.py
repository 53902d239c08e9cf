"""timm's and torchvision's models: where positions lie, and how prefix tokens are pooled."""

from dataclasses import replace

import pytest
import timm
import torch

from models.small_vision import CLASSES, make
from multimix.models import adapt


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
    model, images = make(name)
    images = torch.cat([images, images], dim=3) if "resnet" in name or "MobileNet" in name else images
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


@pytest.mark.parametrize(
    ("name", "prefix"), [("vision_transformer/registers", 4), ("vision_transformer/token", 1), ("VisionTransformer", 1)]
)
def test_prefix_tokens_are_kept(name, prefix):
    model, images = make(name)
    assert adapt(model.eval()).embed(images).features.shape == (3, prefix + 16, 24)


def test_pooling_takes_the_class_token_or_skips_prefix_tokens():
    for name in ("VisionTransformer", "vision_transformer/registers"):
        model, images = make(name)
        network = adapt(model.eval())
        output = network.embed(images)
        if name == "VisionTransformer":
            assert torch.equal(network.pool(output), output.features[:, 0])
            assert torch.equal(network.pool(output.each_position()), output.features.flatten(0, 1))
        else:
            torch.testing.assert_close(network.pool(output), model.fc_norm(output.features[:, 4:].mean(1)))


@pytest.mark.bad_input
def test_other_grids_can_be_pooled_if_they_are_one():
    model, images = make("ResNet")
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
    "name",
    ["test_resnet", "mobilenetv3_small_050", "dla46_c", "pvt_v2_b0", "xcit_nano_12_p8_224"],
)
def test_half_precision(name):
    model = timm.create_model(name, num_classes=CLASSES).eval()
    network, images = adapt(model), torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network(images), model(images))
