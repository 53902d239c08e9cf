"""Every family of transformers is split, or refused with what to do instead."""

import warnings
from dataclasses import replace

import pytest
import torch

from models.small_transformers import KINDS, NAMES, batch, configuration, generator, hooks, labels, make
from multimix.methods import DenseMultiMix, MultiMix
from multimix.models import adapt

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of whatever transformers imports
    import transformers
    from transformers.models.auto import modeling_auto

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")  # in WavLM

EVERY = [
    f"{kind}/{family}"
    for kind, task in KINDS.items()
    for family in getattr(modeling_auto, f"MODEL_FOR_{task}_CLASSIFICATION_MAPPING_NAMES")
]
REFUSED = {"text/canine", "image/cvt", "image/swiftformer", "image/hgnet_v2"}

UNKNOWN = {
    **dict.fromkeys(("text/layoutlmv2", "image/dinat"), "need a package"),
    **dict.fromkeys(("text/perceiver", "image/perceiver", "image/textnet", "image/timm_wrapper"), "too large"),
    **dict.fromkeys(
        ("text/axk1", "text/axk2", "text/mistral4", "text/t5gemma", "image/levit"), "sizes that must fit each other"
    ),
    **dict.fromkeys(
        ("text/cohere_compass_text", "text/qwen3_5", "text/zamba", "text/zamba2"), "kinds of layers to name"
    ),
    **dict.fromkeys(("image/siglip2", "image/shieldgemma2"), "take no plain images"),
    "image/pp_lcnet": "its classifier returns no logits",
}
"""Neither known to work nor refused, as no small model of them was made."""


@pytest.mark.sweep
@pytest.mark.parametrize("name", [name for name in EVERY if name not in {*NAMES, *REFUSED, *UNKNOWN}])
def test_every_other_family(name):
    """Whatever the sizes above make small is split exactly and trained."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make(name)
        inputs = batch(model)
        with torch.no_grad():
            expected = model(**inputs).logits
    network = adapt(model).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(inputs), expected, rtol=1e-4, atol=1e-4)
        output = network.embed(inputs)
        r, alone = output.features.shape[1], output.each_position()
        alone = replace(alone, features=alone.features[:6])
        everywhere = network.pool(replace(alone, features=alone.features.expand(-1, r, -1)))
        torch.testing.assert_close(network.pool(alone), everywhere, rtol=1e-3, atol=1e-3)
        for stage in network.stages[1:]:
            with network.mixing_at(stage, lambda x: x.flip(0)):
                torch.testing.assert_close(network(inputs), expected.flip(0), rtol=1e-3, atol=1e-3)
    network.train()
    for method in (MultiMix(20), DenseMultiMix(20)):
        network.zero_grad()
        total = method(network, inputs, labels(), generator=generator()).total
        total.backward()
        assert total.isfinite()
        assert network.head.weight.grad.isfinite().all()
        assert network.head.weight.grad.abs().sum() > 0
    assert hooks(model) == []


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("text/canine", "classifies more than the hidden states of its 'canine'.*pass head='classifier', to"),
        ("image/cvt", "classifies more than the hidden states of its 'cvt'"),
        ("image/swiftformer", r"combines several classifiers \('head', 'dist_head'\)"),
        ("image/hgnet_v2", "no classifier with one body and a head"),
    ],
)
def test_families_that_are_refused(name, text):
    model = make(name)
    with pytest.raises(ValueError, match=text):
        adapt(model)(batch(model))
    assert hooks(model) == []
    if name in ("text/canine", "image/cvt"):
        network = adapt(model, head="classifier")
        torch.testing.assert_close(network(batch(model)), model(**batch(model)).logits)
    if name == "image/hgnet_v2":  # what the page on models advises
        network = adapt(model, encoder="encoder", head="fc")
        torch.testing.assert_close(network(batch(model)), model(**batch(model)).logits)


@pytest.mark.bad_input
def test_two_classifiers_are_no_head():
    model = transformers.DeiTForImageClassificationWithTeacher(configuration("deit"))
    with pytest.raises(ValueError, match="combines several classifiers"):
        adapt(model)


@pytest.mark.bad_input
def test_models_that_are_no_classifiers():
    config = configuration("bert")
    with pytest.raises(ValueError, match="BertModel is no classifier with one body and a head"):
        adapt(transformers.BertModel(config))
    with pytest.raises(ValueError, match="BertForMaskedLM has no layer of num_labels = 5 outputs behind 'bert'"):
        adapt(transformers.BertForMaskedLM(config))
    tagger = transformers.BertForTokenClassification(config)
    with pytest.raises(ValueError, match=r"has no pooling.*dense=True"):
        adapt(tagger)(batch(tagger))
    dense = adapt(tagger.eval(), encoder="bert", head="classifier", mask="attention_mask", dense=True)
    torch.testing.assert_close(dense(batch(tagger)), tagger(**batch(tagger)).logits)
