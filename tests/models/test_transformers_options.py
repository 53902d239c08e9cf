"""What a model of transformers may be set to and given, and which inputs its network refuses."""

import re
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from models.small_transformers import batch, generator, hooks, labels, make, padded
from multimix.methods import DenseMultiMix
from multimix.models import adapt
from multimix.models._transformers import _first, _with_first
from multimix.ops import BinaryCrossEntropy, CrossEntropy, SquaredError

PAGE = Path(__file__).parents[2] / "docs" / "hosts.md"


def test_weighted_sums_of_layers_are_embedded():
    model = make("audio/wav2vec2", use_weighted_layer_sum=True)
    with torch.no_grad():
        model.layer_weights.copy_(torch.tensor([0.2, 3.0, 1.0]))
    network, inputs = adapt(model), padded(model)
    torch.testing.assert_close(network(inputs), model(**inputs).logits)
    network(inputs).square().sum().backward()
    ours = model.layer_weights.grad.clone()
    model.zero_grad()
    model(**inputs).logits.square().sum().backward()
    torch.testing.assert_close(ours, model.layer_weights.grad)


def test_embeddings_instead_of_tokens():
    model = make("text/bert")
    inputs = padded(model)
    given = {"inputs_embeds": model.bert.embeddings.word_embeddings(inputs.pop("input_ids")).detach(), **inputs}
    network = adapt(model)
    torch.testing.assert_close(network(given), model(**given).logits)
    assert DenseMultiMix(20)(network, given, labels(), generator=generator()).total.isfinite()


def test_a_model_that_returns_tuples():
    for name in ("text/bert", "image/resnet"):
        model = make(name)
        inputs = padded(model)
        expected = model(**inputs).logits
        model.config.return_dict = False
        torch.testing.assert_close(adapt(model)(inputs), expected)
        assert model.config.return_dict is False


@pytest.mark.parametrize(
    ("settings", "objective"),
    [
        ({}, CrossEntropy()),
        ({"problem_type": "single_label_classification"}, CrossEntropy()),
        ({"problem_type": "multi_label_classification"}, BinaryCrossEntropy()),
        ({"problem_type": "regression"}, SquaredError()),
        ({"num_labels": 1}, SquaredError()),
        ({"num_labels": 1, "problem_type": "multi_label_classification"}, BinaryCrossEntropy()),
    ],
    ids=str,
)
def test_objective_is_the_configured_one(settings, objective):
    assert adapt(make("text/bert", **settings)).objective == objective


def test_another_objective_may_be_given():
    assert adapt(make("text/bert"), objective=SquaredError()).objective == SquaredError()


def test_stages_may_be_named():
    model = make("text/bert")
    network = adapt(model, stages=["bert.embeddings"])
    inputs = batch(model)
    with torch.no_grad(), network.mixing_at(1, lambda x: x.flip(0)):
        mixed = network(inputs)
    torch.testing.assert_close(mixed, network(inputs).flip(0), rtol=1e-4, atol=1e-5)


@pytest.mark.bad_input
@pytest.mark.parametrize("given", [{"labels": labels()}, {"attention_mask": torch.ones(4, 12)}, {}], ids=str)
def test_inputs_without_the_main_one(given):
    model = make("text/bert")
    network = adapt(model)
    with pytest.raises(ValueError, match="inputs must hold 'input_ids', which BertForSequenceClassification"):
        network(given)
    network(batch(model))
    with pytest.raises(ValueError, match="inputs must hold 'input_ids'"):
        network(given)


@pytest.mark.bad_input
def test_inputs_of_another_kind():
    model = make("text/bert")
    with pytest.raises(TypeError, match=r"mapping of the keyword arguments .* or its 'input_ids' as a tensor, got str"):
        adapt(model)("a sentence")
    with pytest.raises(ValueError, match="pass what embed gives"):
        adapt(model).pool(torch.randn(2, 3, 32))
    network = adapt(model)
    with pytest.raises(TypeError, match=r"stage 0 \(inputs\) must leave a tensor"), network.mixing_at(0, torch.flip):
        network(batch(model))
    with pytest.raises(ValueError, match="stage must be one of"), network.mixing_at(7, torch.flip):
        pass
    with pytest.raises(IndexError):
        network({"input_ids": torch.full((2, 3), 4000)})
    assert hooks(model) == []


def test_blocks_may_leave_named_tuples():
    assert _with_first([torch.ones(2), 3], torch.zeros(2))[1] == 3
    pair = namedtuple("Pair", "hidden rest")((torch.ones(2), 5), 3)
    mixed = _with_first(pair, torch.zeros(2))
    assert (type(mixed), mixed.rest, mixed.hidden[1]) == (type(pair), 3, 5)
    assert torch.equal(_first(mixed), torch.zeros(2))


def test_the_page_on_models_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), {})  # noqa: S102
