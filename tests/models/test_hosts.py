"""Models as users have them: frozen, tied, wrapped, with two heads, called with what they do not take."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn

import multimix as mm
from multimix.models import adapt

X = torch.linspace(-2, 2, 15).sin().reshape(3, 5)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(6, 2)

    def forward(self, x):
        x = self.body(x)
        return self.first(x), self.second(x)


@pytest.mark.bad_input
@pytest.mark.parametrize("names", [{"encoder": "body"}, {}])
def test_of_two_heads_one_is_named(names):
    model = TwoHeads()
    for index, head in enumerate(("first", "second")):
        torch.testing.assert_close(adapt(model, head=head, **names)(X), model(X)[index])
    with pytest.raises(ValueError, match=r"returns what several layers give \('first', 'second'\); pass head="):
        adapt(model)(X)


@pytest.mark.bad_input
def test_heads_that_are_averaged_are_refused():
    model = TwoHeads()
    model.forward = lambda x: (model.first(model.body(x))[:, :2] + model.second(model.body(x))) / 2
    for head in ("first", "second"):
        with pytest.raises(ValueError, match="is not the model's logits"):
            adapt(model, encoder="body", head=head)(X)


def test_a_frozen_encoder_leaves_the_head_to_train():
    model = timm.create_model("test_resnet", num_classes=4)
    model.requires_grad_(False)
    model.get_classifier().requires_grad_(True)
    network = adapt(model)
    for method in (mm.MultiMix(tuples=8), mm.DenseMultiMix(tuples=8)):
        network.zero_grad()
        method(network, torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 2])).total.backward()
        trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert trained == {"fc.weight", "fc.bias"}
        assert model.fc.weight.grad.abs().max() > 0


def test_a_model_frozen_as_a_whole_still_predicts():
    model = timm.create_model("test_resnet", num_classes=4).requires_grad_(False).eval()
    images = torch.randn(2, 3, 32, 32)
    network = adapt(model)
    torch.testing.assert_close(network(images), model(images))
    losses = mm.MultiMix(tuples=8)(network, images, torch.tensor([0, 1]))
    with pytest.raises(RuntimeError, match="does not require grad"):
        losses.total.backward()


class Tied(nn.Module):
    """Says which word is missing: the head's weights are the words' own vectors."""

    def __init__(self):
        super().__init__()
        self.table, self.body = nn.Embedding(7, 6), nn.Linear(6, 6)
        self.out = nn.Linear(6, 7, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids):
        return self.out(self.body(self.table(ids)).mean(1))


def test_a_head_tied_to_an_embedding():
    model, ids = Tied(), torch.arange(6).reshape(2, 3)
    network = adapt(model, encoder="body", head="out")
    torch.testing.assert_close(network(ids), model(ids))
    assert len(list(network.parameters())) == len(list(model.parameters())) == 3
    twin = copy.deepcopy(network)
    assert twin.head.weight is twin.model.table.weight
    assert twin.head.weight is not model.out.weight
    losses = mm.MultiMix(tuples=8)(network, ids, torch.tensor([0, 6]))
    losses.total.backward()
    assert (model.table.weight.grad.abs().sum(1) > 0).all()  # of words that occur and of classes alike


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


@pytest.mark.bad_input
def test_a_distributed_model_is_refused():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(TwoHeads())
        with pytest.raises(
            ValueError, match=r"model is a DistributedDataParallel: .*; adapt the plain model inside, and wr"
        ):
            adapt(wrapped, encoder="module.body", head="module.first")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("checkpointing", [True, False])
def test_gradient_checkpointing(checkpointing):
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2)
    plain = copy.deepcopy(model)
    model.set_grad_checkpointing(checkpointing)
    images, targets = torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 2])
    for one in (model, plain):
        generator = torch.Generator().manual_seed(0)
        mm.MultiMix(tuples=8)(adapt(one), images, targets, generator=generator).total.backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
