"""The laws of every family of timm, torchvision and transformers: the network is the model, split, or is refused."""

import copy
import warnings
from dataclasses import replace
from functools import partial
from typing import get_type_hints

import pytest
import timm
import torch
from torch import nn
from torchvision import models as tv

from models import small_transformers as text
from models import small_vision as vision
from multimix.distill import SelfDistilled
from multimix.methods import DenseMultiMix, MultiMix
from multimix.models import adapt
from multimix.protocols import Network
from toy import seeded

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of whatever transformers imports
    import transformers

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")  # in WavLM

NO_STAGES = {
    "text/albert",
    "text/bart",
    "text/bigbird_pegasus",
    "text/flaubert",
    "text/funnel",
    "text/mbart",
    "text/mt5",
}
NO_STAGES |= {"text/mvp", "text/plbart", "text/reformer", "text/squeezebert", "text/t5", "text/t5gemma2", "text/umt5"}
NO_STAGES |= {"text/xlm", "text/xlnet", "image/poolformer", "image/pvt", "vision/twins"}
DEAD = {"image/efficientnet", "image/mobilenet_v1", "image/mobilenet_v2", "image/mobilevit", "image/mobilevitv2"}
NO_AFFINE_HEAD = {"efficientformer", "efficientformer_v2", "levit", "swiftformer"}  # the mean of two classifiers
NO_AFFINE_HEAD |= {"cpubone", "iformer", "repvit"}  # a norm before the last layer belongs to the classifier


class Case:
    """A model of a family, the network made of it, and inputs."""

    def __init__(self, name):
        self.name, self.family, self.is_vision = name, name.partition("/")[2], name.startswith("vision/")
        self.model, self.inputs = vision.make(self.family) if self.is_vision else text.with_batch(name)
        self.network = adapt(self.model)

    def logits(self, model=None):
        model = model or self.model
        return model(self.inputs) if self.is_vision else model(**self.inputs).logits


NAMES = [*(f"vision/{name}" for name in vision.TIMM | vision.TORCHVISION), *text.EVERY]
USUAL = {*(f"vision/{name}" for name in vision.USUAL), *text.NAMES}
SLOW = {f"vision/{name}" for name in vision.SLOW}


def _marks(name):
    return [pytest.mark.sweep] * (name not in USUAL) + [pytest.mark.slow] * (name in SLOW)


@pytest.fixture(scope="module", params=[pytest.param(name, marks=_marks(name)) for name in NAMES])
def case(request):
    return Case(request.param)


@pytest.fixture
def evaluated(case):
    case.model.eval()
    case.network.eval()
    with torch.no_grad():
        yield case
    assert text.hooks(case.model) == []


def test_network_is_the_model(evaluated):
    network, inputs, expected = evaluated.network, evaluated.inputs, evaluated.logits()
    assert isinstance(network, Network)
    assert adapt(network) is network
    network(inputs)
    attributes = dict(vars(network))
    output = network.embed(inputs)
    assert all(vars(network)[name] is value for name, value in attributes.items())  # nothing of a batch stays on it
    before = output.features.clone()
    embeddings = network.pool(output)
    assert (output.features.ndim, embeddings.ndim) == (3, 2)
    assert torch.equal(output.features, before)
    torch.testing.assert_close(network.classify(embeddings), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network(inputs), expected, rtol=1e-5, atol=1e-5)
    assert embeddings.std(0).max() > 1e-3 or evaluated.name in DEAD


def test_training_mode_is_the_models(case):
    if case.name == "text/reformer":
        pytest.skip("draws its own seeds")
    model, network = case.model, case.network
    with torch.no_grad():
        network.eval()(case.inputs)
        network.train()
        assert model.training
        start = copy.deepcopy(model.state_dict())
        text.seed()
        expected, state = case.logits(), copy.deepcopy(model.state_dict())
        model.load_state_dict(start)
        text.seed()
        torch.testing.assert_close(network(case.inputs), expected, rtol=1e-5, atol=1e-5)
        for key, value in model.state_dict().items():
            torch.testing.assert_close(value, state[key], msg=key)
        model.load_state_dict(start)


def test_parameters_are_shared_and_a_copy_is_independent(evaluated):
    model, network, inputs = evaluated.model, evaluated.network, evaluated.inputs
    assert [id(parameter) for parameter in network.parameters()] == [id(p) for p in model.parameters()]
    assert {key.removeprefix("model.") for key in network.state_dict()} == set(model.state_dict())
    before, twin = network(inputs), copy.deepcopy(network)
    assert torch.equal(twin(inputs), before)
    for parameter in twin.parameters():
        parameter.mul_(0.5)
    assert torch.equal(network(inputs), before)
    torch.testing.assert_close(evaluated.logits(), before)
    assert not torch.equal(twin(inputs), before)
    assert twin.head is None or twin.head is not network.head
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin(inputs), before)


def test_head_is_the_last_layer(evaluated):
    network, rows = evaluated.network, evaluated.network.pool(evaluated.network.embed(evaluated.inputs))
    if evaluated.family in NO_AFFINE_HEAD and evaluated.is_vision:
        assert network.head is None
    else:
        weight, bias = network.head.weight.flatten(1), network.head.bias
        expected = rows @ weight.T + (0 if bias is None else bias)
        torch.testing.assert_close(network.classify(rows), expected, rtol=1e-4, atol=1e-5)
        classes = evaluated.logits().shape[1]
        layers = [m for m in evaluated.model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        assert network.head is [m for m in layers if len(m.weight) == classes][-1]
    grid = network.classify(rows.reshape(len(rows), 1, 1, -1))
    torch.testing.assert_close(grid[:, 0, 0], network.classify(rows), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network.classify(rows[1]), network.classify(rows)[1], rtol=1e-4, atol=1e-5)


def test_a_single_position_is_pooled_by_itself(evaluated):
    """It is what an input gives that has it everywhere."""
    network, output = evaluated.network, evaluated.network.embed(evaluated.inputs)
    r, alone = output.features.shape[1], output.each_position()
    alone = replace(alone, features=alone.features[:6])
    each, few = network.pool(alone), network.pool(replace(alone, features=alone.features[:2]))
    assert each.shape == (len(alone.features), network.pool(output).shape[1])
    assert each.isfinite().all()
    everywhere = network.pool(replace(alone, features=alone.features.expand(-1, r, -1)))
    torch.testing.assert_close(each, everywhere, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(each[:2], few, rtol=1e-4, atol=1e-4)


def test_stages_mix(evaluated):
    network, stages = evaluated.network, evaluated.network.stages
    inputs = evaluated.inputs if evaluated.is_vision else text.batch(evaluated.model)
    assert (len(stages) == 1) == (evaluated.name in NO_STAGES)
    plain = network(inputs)
    some = {0, 1, len(stages) // 2, len(stages) - 1}
    for stage in some & set(stages) if evaluated.is_vision else stages[1:]:
        with network.mixing_at(stage, lambda x: x.flip(0)):
            mixed = network(inputs)
        torch.testing.assert_close(mixed, plain.flip(0), rtol=1e-3, atol=1e-4, msg=f"stage {stage}")


@pytest.mark.parametrize(
    "method", [MultiMix(20), SelfDistilled(DenseMultiMix(20, clean=0.5))], ids=["multimix", "distilled dense"]
)
def test_methods_train_what_plain_training_trains(case, method):
    model, network = case.model, case.network
    network.train().zero_grad()
    targets = text.LABELS[: len(case.logits())]
    losses = copy.copy(method)(network, case.inputs, targets, generator=seeded())
    losses.total.backward()
    assert losses.total.isfinite()
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert gradients[f"{network.head_name}.weight" if network.head else next(iter(gradients))].abs().sum() > 0
    assert sum(bool(gradient.abs().sum() > 0) for gradient in gradients.values()) > 0.5 * len(gradients)
    plain = copy.deepcopy(model)
    plain.zero_grad()
    case.logits(plain).square().sum().backward()
    assert set(gradients) == {key for key, p in plain.named_parameters() if p.grad is not None}
    network.zero_grad()


AUXILIARY = r"has auxiliary classifiers; adapt\(model, head='fc'\) trains its main one"
REFUSED = {  # of vision: name or what makes it, settings, image size, what the error says
    "crossvit": ("crossvit_tiny_240", {}, 240, "CrossVit combines several classifiers"),
    "efficientvim": ("efficientvim_m1", {}, 64, "EfficientViM combines several classifiers"),
    "volo/auxiliary": ("VOLO", vision.VOLO, 64, "VOLO adds the maximum of auxiliary logits .* use_aux_head=False"),
    "deit/distilled": ("deit_tiny_distilled_patch16_224", vision.VIT, 32, "several classifiers, .* without it"),
    "SqueezeNet": (tv.squeezenet1_1, {}, 64, "SqueezeNet ends in a convolution and a ReLU, not in a linear layer"),
    "GoogLeNet/auxiliary": (partial(tv.googlenet, init_weights=False), {}, 64, f"GoogLeNet {AUXILIARY}"),
    "Inception3/auxiliary": (partial(tv.inception_v3, init_weights=False), {}, 96, f"Inception3 {AUXILIARY}"),
}


@pytest.mark.sweep
def test_the_tables_have_every_family():
    assert not vision.TIMM.keys() & REFUSED.keys()
    known = {key.partition("/")[0] for key in vision.TIMM | vision.TORCHVISION | REFUSED}
    builders = {name: tv.get_model_builder(name) for name in tv.list_models(module=tv)}
    assert len(builders) > 70
    returned = {name: get_type_hints(builder)["return"] for name, builder in builders.items()}
    assert known == {*timm.list_modules(), *(cls.__name__ for cls in returned.values())}
    for name, cls in returned.items():
        assert builders[name].__module__ == cls.__module__, name


@pytest.mark.bad_input
@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_cannot_be_split_is_refused(family):
    *row, words = REFUSED[family]
    model, images = vision.create(family, *row)
    assert model.eval()(images).shape == (3, vision.CLASSES)
    with pytest.raises(ValueError, match=words):
        adapt(model)


BERT = text.configuration("bert")
TAGGED = {"encoder": "bert", "head": "classifier", "mask": "attention_mask", "dense": True}


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "words", "instead"),
    [
        (
            lambda: text.make("text/canine"),
            "states of its 'canine'.*pass head='classifier', to",
            {"head": "classifier"},
        ),
        (lambda: text.make("image/cvt"), "classifies more than the hidden states of its 'cvt'", {"head": "classifier"}),
        (lambda: text.make("image/swiftformer"), r"combines several classifiers \('head', 'dist_head'\)", {}),
        (lambda: text.make("image/hgnet_v2"), "no classifier with one body", {"encoder": "encoder", "head": "fc"}),
        (
            lambda: transformers.DeiTForImageClassificationWithTeacher(text.configuration("deit")),
            "several classifie",
            {},
        ),
        (lambda: transformers.BertModel(BERT), "BertModel is no classifier with one body and a head", {}),
        (lambda: transformers.BertForMaskedLM(BERT), "has no layer of num_labels = 5 outputs behind 'bert'", {}),
        (lambda: transformers.BertForTokenClassification(BERT).eval(), "has no pooling.*dense=True", TAGGED),
    ],
)
def test_models_of_transformers_that_are_refused(make, words, instead):
    model = make()
    inputs = text.batch(model)
    with pytest.raises(ValueError, match=words):
        adapt(model)(inputs)
    assert text.hooks(model) == []
    if instead:
        torch.testing.assert_close(adapt(model, **instead)(inputs), model(**inputs).logits)
