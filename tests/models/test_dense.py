"""Logits at every position, and what networks are trained for."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import multimix as mm
from models.unusual import Convolutional, Segmenter
from multimix.models import adapt
from multimix.ops import BinaryCrossEntropy, CrossEntropy, SquaredError

IMAGES = torch.linspace(-9, 9, 2 * 3 * 8 * 12).sin().reshape(2, 3, 8, 12)
LABELS = torch.arange(2 * 8 * 12).reshape(2, 8, 12)


def test_the_network_gives_logits_at_the_encoders_positions():
    model = Segmenter().eval()
    network = adapt(model, encoder="body", head="out", dense=True)
    logits, output = network(IMAGES), network.embed(IMAGES)
    assert logits.shape == (2, 24, 4)
    assert output.grid == (4, 6)
    assert network.head is model.out
    maps = model.out(model.body(IMAGES))
    torch.testing.assert_close(logits, maps.flatten(2).transpose(1, 2))
    assert torch.equal(network.pool(output), output.features)
    singles = output.features.flatten(0, 1).unsqueeze(1)
    torch.testing.assert_close(network.classify(network.pool(singles))[:, 0], logits.flatten(0, 1))


def test_without_an_encoder_they_are_those_of_what_enters_the_head():
    model = Convolutional()
    model.forward = lambda x: {"out": F.interpolate(model.out(model.body(x)), size=x.shape[2:])}
    network = adapt(model, head="out", dense=True)
    logits = network(IMAGES)
    assert logits.shape == (2, 24, 3)
    assert network.embed(IMAGES).grid == (4, 6)
    torch.testing.assert_close(logits[:, 9], model.out(model.body(IMAGES))[:, :, 1, 3])
    mm.DenseMultiMix(tuples=10)(network, IMAGES, LABELS % 3).total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_segmenter_of_torchvision():
    make = torchvision.models.segmentation.fcn_resnet50
    model = make(weights=None, weights_backbone=None, num_classes=5, aux_loss=False)
    network = adapt(model.eval(), head="classifier.4", dense=True)
    images = torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        maps = network(images).transpose(1, 2).unflatten(2, (6, 8))
        enlarged = F.interpolate(maps, size=(48, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(enlarged, model(images)["out"], rtol=1e-4, atol=1e-5)
    network.train()
    mm.DenseMultiMix(tuples=8)(network, images, torch.randint(0, 5, (2, 48, 64))).total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.backbone.conv1.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    "method", [mm.ERM(), mm.Mixup(), mm.ManifoldMixup(), mm.MultiMix(tuples=8, clean=0.5), mm.DenseMultiMix(tuples=8)]
)
def test_steps_on_label_maps(method):
    model = Segmenter()
    network = adapt(model, encoder="body", head="out", dense=True, stages=["body"])
    method(network, IMAGES, LABELS % 4).total.backward()
    gradients = [p.grad for name, p in model.named_parameters() if not name.startswith("aside")]
    assert all(torch.isfinite(g).all() and g.abs().max() > 0 for g in gradients if g.ndim > 1)


@pytest.mark.bad_input
def test_label_maps_smaller_than_the_outputs():
    network = adapt(Segmenter(), encoder="body", head="out", dense=True)
    with pytest.raises(
        ValueError, match=r"targets, \(2, 2, 9\), must be no smaller than the grid of the outputs, \(4, 6\)"
    ):
        mm.ERM()(network, IMAGES, torch.zeros(2, 2, 9).long())


def test_labels_of_tokens_with_a_mask():
    model = nn.Sequential(nn.Embedding(9, 6), nn.Dropout(0.5), nn.Linear(6, 4))
    plain = model.forward
    model.forward = lambda ids, attention_mask: {"logits": plain(ids)}
    network = adapt(model, encoder="1", head="2", dense=True, mask="attention_mask")
    inputs = {"ids": torch.arange(8).reshape(2, 4), "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])}
    torch.manual_seed(1)
    expected = model(**inputs)["logits"]
    torch.manual_seed(1)
    torch.testing.assert_close(network(inputs), expected)
    assert network.embed(inputs).mask.sum(1).tolist() == [4, 2]
    mm.DenseMultiMix(tuples=8)(network, inputs, torch.randint(0, 4, (2, 4))).total.backward()
    assert model[0].weight.grad[[6, 7]].abs().max() == 0
    assert model[0].weight.grad[[0, 3, 4]].abs().max() > 0


@pytest.mark.parametrize(("axes", "shape"), [(1, (2, 3, 7)), (2, (2, 3, 4, 5)), (3, (2, 3, 2, 3, 4))])
def test_convolutions_of_one_position_are_affine_heads(axes, shape):
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    model = nn.Sequential(convolution(3, 6, 1), convolution(6, 4, 1))
    network, x = adapt(model, encoder="0", head="1", dense=True), torch.randn(shape)
    assert network.head is model[1]
    torch.testing.assert_close(network(x), model(x).flatten(2).transpose(1, 2))
    embeddings = torch.randn(2, 3, 6)
    expected = embeddings @ model[1].weight.flatten(1).T + model[1].bias
    torch.testing.assert_close(network.classify(embeddings), expected)


@pytest.mark.parametrize(
    ("objective", "loss"),
    [
        (BinaryCrossEntropy(), F.binary_cross_entropy_with_logits),
        (SquaredError(), F.mse_loss),
        (CrossEntropy(label_smoothing=0.1), partial(F.cross_entropy, label_smoothing=0.1)),
        (None, F.cross_entropy),
    ],
)
def test_what_a_network_is_trained_for(objective, loss):
    network = adapt(nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 4)), objective=objective)
    assert network.objective == (objective or CrossEntropy())
    x, targets = torch.randn(3, 5), torch.tensor([[0.0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]])
    torch.testing.assert_close(mm.ERM()(network, x, targets).total, loss(network(x), targets))
