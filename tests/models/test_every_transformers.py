"""Every family of transformers is split, or refused with what to do instead."""

import warnings

import pytest
import torch

from models.small_transformers import batch, configuration, hooks, make
from multimix.models import adapt

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of whatever transformers imports
    import transformers

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")  # in WavLM


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
