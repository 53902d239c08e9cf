"""What the comparison on the first batch leaves behind: nothing; and when it is made."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import multimix as mm
from models import unusual as u
from multimix.models import adapt

# torch 2.4's own, inside checkpoint
pytestmark = pytest.mark.filterwarnings("ignore:`torch.cpu.amp:FutureWarning")

BODY = {"encoder": "body", "head": "fc"}
WAYS = pytest.mark.parametrize("names", [{}, {"head": "fc"}, BODY], ids=["alone", "head", "encoder"])


@WAYS
def test_it_leaves_no_trace(names):
    model = u.Body()
    model.fc.weight.grad = gradient = torch.ones_like(model.fc.weight)
    before = copy.deepcopy(model.state_dict())
    parameters = dict(model.named_parameters())
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    images = u.IMAGES.clone().requires_grad_()
    calls = []
    model.fc.weight.register_hook(calls.append)

    network = adapt(model, **names)
    network.run_check(images)  # what embed does before it embeds
    assert network.check is None
    assert images.grad is None
    assert calls == []
    assert model.fc.weight.grad is gradient
    assert torch.equal(gradient, torch.ones_like(gradient))
    assert all(p.grad is None for name, p in parameters.items() if name != "fc.weight")
    assert all(dict(model.named_parameters())[name] is parameter for name, parameter in parameters.items())
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # noqa: NPY002
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.bad_input
def test_gradients_are_compared_once_there_are_any():
    network = adapt(u.Gated(), **BODY)
    network.eval()
    network(u.IMAGES)
    with torch.no_grad():
        network.train()(u.IMAGES)
    with torch.inference_mode():
        network(u.IMAGES)
    for _ in range(2):
        with pytest.raises(ValueError, match="gradients of 'gate' differ"):
            network(u.IMAGES)


@WAYS
def test_a_body_that_is_frozen_or_runs_without_gradient_trains_its_head(names):
    frozen, without = u.Body(), u.Body()
    frozen.requires_grad_(False).fc.requires_grad_(True)
    without.forward = lambda x: without.fc(torch.no_grad()(without.features)(x))
    for model in (frozen, without):
        mm.MultiMix(tuples=10)(adapt(model, **names), u.IMAGES, u.LABELS).total.backward()
        assert [name for name, p in model.named_parameters() if p.grad is not None] == ["fc.weight", "fc.bias"]
    assert not adapt(frozen.requires_grad_(False), **names)(u.IMAGES).requires_grad


@WAYS
def test_under_autocast(names):
    model = u.Body()
    network = adapt(model, **names)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = mm.MultiMix(tuples=10)(network, u.IMAGES, u.LABELS).total
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@WAYS
def test_inputs_keep_the_graph_that_they_come_from(names):
    model, front = u.Body(), nn.Conv2d(3, 3, 1)
    network = adapt(model, **names)
    network(front(u.IMAGES)).square().sum().backward()
    ours = front.weight.grad.clone()
    front.zero_grad()
    model(front(u.IMAGES)).square().sum().backward()
    torch.testing.assert_close(ours, front.weight.grad)


@pytest.mark.parametrize("reentrant", [True, False])
def test_inside_a_checkpoint(reentrant):
    torch.manual_seed(0)
    model = u.Body()
    network, twin = adapt(model), adapt(copy.deepcopy(model))
    x, y = (u.IMAGES.clone().requires_grad_() for _ in range(2))
    checkpoint(network, x, use_reentrant=reentrant).square().sum().backward()
    twin(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(model.stem.weight.grad, twin.model.stem.weight.grad)


def test_a_model_that_seeds_its_own_randomness_is_not_judged():
    model = u.Noisy()
    features = model.features
    model.features = lambda x: (torch.seed(), features(x))[1]
    network = adapt(model)
    mm.MultiMix(tuples=10)(network, u.IMAGES, u.LABELS).total.backward()
    assert network.check is None


def test_other_precisions_and_that_double_is_for_the_cpu_alone(monkeypatch):
    for dtype in (torch.float64, torch.bfloat16):
        assert adapt(u.Body().to(dtype), **BODY)(u.IMAGES.to(dtype)).dtype == dtype
    moved, doubled = [], []
    cpu, double = torch.Tensor.cpu, torch.Tensor.double
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: moved.append(cpu(tensor).clone()) or moved[-1])
    monkeypatch.setattr(torch.Tensor, "double", lambda tensor: doubled.append(tensor) or double(tensor))
    adapt(u.Body(), **BODY)(u.IMAGES)
    assert doubled
    assert all(any(tensor is other for other in moved) for tensor in doubled)


@pytest.mark.bad_input
@pytest.mark.filterwarnings("ignore:None of the inputs:UserWarning")
def test_a_head_inside_reentrant_checkpointing():
    model = u.Body()
    model.forward = lambda x: checkpoint(lambda z: model.fc(model.body(z).mean((2, 3))), model.stem(x), **kind)
    kind = {"use_reentrant": True}
    with pytest.raises(ValueError, match=r"head 'fc' runs where no gradient is kept.*use_reentrant=False\)$"):
        adapt(model)(u.IMAGES)
    kind = {"use_reentrant": False}
    mm.MultiMix(tuples=10)(adapt(model), u.IMAGES, u.LABELS).total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.bad_input
def test_normalisation_behind_the_encoder_that_is_new():
    model = u.Body()  # in eval mode its norm does nothing yet
    model.norm = nn.BatchNorm1d(8)
    model.forward = lambda x: model.fc(model.norm(model.features(x)))
    network = adapt(model, **BODY)
    network.eval()(u.IMAGES)
    with pytest.raises(ValueError, match=r"'norm' \(BatchNorm1d\); leave encoder= out, .*get_submodule\('norm'\)\)$"):
        network.train()(u.IMAGES)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d((1, None)), nn.Flatten(), model.get_submodule("norm"))
    mm.DenseMultiMix(tuples=10)(adapt(model, **BODY, pool=pool), u.IMAGES, u.LABELS).total.backward()
    mm.MultiMix(tuples=10)(adapt(model), u.IMAGES, u.LABELS).total.backward()


@pytest.mark.bad_input
def test_a_head_that_pools_behind_with_dropout_before():
    model = u.Dropped()
    model.forward = lambda x: model.fc(model.drop(model.body(model.stem(x))).flatten(2).transpose(1, 2)).mean(1)
    with pytest.raises(ValueError, match="or pass encoder='drop'"):
        adapt(model, **BODY)(u.IMAGES)
    network = adapt(model, encoder="drop", head="fc")
    torch.manual_seed(0)
    expected = model(u.IMAGES)
    torch.manual_seed(0)
    torch.testing.assert_close(network(u.IMAGES), expected)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("normalised", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_copies_of_normalised_weights_are_independent(normalised):
    model = u.Body(normalised(nn.Linear(8, u.CLASSES)))
    network = adapt(model)
    for method in (mm.MultiMix(tuples=10), mm.SelfDistilled(mm.MultiMix(tuples=10))):
        method(network, u.IMAGES, u.LABELS).total.backward()
    twin = copy.deepcopy(network.eval())
    torch.testing.assert_close(twin(u.IMAGES), network(u.IMAGES))
    with torch.no_grad():
        twin.model.fc.bias.add_(1)
    torch.testing.assert_close(twin(u.IMAGES), network(u.IMAGES) + 1)


class OtherWhileTraining(nn.Module):
    """Logits of another layer while it trains."""

    def __init__(self):
        super().__init__()
        self.body, self.fc, self.other = nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x):
        return (self.other if self.training else self.fc)(self.body(x))


def test_a_head_that_training_passes_by_is_refused():
    network = adapt(OtherWhileTraining(), head="fc")
    network.eval()
    network.embed(torch.randn(4, 6))
    network.train()
    with pytest.raises(ValueError, match="head: OtherWhileTraining never runs 'fc' in"):
        mm.MultiMix()(network, torch.randn(4, 6), torch.tensor([0, 1, 2, 1]))


class Counts(nn.Module):
    """Scales what it embeds by how often it has run."""

    def __init__(self, ran):
        super().__init__()
        self.body, self.fc = nn.Linear(6, 5), nn.Linear(5, 3)
        if isinstance(ran, torch.Tensor):
            self.register_buffer("ran", ran)
        else:
            self.ran = ran

    def forward(self, x):
        self.ran += 1
        return self.fc(self.body(x) * self.ran)


def test_a_buffer_that_every_pass_changes_is_left_as_it_was():
    model, x = Counts(torch.zeros(())), torch.randn(4, 6)
    for mode in (False, True):
        twin = copy.deepcopy(model)
        torch.testing.assert_close(adapt(model.train(mode))(x), twin(x))
        assert model.ran == twin.ran


def test_a_model_that_changes_by_itself_is_compared_with_nothing_and_says_so():
    network = adapt(Counts(0))
    with pytest.warns(
        UserWarning, match="Counts does not repeat itself in eval mode: its split was compared with noth"
    ):
        network(torch.randn(4, 6))
    assert network.check is None


@pytest.mark.bad_input
@pytest.mark.parametrize("names", [{}, BODY], ids=["alone", "encoder"])
def test_a_hook_that_bends_the_head_is_refused_and_one_that_looks_is_not(names):
    seen, bent, seen_only = [], u.Body(), u.Body()
    bent.fc.register_forward_hook(lambda module, arguments, output: output.tanh())
    seen_only.fc.register_forward_hook(lambda module, arguments, output: seen.append(output.shape))
    with pytest.raises(ValueError, match="head: a hook on 'fc' of Body makes it no affine layer"):
        adapt(bent, **names)(u.IMAGES)
    mm.MultiMix(tuples=10)(adapt(seen_only, **names), u.IMAGES, u.LABELS).total.backward()
    assert seen


@pytest.mark.bad_input
def test_what_takes_part_beside_or_after_the_head_is_named():
    lora, scaled = u.Body(u.LoRA(nn.Linear(8, u.CLASSES))), u.Body()
    scaled.scale = nn.Parameter(torch.ones(()))
    scaled.forward = lambda x: scaled.fc(scaled.features(x)) * scaled.scale
    for names in ({"head": "fc.base"}, {"head": "fc.base", "encoder": "body"}):
        with pytest.raises(
            ValueError, match=r"gradients of 'fc.lora_B.weight' differ; .*pass head='fc' if it holds not"
        ):
            adapt(lora, **names)(u.IMAGES)
    with pytest.raises(
        ValueError, match=r"'scale' differ; they take part .* after 'fc': let the model return what 'fc' g"
    ):
        adapt(scaled)(u.IMAGES)


@pytest.mark.bad_input
def test_what_was_made_in_inference_mode_trains_nothing():
    with torch.inference_mode():
        images, model = u.IMAGES.clone(), u.Body()
    with pytest.raises(ValueError, match=r"inputs was made in torch.inference_mode"):
        adapt(u.Body())(images)
    with pytest.raises(ValueError, match=r"model: stem.weight was made in torch.inference_mode"):
        adapt(model)(u.IMAGES)
    with torch.no_grad():
        torch.testing.assert_close(adapt(model.eval())(images), model(images))
