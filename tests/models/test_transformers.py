"""transformers' classifiers of text, images and audio: the network is the model, split behind its body."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from models.small_transformers import NAMES, TEXTS, batch, generator, hooks, labels, make, padded, seed
from multimix.distill import SelfDistilled
from multimix.methods import ERM, DenseMultiMix, ManifoldMixup, MultiMix
from multimix.models import adapt
from multimix.protocols import Network

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of whatever transformers imports
    import transformers

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")  # in WavLM

FEELS_PADDING = {"xlnet": "its last position, padding or not, is what it classifies"}


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    model = make(request.param)
    return request.param, model, adapt(model)


@pytest.fixture
def evaluated(case):
    name, model, network = case
    return name, model.eval(), network.eval()


def test_network_is_the_model(evaluated):
    _, model, network = evaluated
    assert isinstance(network, Network)
    with torch.no_grad():
        for inputs in (padded(model), batch(model)):
            expected = model(**inputs).logits
            output = network.embed(inputs)
            features = output.features
            before = features.clone()
            embeddings = network.pool(output)
            assert (features.ndim, embeddings.ndim) == (3, 2)
            assert torch.equal(features, before)
            torch.testing.assert_close(network.classify(embeddings), expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(network({**inputs, "labels": labels()}), expected, rtol=1e-5, atol=1e-5)
            assert embeddings.std(0).max() > 1e-3
    assert hooks(model) == []


def test_a_tensor_is_the_main_input(evaluated):
    _, model, network = evaluated
    inputs = batch(model)[model.main_input_name]
    with torch.no_grad():
        torch.testing.assert_close(network(inputs), model(inputs).logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            network(transformers.BatchEncoding({model.main_input_name: inputs})), network(inputs)
        )


def test_training_mode_is_the_models(case):
    _, model, network = case
    inputs = padded(model)
    with torch.no_grad():
        network.eval()(inputs)
        network.train()
        start = copy.deepcopy(model.state_dict())
        seed()
        expected, state = model(**inputs).logits, copy.deepcopy(model.state_dict())
        model.load_state_dict(start)
        seed()
        torch.testing.assert_close(network(inputs), expected, rtol=1e-5, atol=1e-5)
        for key, value in model.state_dict().items():
            torch.testing.assert_close(value, state[key], msg=key)
        model.load_state_dict(start)


def test_parameters_are_shared_and_a_copy_is_independent(evaluated):
    _, model, network = evaluated
    assert [id(p) for p in network.parameters()] == [id(p) for p in model.parameters()]
    assert {key.removeprefix("model.") for key in network.state_dict()} == set(model.state_dict())
    inputs = padded(model)
    with torch.no_grad():
        before, twin = network(inputs), copy.deepcopy(network)
        assert torch.equal(twin(inputs), before)
        for parameter in twin.parameters():
            parameter.mul_(0.5)
        assert torch.equal(network(inputs), before)
        assert not torch.equal(twin(inputs), before)
        assert twin.head is not network.head
        twin.load_state_dict(network.state_dict())
        assert torch.equal(twin(inputs), before)


def test_head_is_the_last_layer(evaluated):
    _, model, network = evaluated
    assert isinstance(network.head, nn.Linear)
    with torch.no_grad():
        embeddings = network.pool(network.embed(padded(model)))
        bias = 0 if network.head.bias is None else network.head.bias
        expected = embeddings @ network.head.weight.T + bias
        torch.testing.assert_close(network.classify(embeddings), expected, rtol=1e-4, atol=1e-5)


def test_a_single_position_is_pooled_by_itself(evaluated):
    _, model, network = evaluated
    with torch.no_grad():
        output = network.embed(padded(model))
        r, alone = output.features.shape[1], output.each_position()
        alone = replace(alone, features=alone.features[:6])
        each = network.pool(alone)
        assert each.shape == (len(alone.features), network.pool(output).shape[1])
        # A position by itself is what an example gives that looks the same everywhere.
        everywhere = network.pool(replace(alone, features=alone.features.expand(-1, r, -1)))
        torch.testing.assert_close(each, everywhere, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            each[:3], network.pool(replace(alone, features=alone.features[:3])), rtol=1e-4, atol=1e-4
        )


def test_stages_mix(evaluated):
    name, model, network = evaluated
    inputs = batch(model)
    no_stages = name in ("text/albert", "text/bart", "text/t5", "text/xlnet")
    assert (len(network.stages) == 1) == no_stages
    with torch.no_grad():
        plain = network(inputs)
        for stage in network.stages[1:]:
            with network.mixing_at(stage, lambda x: x.flip(0)):
                mixed = network(inputs)
            torch.testing.assert_close(mixed, plain.flip(0), rtol=1e-3, atol=1e-4, msg=f"{name}, stage {stage}")
    assert hooks(model) == []


def test_mask_says_which_positions_are_real(evaluated):
    name, model, network = evaluated
    inputs = padded(model)
    output = network.embed(inputs)
    if "attention_mask" not in inputs:
        assert output.mask is None
    elif name in TEXTS:
        assert torch.equal(output.mask, inputs["attention_mask"].bool())
    else:
        samples = inputs["attention_mask"].sum(1)
        frames = ((samples - 10) // 5 + 1 - 3) // 2 + 1  # of the two convolutions above
        assert torch.equal(output.mask, torch.arange(output.features.shape[1]) < frames[:, None])
    assert network.embed(inputs[model.main_input_name]).mask is None


@pytest.mark.parametrize("name", [*TEXTS, "audio/wav2vec2", "audio/hubert", "audio/wavlm"])
def test_more_padding_changes_nothing(name):
    model = make(name)
    network, targets = adapt(model), labels()
    short, long = padded(model), padded(model, more=5)
    with torch.no_grad():
        own = [model(**inputs).logits for inputs in (short, long)]
        if name.partition("/")[2] in FEELS_PADDING:
            assert not torch.allclose(*own, rtol=1e-3)
            return
        torch.testing.assert_close(*own, rtol=1e-3, atol=1e-4)
        for method in (MultiMix(20), DenseMultiMix(20, shared=True), DenseMultiMix(20, clean=0.5)):
            totals = [method(network, inputs, targets, generator=generator()).total for inputs in (short, long)]
            torch.testing.assert_close(*totals, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("method", [MultiMix(20), DenseMultiMix(20, clean=0.5)], ids=["multimix", "dense"])
def test_methods_train_encoder_and_head(case, method, taught):
    _, model, network = case
    network.train().zero_grad()
    method = SelfDistilled(method) if taught else method
    losses = method(network, padded(model), labels(), generator=generator())
    losses.total.backward()
    assert losses.total.isfinite()
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert network.head.weight.grad.abs().sum() > 0
    body = [g.abs().sum() for key, g in gradients.items() if key.startswith(f"{network._body}.")]
    assert sum(total > 0 for total in body) > 0.5 * len(body)
    plain = copy.deepcopy(model)
    plain.zero_grad()
    plain(**padded(model)).logits.square().sum().backward()
    assert set(gradients) == {key for key, p in plain.named_parameters() if p.grad is not None}
    network.zero_grad()


@pytest.mark.parametrize("name", ["text/bert", "text/gpt2", "image/vit"])
@pytest.mark.parametrize("method", [MultiMix(40), DenseMultiMix(40)], ids=["multimix", "dense"])
def test_the_loss_falls(name, method):
    model = make(name)
    network, inputs, targets = adapt(model), padded(model), labels()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    before = ERM()(network, inputs, targets).total.item()
    network.train()
    for step in range(30):
        optimiser.zero_grad()
        method(network, inputs, targets, generator=torch.Generator().manual_seed(step)).total.backward()
        optimiser.step()
    assert ERM()(network.eval(), inputs, targets).total.item() < 0.3 * before


@pytest.mark.parametrize("name", ["text/bert", "text/llama", "image/swin", "audio/wavlm"])
def test_hidden_states_are_mixed(name):
    model = make(name)
    network, inputs = adapt(model).train(), batch(model)
    total = ManifoldMixup(stages=(1, 2))(network, inputs, labels(), generator=generator()).total
    total.backward()
    assert total.isfinite()
    assert hooks(model) == []


@pytest.mark.parametrize("name", ["text/bert", "text/gpt2", "image/vit", "audio/wav2vec2"])
def test_checkpointing_and_half_precision(name):
    model = make(name, hidden_dropout=0.0, layerdrop=0.0, mask_time_prob=0.0)
    network, inputs = adapt(model), padded(model)
    network(inputs)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        network.train().zero_grad()
        seed()
        network(inputs).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
    network.eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        torch.testing.assert_close(network(inputs), model(**inputs).logits)
