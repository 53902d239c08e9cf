"""Any module, split at its named encoder and head."""

import copy

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


class Encoder(nn.TransformerEncoderLayer):
    """Returns a tuple, or a mapping."""

    def __init__(self, output):
        super().__init__(8, 2, 16, batch_first=True)
        self.output = output

    def forward(self, x):
        x = super().forward(x)
        return {"last_hidden_state": x, "hidden_states": None} if self.output == "mapping" else (x, None)


class Tokens(nn.Module):
    """A transformer with a class token, a norm and dropout after its encoder."""

    def __init__(self, output):
        super().__init__()
        self.token, self.encoder = nn.Parameter(torch.randn(1, 1, 8)), Encoder(output)
        self.norm, self.drop, self.out = nn.LayerNorm(8), nn.Dropout(0.5), nn.Linear(8, 3)
        nn.init.normal_(self.norm.weight)

    def reduce(self, tokens):
        return self.drop(self.norm(tokens[:, 0]))

    def forward(self, x):
        found = self.encoder(torch.cat([self.token.expand(len(x), -1, -1), x], 1))
        if isinstance(found, tuple):
            return self.out(self.reduce(found[0]))
        return {"loss": None, "logits": self.out(self.reduce(found["last_hidden_state"]))}


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
    class Careful(u.Body):
        def forward(self, x):
            try:
                return super().forward(x)
            except Exception:
                return torch.zeros(len(x), u.CLASSES)

    assert adapt(Careful().eval(), **BODY)(u.IMAGES).abs().sum() > 0


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
    model = nn.Sequential()
    model.add_module("encoder", nn.Linear(5, 8))
    model.add_module("neck", nn.Sequential(nn.Linear(8, 6), nn.ReLU()))
    model.add_module("out", nn.Linear(6, 2))
    network = adapt(model, encoder="encoder", head="out", pool=nn.Sequential(First(), model.neck))
    network(x := torch.randn(4, 5)).sum().backward()
    assert [parameter.grad is None for parameter in model.neck.parameters()] == [False, False]
    copied = adapt(model, encoder="encoder", head="out", pool=nn.Sequential(First(), copy.deepcopy(model.neck)))
    with pytest.raises(ValueError, match=r"not train as itself: gradients of 'neck.0.weight', 'neck.0.bias', '_pool"):
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
    mm.MultiMix(tuples=8)(network, ids, torch.tensor([0, 6])).total.backward()
    assert (model.table.weight.grad.abs().sum(1) > 0).all()  # of words that occur and of classes alike
