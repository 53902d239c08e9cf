"""Any module, split at its named encoder and head; splits that are not the model itself, and names that cannot be."""

import copy

import pytest
import torch
import torchvision
from torch import nn

import multimix as mm
from multimix.models import adapt
from multimix.protocols import Network


class Body(nn.Module):
    """Convolutions, mean over the map, a linear layer; written as users write them."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.out = nn.Linear(6, 4)

    def forward(self, x):
        maps = self.features(x)
        return self.out(maps.mean((2, 3)))


IMAGES = torch.linspace(-3, 3, 2 * 5 * 7).sin().reshape(2, 1, 5, 7)


class Tokens(nn.Module):
    """A transformer with a class token, a norm and dropout after its encoder."""

    def __init__(self, *, output="tuple", first=True):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.wrapped = Wrapped(self.encoder, output)
        self.norm = nn.LayerNorm(8)
        nn.init.normal_(self.norm.weight)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(8, 3)
        self.output = output

    def reduce(self, tokens):
        return self.drop(self.norm(tokens[:, 0]))

    def forward(self, x):
        found = self.wrapped(torch.cat([self.token.expand(len(x), -1, -1), x], 1))
        tokens = found["last_hidden_state"] if self.output == "mapping" else found[0]
        logits = self.out(self.reduce(tokens))
        return {"loss": None, "logits": logits} if self.output == "mapping" else logits


class Wrapped(nn.Module):
    def __init__(self, encoder, output):
        super().__init__()
        self.encoder = encoder
        self.output = output

    def forward(self, x):
        x = self.encoder(x)
        return {"last_hidden_state": x, "hidden_states": None} if self.output == "mapping" else (x, None)


def test_a_map_is_pooled_by_its_mean():
    model = Body().eval()
    network = adapt(model, encoder="features", head="out")
    assert isinstance(network, Network)
    assert network.stages == range(1)
    features = network.embed(IMAGES).features
    maps = model.features(IMAGES)
    assert features.shape == (2, 35, 6)
    assert torch.equal(features[:, 9], maps[:, :, 1, 2])
    torch.testing.assert_close(network(IMAGES), model(IMAGES))
    assert network.head is model.out
    assert torch.equal(network.pool(features[:, 3:4]), features[:, 3])


def test_the_encoder_runs_once_a_batch_even_inside_handlers_of_exceptions():
    class Careful(Body):
        def forward(self, x):
            try:
                return super().forward(x)
            except Exception:
                return torch.zeros(len(x), 4)

    network = adapt(Careful().eval(), encoder="features", head="out")
    assert network(IMAGES).abs().sum() > 0


@pytest.mark.parametrize("output", ["tuple", "mapping"])
@pytest.mark.parametrize("way", ["method", "module", "function"])
def test_tokens_with_the_models_own_pooling(output, way):
    model = Tokens(output=output).eval()
    if way == "function":
        model.norm, model.drop = nn.Identity(), nn.Identity()
    pools = {
        "method": model.reduce,
        "module": nn.Sequential(First(), model.norm, model.drop),
        "function": lambda x: x[:, 0],
    }
    network = adapt(model, encoder="wrapped", head="out", pool=pools[way])
    x = torch.randn(3, 5, 8)
    expected = model(x)["logits"] if output == "mapping" else model(x)
    assert network.embed(x).features.shape == (3, 6, 8)
    torch.testing.assert_close(network(x), expected)

    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    torch.testing.assert_close(network(x), expected)
    assert twin(x).abs().max() == 0
    twin.load_state_dict(network.state_dict())
    torch.testing.assert_close(twin(x), expected)


class First(nn.Module):
    def forward(self, x):
        return x[:, 0]


def test_a_pool_of_the_models_layers_trains_and_one_of_copies_is_refused():
    model = nn.Sequential()
    model.add_module("encoder", nn.Linear(5, 8))
    model.add_module("neck", nn.Sequential(nn.Linear(8, 6), nn.ReLU()))
    model.add_module("out", nn.Linear(6, 2))
    network = adapt(model, encoder="encoder", head="out", pool=nn.Sequential(First(), model.neck))
    network(x := torch.randn(4, 5)).sum().backward()
    assert [parameter.grad is None for parameter in model.neck.parameters()] == [False, False]
    copied = adapt(model, encoder="encoder", head="out", pool=nn.Sequential(First(), copy.deepcopy(model.neck)))
    with pytest.raises(
        ValueError, match=r"not train as itself: gradients of 'neck\.0\.weight', 'neck\.0\.bias', '_pool"
    ):
        copied(x)


def test_a_pool_that_the_model_holds_is_saved_once():
    model = Tokens(output="tuple").eval()
    model.pooler = nn.Sequential(First(), model.norm, model.drop)
    network = adapt(model, encoder="wrapped", head="out", pool=model.pooler)
    torch.testing.assert_close(network(x := torch.randn(3, 5, 8)), model(x))
    assert {key.removeprefix("model.") for key in network.state_dict()} == set(model.state_dict())
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin.model.norm.weight.zero_()
    torch.testing.assert_close(network(x), model(x))
    assert twin(x).std(0).max() < 1e-6


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
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.out = encoder, nn.Linear(6, 4)

        def forward(self, x):
            x = self.encoder(x)
            axis = 1 if isinstance(encoder, nn.Conv1d | nn.Conv2d | nn.Conv3d) else x.ndim - 1
            return self.out(x.movedim(axis, -1).flatten(1, -2).mean(1) if x.ndim > 2 else x)

    model, inputs = Model(), torch.randn(shape)
    network = adapt(model, encoder="encoder", head="out")
    assert network.embed(inputs).features.shape == (3, positions, 6)
    torch.testing.assert_close(network(inputs), model(inputs))


class Cosine(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(nn.functional.normalize(x, dim=-1), nn.functional.normalize(self.weight, dim=-1))


@pytest.mark.parametrize(
    ("head", "affine"),
    [
        (nn.Linear(6, 4), True),
        (nn.Linear(6, 4, bias=False), True),
        (nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), True),
        (nn.Conv2d(6, 4, 1), True),
        (Cosine(6, 4), False),
        (nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)), False),
        (nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4)), False),
        (nn.Conv2d(6, 4, 3, padding=1), False),
    ],
)
def test_only_an_affine_layer_is_the_head(head, affine):
    model = Body()
    model.out = head
    if isinstance(head, nn.Conv2d):
        model.forward = lambda x: head(model.features(x).mean((2, 3), keepdim=True)).flatten(1)
    network = adapt(model.eval(), encoder="features", head="out")
    torch.testing.assert_close(network(IMAGES), model(IMAGES))
    assert (network.head is head) == affine
    assert affine or network.head is None
    embeddings = torch.randn(2, 3, 6)
    expected = torch.stack([network.classify(row) for row in embeddings])
    assert network.classify(embeddings).shape == (2, 3, 4)
    torch.testing.assert_close(network.classify(embeddings), expected)


def test_a_known_model_may_be_split_by_name():
    model = torchvision.models.resnet18(num_classes=5).eval()
    network = adapt(model, encoder="layer3.1", head="fc", pool=Rest(model), stages=["layer1", "layer2", "layer3"])
    images = torch.randn(2, 3, 32, 32)
    assert network.embed(images).features.shape == (2, 4, 256)
    assert network.stages == range(4)
    torch.testing.assert_close(network(images), model(images))


class Rest(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.layer4 = model.layer4

    def forward(self, x):
        return self.layer4(x.transpose(1, 2).unflatten(2, (2, 2))).mean((2, 3))


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


class Double(Body):
    def forward(self, x):
        return super().forward(x) / 0.5


class MaxPooled(Body):
    def forward(self, x):
        return self.out(self.features(x).amax((2, 3)))


class Averaged(Body):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(6, 4)

    def forward(self, x):
        maps = self.features(x).mean((2, 3))
        return (self.out(maps) + self.other(maps)) / 2


class Aside(Body):
    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(6, 4)


class ZeroHead(MaxPooled):
    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.out.weight)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("model", "names", "words"),
    [
        (
            MaxPooled,
            {},
            r"split at its head 'out', is not itself: pool\(embed\(inputs\)\) is not what enters the head; ",
        ),
        (ZeroHead, {}, r"is not what enters the head; it is off by up to .*Pass as head= .* pool= a function"),
        (Double, {}, r"classify\(pool\(embed\(inputs\)\)\) is not the model's logits \(it gets \(2, 6\) in the model"),
        (Aside, {"head": "unused"}, r"not the model's logits \(it is never called"),
        (Averaged, {}, "is not the model's logits"),
        (Averaged, {"head": "other"}, "is not the model's logits"),
        (Aside, {"encoder": "unused"}, "encoder: Aside never runs 'unused' in its forward pass"),
        (Body, {"encoder": "features.0"}, "is not what enters the head"),
    ],
)
def test_a_wrong_split_is_found_on_the_first_batch(model, names, words):
    network = adapt(model(), **({"encoder": "features", "head": "out"} | names))
    for _ in range(2):
        with pytest.raises(ValueError, match=words):
            network(IMAGES)
    assert network.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


class Words(nn.Module):
    def forward(self, x):
        return {"features": x, "more": x}


class Wordy(Body):
    def __init__(self):
        super().__init__()
        self.words = Words()

    def forward(self, x):
        return self.out(self.words(self.features(x))["features"].mean((2, 3)))


@pytest.mark.bad_input
def test_an_output_without_tensor_is_an_error():
    with pytest.raises(TypeError, match="must return tensors, got dict of features, more"):
        adapt(Wordy(), encoder="words", head="out").embed(IMAGES)


MODULE_OUTSIDE = nn.LayerNorm(6)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (
            {"encoder": "feature", "head": "out"},
            ValueError,
            "encoder must name a module of Body, got 'feature'; did you mean 'fea",
        ),
        (
            {"encoder": "features", "head": "fc"},
            ValueError,
            "head must name a module of Body, got 'fc'; there are 'features'",
        ),
        ({"encoder": "", "head": "out"}, ValueError, "encoder must name a module of Body, got ''"),
        ({"encoder": nn.ReLU(), "head": "out"}, TypeError, "encoder must be the dotted name of a module, got ReLU"),
        ({"encoder": "features"}, ValueError, "head must be given with encoder: .* linear layers of Body are 'out'"),
        ({"pool": torch.sum}, ValueError, "pool must be given together with encoder and head"),
        ({"encoder": "features", "head": "out", "pool": 3}, TypeError, "pool must be a function .* got int"),
        (
            {"encoder": "features", "head": "out", "stages": ["features.9"]},
            ValueError,
            "stages must name .* did you mean 'features",
        ),
        ({"encoder": "features", "head": "out", "stages": "features"}, TypeError, "stages must be a sequence of names"),
        (
            {"encoder": "features", "head": "out", "pool": lambda x: MODULE_OUTSIDE(x.mean(1))},
            ValueError,
            "pool uses the module 'MODULE_OUTSIDE' from outside",
        ),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        adapt(Body(), **arguments)
