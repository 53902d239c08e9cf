"""Logits at every position, and what networks are trained for."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import multimix as mm
from multimix.models import adapt
from multimix.ops import BinaryCrossEntropy, CrossEntropy, SquaredError


class Segmenter(nn.Module):
    """Maps at half the size, classified by a 1x1 convolution, then enlarged."""

    def __init__(self, head=None):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.out = nn.Conv2d(6, 4, 1) if head is None else head
        self.aside = nn.Conv2d(6, 4, 1)

    def forward(self, x):
        return F.interpolate(self.out(self.body(x)), size=x.shape[2:], mode="bilinear")


IMAGES = torch.linspace(-9, 9, 2 * 3 * 8 * 12).sin().reshape(2, 3, 8, 12)


def test_the_network_gives_logits_at_the_encoders_positions():
    model = Segmenter().eval()
    network = adapt(model, encoder="body", head="out", dense=True)
    logits = network(IMAGES)
    assert logits.shape == (2, 24, 4)
    assert network.embed(IMAGES).grid == (4, 6)
    assert network.head is model.out
    maps = model.out(model.body(IMAGES))
    for j in range(24):
        torch.testing.assert_close(logits[:, j], maps[:, :, j // 6, j % 6])
    features = network.embed(IMAGES).features
    assert torch.equal(network.pool(features), features)
    singles = features.flatten(0, 1).unsqueeze(1)
    torch.testing.assert_close(network.classify(network.pool(singles))[:, 0], logits.flatten(0, 1))


@pytest.mark.parametrize("make", [torchvision.models.segmentation.fcn_resnet50, "deeplab"])
def test_torchvisions_segmenters(make):
    make = torchvision.models.segmentation.deeplabv3_resnet50 if make == "deeplab" else make
    model = make(weights=None, weights_backbone=None, num_classes=5, aux_loss=False)
    network = adapt(model.eval(), head="classifier.4", dense=True)
    images = torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        logits = network(images)
        maps = logits.transpose(1, 2).unflatten(2, (6, 8))
        enlarged = F.interpolate(maps, size=(48, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(enlarged, model(images)["out"], rtol=1e-4, atol=1e-5)
    assert network.embed(images).grid == (6, 8)
    network.train()
    labels = torch.randint(0, 5, (2, 48, 64))
    mm.DenseMultiMix(tuples=8)(network, images, labels).total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.backbone.conv1.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    "method", [mm.ERM(), mm.Mixup(), mm.ManifoldMixup(), mm.MultiMix(tuples=8, clean=0.5), mm.DenseMultiMix(tuples=8)]
)
def test_steps_on_label_maps(method):
    model = Segmenter()
    network = adapt(model, encoder="body", head="out", dense=True, stages=["body"])
    method(network, IMAGES, torch.arange(2 * 8 * 12).reshape(2, 8, 12) % 4).total.backward()
    gradients = [p.grad for name, p in model.named_parameters() if not name.startswith("aside")]
    assert all(torch.isfinite(g).all() and g.abs().max() > 0 for g in gradients if g.ndim > 1)


class Tagger(nn.Module):
    """A label for every word, of sentences that are padded."""

    def __init__(self):
        super().__init__()
        self.table, self.drop, self.out = nn.Embedding(9, 6), nn.Dropout(0.5), nn.Linear(6, 4)

    def forward(self, ids, attention_mask):
        return {"logits": self.out(self.drop(self.table(ids)))}


def test_labels_of_tokens_with_a_mask():
    model = Tagger()
    network = adapt(model, encoder="drop", head="out", dense=True, mask="attention_mask")
    inputs = {"ids": torch.arange(8).reshape(2, 4), "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])}
    torch.manual_seed(1)
    expected = model(**inputs)["logits"]
    torch.manual_seed(1)
    torch.testing.assert_close(network(inputs), expected)
    assert network.embed(inputs).mask.sum(1).tolist() == [4, 2]
    mm.DenseMultiMix(tuples=8)(network, inputs, torch.randint(0, 4, (2, 4))).total.backward()
    assert model.table.weight.grad[[6, 7]].abs().max() == 0
    assert model.table.weight.grad[[0, 3, 4]].abs().max() > 0


@pytest.mark.parametrize(
    ("axes", "shape"), [(1, (2, 3, 7)), (2, (2, 3, 4, 5)), (3, (2, 3, 2, 3, 4))], ids=["signals", "images", "volumes"]
)
def test_convolutions_of_one_position_are_affine_heads(axes, shape):
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    model = nn.Sequential()
    model.add_module("body", convolution(3, 6, 1))
    model.add_module("out", convolution(6, 4, 1))
    network, x = adapt(model, encoder="body", head="out", dense=True), torch.randn(shape)
    assert network.head is model.out
    torch.testing.assert_close(network(x), model(x).flatten(2).transpose(1, 2))
    embeddings = torch.randn(2, 3, 6)
    expected = embeddings @ model.out.weight.flatten(1).T + model.out.bias
    torch.testing.assert_close(network.classify(embeddings), expected)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"encoder": "body.0"}, r"pool\(embed\(inputs\)\) is not what enters the head"),
        ({"head": "aside"}, r"is not what leaves its head \(it is never called"),
        ({"pool": torch.sum}, "pool does not go with dense=True"),
        ({"encoder": None, "head": None}, "dense must be given together with head"),
    ],
)
def test_wrong_splits_are_found(names, words):
    with pytest.raises(ValueError, match=words):
        adapt(Segmenter(), **({"encoder": "body", "head": "out", "dense": True} | names))(IMAGES)


@pytest.mark.bad_input
def test_a_head_that_sees_its_neighbours_is_refused():
    model = Segmenter(nn.Conv2d(6, 4, 3, padding=1))
    with pytest.raises(ValueError, match=r"classify\(pool\(embed\(inputs\)\)\) is not what leaves its head"):
        adapt(model, encoder="body", head="out", dense=True)(IMAGES)


def vector():
    model = nn.Sequential()
    model.add_module("body", nn.Linear(5, 6))
    model.add_module("out", nn.Linear(6, 4))
    return model


@pytest.mark.parametrize("objective", [BinaryCrossEntropy(), SquaredError(), CrossEntropy(label_smoothing=0.1), None])
def test_what_a_network_is_trained_for(objective):
    network = adapt(vector(), encoder="body", head="out", objective=objective)
    assert network.objective == (objective or CrossEntropy())
    x, targets = torch.randn(3, 5), torch.tensor([[0.0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]])
    logits = network(x)
    loss = {
        "BinaryCrossEntropy": lambda: F.binary_cross_entropy_with_logits(logits, targets),
        "SquaredError": lambda: F.mse_loss(logits, targets),
        "CrossEntropy": lambda: F.cross_entropy(logits, targets),
    }[type(network.objective).__name__]()
    torch.testing.assert_close(mm.ERM()(network, x, targets).total, loss)


@pytest.mark.bad_input
def test_an_objective_is_an_objective():
    with pytest.raises(TypeError, match=r"objective must be an Objective such as CrossEntropy\(\), got 'bce'"):
        adapt(vector(), encoder="body", head="out", objective="bce")
