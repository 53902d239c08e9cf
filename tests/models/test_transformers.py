"""transformers' classifiers: masks, settings, inputs, and what training makes of them."""

import re
import warnings
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import nn

from models.small_transformers import LABELS, NAMES, TEXTS, batch, hooks, make, padded, seed
from multimix.methods import DenseMultiMix, MultiMix
from multimix.models import adapt
from multimix.models._values import innermost, with_innermost
from multimix.ops import BinaryCrossEntropy, CrossEntropy, SquaredError
from toy import seeded

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of whatever transformers imports
    import transformers

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")  # in WavLM

PAGE = Path(__file__).parents[2] / "docs" / "hosts.md"


@pytest.mark.parametrize("name", NAMES)
def test_the_main_input_alone_and_labels_beside_it(name):
    model = make(name)
    network = adapt(model).eval()
    inputs = batch(model)[model.main_input_name]
    with torch.no_grad():
        torch.testing.assert_close(network(inputs), model(inputs).logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            network(transformers.BatchEncoding({model.main_input_name: inputs, "labels": LABELS})), network(inputs)
        )


@pytest.mark.parametrize("name", NAMES)
def test_mask_says_which_positions_are_real(name):
    model = make(name)
    network, inputs = adapt(model).eval(), padded(model)
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
    network = adapt(model)
    short, long = padded(model), padded(model, more=5)
    with torch.no_grad():
        own = [model(**inputs).logits for inputs in (short, long)]
        if name == "text/xlnet":  # its last position, padding or not, is what it classifies
            assert not torch.allclose(*own, rtol=1e-3)
            return
        torch.testing.assert_close(*own, rtol=1e-3, atol=1e-4)
        for method in (MultiMix(20), DenseMultiMix(20, shared=True), DenseMultiMix(20, clean=0.5)):
            totals = [method(network, inputs, LABELS, generator=seeded()).total for inputs in (short, long)]
            torch.testing.assert_close(*totals, rtol=1e-3, atol=1e-4)


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
    assert DenseMultiMix(20)(network, given, LABELS, generator=seeded()).total.isfinite()


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
def test_objective_is_the_configured_one_however_the_model_is_split(settings, objective):
    by_name = ({}, {"head": "classifier"}, {"encoder": "bert.encoder", "head": "classifier"})
    ways = [(make("text/bert", **settings), names) for names in by_name] + [
        (make("image/timm_wrapper", **settings), {})
    ]
    for model, names in ways:
        assert adapt(model, **names).objective == objective
        assert adapt(model, objective=SquaredError(), **names).objective == SquaredError()


@pytest.mark.bad_input
def test_wrapped_timm_model_refuses_what_it_does_not_take():
    model = make("image/timm_wrapper")
    with pytest.raises(ValueError, match=r"inputs must hold 'pixel_values' alone .* got pixel_values, x"):
        adapt(model)({**batch(model), "x": torch.zeros(4)})


def test_stages_may_be_named():
    model = make("text/bert")
    network, inputs = adapt(model, stages=["bert.embeddings"]), batch(model)
    with network.mixing_at(1, lambda x: x.flip(0)):
        mixed = network(inputs)
    torch.testing.assert_close(mixed, network(inputs).flip(0), rtol=1e-4, atol=1e-5)


@pytest.mark.bad_input
def test_inputs_that_do_not_fit():
    model = make("text/bert")
    network, missing = adapt(model), "inputs must hold 'input_ids', which BertForSequenceClassification"
    for given in ({"labels": LABELS}, {"attention_mask": torch.ones(4, 12)}, {}):
        with pytest.raises(ValueError, match=missing):
            network(given)
    with pytest.raises(TypeError, match=r"mapping of the keyword arguments .* or its 'input_ids' as a tensor, got str"):
        network("a sentence")
    with pytest.raises(ValueError, match="pass what embed gives"):
        network.pool(torch.randn(2, 3, 32))
    network(batch(model))
    with pytest.raises(ValueError, match=missing):
        network({"labels": LABELS})
    with pytest.raises(TypeError, match=r"stage 0 \(inputs\) must leave a tensor"), network.mixing_at(0, torch.flip):
        network(batch(model))
    with pytest.raises(IndexError):
        network({"input_ids": torch.full((2, 3), 4000)})
    assert hooks(model) == []


def test_blocks_may_leave_named_tuples():
    assert with_innermost([torch.ones(2), 3], torch.zeros(2))[1] == 3
    pair = namedtuple("Pair", "hidden rest")((torch.ones(2), 5), 3)
    mixed = with_innermost(pair, torch.zeros(2))
    assert (type(mixed), mixed.rest, mixed.hidden[1]) == (type(pair), 3, 5)
    assert torch.equal(innermost(mixed), torch.zeros(2))


def test_the_page_on_models_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 6
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), {})  # noqa: S102
