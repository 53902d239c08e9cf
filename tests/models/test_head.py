"""Models of no known family, split at their head: how it is found, and what a network without an encoder can do."""

import copy
import pickle

import pytest
import torch
from torch import nn

import multimix as mm
from models import unusual as u
from multimix.models import adapt
from multimix.protocols import Network


@pytest.mark.parametrize("names", [{}, {"head": "fc3"}])
def test_what_enters_the_head_is_embedded(names):
    model = u.Tutorial().eval()
    entered = []
    handle = model.fc3.register_forward_pre_hook(lambda module, arguments: entered.append(arguments[0]))
    logits = model(u.IMAGES)
    handle.remove()
    network = adapt(model, **names)
    assert isinstance(network, Network)
    output = network.embed(u.IMAGES)
    features = output.features
    assert features.shape == (4, 1, 8)
    assert torch.equal(features[:, 0], entered[0])
    assert torch.equal(network.pool(features), entered[0])
    torch.testing.assert_close(network.classify(network.pool(features)), logits)
    assert network.head is model.fc3
    assert (network.stages, output.grid, output.mask) == (range(1), (), None)


@pytest.mark.parametrize("names", [{}, {"encoder": "body", "head": "fc"}])
def test_nothing_behind_the_split_runs(names):
    class Counting(u.Body):
        after = 0

        def forward(self, x):
            logits = super().forward(x)
            self.after += 1
            return logits

    model = Counting()
    network = adapt(model, **names)
    network(u.IMAGES)
    compared = model.after
    network(u.IMAGES)
    assert model.after == compared > 0


@pytest.mark.parametrize("names", [{}, {"encoder": "2", "head": "3"}])
def test_copies_and_pickles_find_their_own_head(names):
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    network = adapt(model, **names)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):  # noqa: S301
        torch.testing.assert_close(other(u.IMAGES), model(u.IMAGES))
        assert other.head is other.model[3]
        assert other.head is not model[3]
    assert list(network.state_dict()) == [f"model.{name}" for name in model.state_dict()]


def test_the_last_to_be_written_need_not_be_the_last_to_run():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.out, self.body, self.unused = nn.Linear(8, 3), nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.out(input=self.body(x).relu())

    model = Backwards()
    network = adapt(model)
    mm.MultiMix(tuples=10)(network, torch.randn(4, 5), u.LABELS).total.backward()
    assert network.head is model.out
    assert model.body.weight.grad.abs().max() > 0


def test_a_head_whose_output_is_zero_everywhere():
    model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    network = adapt(model)
    network(torch.randn(4, 5))
    assert network.head is model[2]


def test_a_linear_layer_of_ones_own_is_found():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 3))

        def forward(self, x):
            return x @ self.weight

    model = u.Body(Product())
    network = adapt(model)
    mm.MultiMix(tuples=10)(network, u.IMAGES, u.LABELS).total.backward()
    assert network.head_name == "fc"
    assert network.head is None  # not known to be affine: embeddings are mixed as they are
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_stages_without_an_encoder(stage):
    model = u.ResNet().eval()
    network = adapt(model, head="linear", stages=["layer1", "layer2"])
    plain = model(u.IMAGES)
    with network.mixing_at(stage, lambda x: x.flip(0)):
        torch.testing.assert_close(network(u.IMAGES), plain.flip(0))
    mm.ManifoldMixup(stages=(stage,))(network, u.IMAGES, u.LABELS).total.backward()


@pytest.mark.bad_input
def test_methods_that_mix_maps_or_stages_say_what_to_write():
    network = adapt(u.ResNet())
    for method in (mm.DenseMultiMix(tuples=9), mm.AlignMix(), mm.SelfDistilled(mm.DenseMultiMix(tuples=9))):
        with pytest.raises(ValueError, match=r"no positions to mix; .* adapt\(model, encoder=NAME, head=NAME\)"):
            method(network, u.IMAGES, u.LABELS)
    with pytest.raises(ValueError, match=r"no stages but its inputs; .* adapt\(model, ..., stages=\[NAME, ...\]\)"):
        mm.ManifoldMixup()(network, u.IMAGES, u.LABELS)
    mm.ManifoldMixup(stages=(0,))(network, u.IMAGES, u.LABELS).total.backward()


def test_inputs_by_keywords():
    class Two(u.Body):
        def forward(self, image, *, scale):
            return self.fc(self.features(image) * scale)

    model = Two().eval()
    inputs = {"image": u.IMAGES, "scale": torch.tensor(2.0), "labels": u.LABELS}
    network = adapt(model)
    torch.testing.assert_close(network(inputs), model(u.IMAGES, scale=2.0))
    with pytest.raises(ValueError, match="as keywords, which are image, scale; got image, size"):
        adapt(model)({"image": u.IMAGES, "size": u.IMAGES})


@pytest.mark.bad_input
@pytest.mark.filterwarnings("ignore:None of the inputs:UserWarning")
def test_a_stage_inside_a_checkpoint():
    from models.test_twenty import timm_vit

    network = adapt(timm_vit())
    with pytest.raises(RuntimeError, match=r"stage 1 \(model.blocks.0\) runs inside torch.utils.checkpoint, which wou"):
        mm.ManifoldMixup(stages=(1,))(network, u.IMAGES, u.LABELS)
    for reentrant in (True, False):
        mixed = adapt(u.checkpointed(reentrant=reentrant), stages=["body", "stem"])
        with pytest.raises(RuntimeError, match=r"stage 1 \(model.body\) runs inside torch.utils.checkpoint"):
            mm.ManifoldMixup(stages=(1,))(mixed, u.IMAGES, u.LABELS)
        mm.ManifoldMixup(stages=(2,))(mixed, u.IMAGES, u.LABELS).total.backward()
    network.model.set_grad_checkpointing(False)
    mm.ManifoldMixup(stages=(1,))(network, u.IMAGES, u.LABELS).total.backward()
