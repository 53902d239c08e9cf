"""Models of no known family, split at their head, which is found or named, or at a named encoder and head."""

import copy
import pickle

import pytest
import torch
from torch import nn

import multimix as mm
from models import unusual as u
from multimix.models import adapt
from multimix.protocols import Network

BODY = {"encoder": "body", "head": "fc"}


class First(nn.Module):
    def forward(self, x):
        return x[:, 0]


class Tokens(nn.Module):
    """A transformer with a class token, whose encoder gives a tuple or a mapping; a norm and dropout come after it."""

    def __init__(self, output):
        super().__init__()
        self.token, self.drop = nn.Parameter(torch.randn(1, 1, 8)), nn.Dropout(0.5)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 3)
        nn.init.normal_(self.norm.weight)
        self.key = 0 if output == "tuple" else "last_hidden_state"
        self.encoder.register_forward_hook(
            lambda module, given, x: {self.key: x, "hidden_states": None} if self.key else (x, None)
        )

    def reduce(self, tokens):
        return self.drop(self.norm(tokens[:, 0]))

    def forward(self, x):
        found = self.encoder(torch.cat([self.token.expand(len(x), -1, -1), x], 1))
        logits = self.out(self.reduce(found[self.key]))
        return {"loss": None, "logits": logits} if self.key else logits


def test_a_map_is_pooled_by_its_mean():
    model, images = u.Body().eval(), u.IMAGES[..., :12]
    network = adapt(model, **BODY)
    assert isinstance(network, Network)
    assert network.stages == range(1)
    output, maps = network.embed(images), model.body(model.stem(images))
    assert output.features.shape == (4, 12, 8)
    assert output.grid == (4, 3)
    assert torch.equal(output.features[:, 5], maps[:, :, 1, 2])
    torch.testing.assert_close(network(images), model(images))
    assert network.head is model.fc
    assert torch.equal(network.pool(output.features[:, 3:4]), output.features[:, 3])


def test_the_run_ends_at_the_encoder_even_inside_handlers_of_exceptions():
    def careful(m, x):
        try:
            return u.Body.forward(m, x)
        except Exception:
            return torch.zeros(len(x), u.CLASSES)

    assert adapt(u.body("Careful", careful)().eval(), **BODY)(u.IMAGES).abs().sum() > 0


@pytest.mark.parametrize(
    ("way", "output"),
    [("method", "tuple"), ("method", "mapping"), ("module", "tuple"), ("held", "mapping"), ("function", "tuple")],
)
def test_tokens_with_the_models_own_pooling(way, output):
    model = Tokens(output).eval()
    if way == "function":
        model.norm, model.drop = nn.Identity(), nn.Identity()
    if way == "held":  # by the model, where it is saved once
        model.pooler = nn.Sequential(First(), model.norm, model.drop)
    pools = {
        "method": model.reduce,
        "module": nn.Sequential(First(), model.norm, model.drop),
        "held": getattr(model, "pooler", None),
        "function": lambda x: x[:, 0],
    }
    network = adapt(model, encoder="encoder", head="out", pool=pools[way])
    x = torch.randn(3, 5, 8)
    expected = model(x)["logits"] if output == "mapping" else model(x)
    assert network.embed(x).features.shape == (3, 6, 8)
    torch.testing.assert_close(network(x), expected)
    saved = {key.removeprefix("model.") for key in network.state_dict()}
    assert way == "module" or saved == set(model.state_dict())

    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    torch.testing.assert_close(network(x), expected)
    assert twin(x).abs().max() == 0
    twin.load_state_dict(network.state_dict())
    torch.testing.assert_close(twin(x), expected)


def test_a_pool_of_the_models_layers_trains_and_one_of_copies_is_refused():
    model = nn.Sequential(nn.Linear(5, 8), nn.Sequential(nn.Linear(8, 6), nn.ReLU()), nn.Linear(6, 2))
    network = adapt(model, encoder="0", head="2", pool=nn.Sequential(First(), model[1]))
    network(x := torch.randn(4, 5)).sum().backward()
    assert [parameter.grad is None for parameter in model[1].parameters()] == [False, False]
    copied = adapt(model, encoder="0", head="2", pool=nn.Sequential(First(), copy.deepcopy(model[1])))
    with pytest.raises(ValueError, match=r"not train as itself: gradients of '1.0.weight', '1.0.bias', '_pool"):
        copied(x)


@pytest.mark.parametrize(
    ("encoder", "shape", "positions"),
    [
        (nn.Linear(5, 6), (3, 5), 1),  # vectors
        (nn.Linear(5, 6), (3, 7, 5), 7),  # tokens
        (nn.Conv1d(5, 6, 1), (3, 5, 7), 7),  # sequences, channels first
        (nn.Conv2d(5, 6, 1), (3, 5, 2, 4), 8),  # maps
        (nn.Linear(5, 6), (3, 2, 4, 5), 8),  # maps, channels last
        (nn.Conv3d(5, 6, 1), (3, 5, 2, 2, 3), 12),  # videos
    ],
)
def test_layouts(encoder, shape, positions):
    def forward(x):
        x = encoder(x)
        x = x if isinstance(encoder, nn.Linear) else x.movedim(1, -1)
        return out(x.flatten(1, -2).mean(1) if x.ndim > 2 else x)

    out, inputs = nn.Linear(6, 4), torch.randn(shape)
    model = nn.Sequential(encoder, out)
    model.forward = forward
    network = adapt(model, encoder="0", head="1")
    assert network.embed(inputs).features.shape == (3, positions, 6)
    torch.testing.assert_close(network(inputs), model(inputs))


class Cosine(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(nn.functional.normalize(x, dim=-1), nn.functional.normalize(self.weight, dim=-1))


@pytest.mark.parametrize(
    ("head", "affine"),
    [
        (nn.Linear(8, 4, bias=False), True),
        (nn.utils.parametrizations.weight_norm(nn.Linear(8, 4)), True),
        (nn.Conv2d(8, 4, 1), True),
        (Cosine(8, 4), False),
        (nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 4)), False),
        (nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 4)), False),
        (nn.Conv2d(8, 4, 3, padding=1), False),
        (nn.Conv2d(8, 4, 1, groups=2), False),
    ],
)
def test_only_an_affine_layer_is_the_head(head, affine):
    model = u.Body(head)
    if isinstance(head, nn.Conv2d):
        model.forward = lambda x: head(model.features(x)[..., None, None]).flatten(1)
    network = adapt(model.eval(), **BODY)
    torch.testing.assert_close(network(u.IMAGES), model(u.IMAGES))
    assert network.head is (head if affine else None)
    embeddings = torch.randn(2, 3, 8)
    expected = torch.stack([network.classify(row) for row in embeddings])
    assert network.classify(embeddings).shape == (2, 3, 4)
    torch.testing.assert_close(network.classify(embeddings), expected)


def test_a_head_tied_to_an_embedding():
    model, ids = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 6), nn.Linear(6, 7, bias=False)), torch.arange(6)
    model[2].weight = model[0].weight
    model.forward = lambda ids: model[2](model[1](model[0](ids)).mean(1))
    network, ids = adapt(model, encoder="1", head="2"), ids.reshape(2, 3)
    torch.testing.assert_close(network(ids), model(ids))
    assert len(list(network.parameters())) == len(list(model.parameters())) == 3
    twin = copy.deepcopy(network)
    assert twin.head.weight is twin.model[0].weight
    assert twin.head.weight is not model[2].weight
    mm.MultiMix(tuples=8)(network, ids, torch.tensor([0, 6])).total.backward()
    assert (model[0].weight.grad.abs().sum(1) > 0).all()  # of words that occur and of classes alike


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
    after = []
    network = adapt(u.body("Counting", lambda m, x: (m.fc(m.features(x)), after.append(1))[0])(), **names)
    network(u.IMAGES)
    compared = len(after)
    network(u.IMAGES)
    assert len(after) == compared > 0


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
    model = nn.Sequential(nn.Linear(8, 3), nn.Linear(5, 8), nn.Linear(8, 3))
    model.forward = lambda x: model[0](input=model[1](x).relu())
    network = adapt(model)
    mm.MultiMix(tuples=10)(network, torch.randn(4, 5), u.LABELS).total.backward()
    assert network.head is model[0]
    assert model[1].weight.grad.abs().max() > 0


@pytest.mark.parametrize("logit", [0, 1 / 3])
def test_a_head_whose_output_is_the_same_everywhere(logit):
    model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(model[2].bias, logit)
    network = adapt(model)
    network(torch.randn(4, 5))
    assert network.head is model[2]


def test_a_linear_layer_of_ones_own_is_found():
    product = nn.Module()
    product.weight = nn.Parameter(torch.randn(8, 3))
    product.forward = lambda x: x @ product.weight
    model = u.Body(product)
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
    model = u.body("Two", lambda m, image, *, scale: m.fc(m.features(image) * scale))().eval()
    inputs = {"image": u.IMAGES, "scale": torch.tensor(2.0), "labels": u.LABELS}
    network = adapt(model)
    torch.testing.assert_close(network(inputs), model(u.IMAGES, scale=2.0))
    with pytest.raises(ValueError, match="as keywords, which are image, scale; got image, size"):
        adapt(model)({"image": u.IMAGES, "size": u.IMAGES})


@pytest.mark.bad_input
@pytest.mark.filterwarnings("ignore:None of the inputs:UserWarning")
def test_a_stage_inside_a_checkpoint():
    from models.test_any_model import timm_vit

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
