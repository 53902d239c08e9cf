"""The three lines of the README, in a plain PyTorch loop, on other people's models."""

import pytest
import timm
import torch
import torchvision
from torch import nn

import multimix as mm
from toy import HandWritten

MODELS = {
    "timm resnet": lambda: mm.adapt(timm.create_model("test_resnet", num_classes=4)),
    "timm vit": lambda: mm.adapt(timm.create_model("test_vit", num_classes=4, img_size=32)),
    "torchvision mobilenet": lambda: mm.adapt(torchvision.models.mobilenet_v3_small(num_classes=4)),
    "hand-written": lambda: mm.adapt(HandWritten(), encoder="body", head="out"),
}
METHODS = {
    "multimix": lambda: mm.MultiMix(tuples=64),
    "dense": lambda: mm.DenseMultiMix(tuples=64),
    "distilled": lambda: mm.SelfDistilled(mm.MultiMix(tuples=64)),
    "published": lambda: mm.Alternate((mm.MultiMix(alpha=(0.5, 2.0), tuples=64), mm.Mixup(alpha=2.0)), (0.5, 0.5)),
}


@pytest.mark.parametrize(
    ("model", "method"),
    [
        *(("hand-written", name) for name in METHODS),
        ("timm resnet", "multimix"),
        ("timm vit", "dense"),
        ("torchvision mobilenet", "distilled"),
    ],
)
def test_plain_loop_learns(model, method):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(16) % 4
    colours = torch.randn(4, 3, 1, 1)  # classes that differ in colour, so that any network can tell them apart
    images = colours[labels] + 0.1 * torch.randn(16, 3, 32, 32)
    net, method = MODELS[model](), METHODS[method]()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)

    def clean_loss():
        return nn.functional.cross_entropy(net(images), labels).item()  # in train mode: 25 steps are few for statistics

    before = clean_loss()
    for _ in range(25):
        losses = method(net, images, labels, generator=generator)
        losses.total.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert clean_loss() < 0.9 * before
