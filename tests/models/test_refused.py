"""What adapt refuses of models that it splits by name or at their head: at once, or on the first batch."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import unusual as u
from multimix.models import adapt

BODY = {"encoder": "body", "head": "fc"}
DENSE = {"encoder": "body", "head": "out", "dense": True}
OUTSIDE = nn.LayerNorm(8)
CALLS = "classify(pool(embed(inputs))) is not"


def written(forward, head=None):
    return u.body("Body", forward, other=lambda: nn.Linear(8, u.CLASSES))(head)


def rows(maps):
    return maps.flatten(2).transpose(1, 2)


def turned(x):
    return 2 * x.detach() - x


def maximum(m, x):
    return m.fc(m.body(m.stem(x)).amax((2, 3)))


def zeroed():
    model = written(maximum)
    nn.init.zeros_(model.fc.weight)
    return model


ARGUMENTS = [  # what model, how it is adapted, what the error says
    (u.Body, {"head": "fcc"}, "head must name a module of Body, got 'fcc'; did you mean 'fc'"),
    (u.Body, {"head": nn.Linear(2, 2)}, "head must be the dotted name of a module, got Linear"),
    (u.Body, BODY | {"encoder": ""}, "encoder must name a module of Body, got ''; there are 'stem', 'body', 'body.0"),
    (u.Body, {"encoder": "body"}, "that gives the logits; the linear layers of Body are 'fc'"),
    (u.Body, BODY | {"stages": ["body.9"]}, "stages must name a module of Body, got 'body.9'; did you mean 'body"),
    (u.Body, BODY | {"stages": "body"}, "stages must be a sequence of names, got the string 'body'"),
    (u.Body, BODY | {"pool": 3}, "pool must be a function (b, r, d) -> (b, e), got int"),
    (u.Body, BODY | {"pool": lambda x: OUTSIDE(x.mean(1))}, "pool uses the module 'OUTSIDE' from outside"),
    (u.Body, BODY | {"objective": "bce"}, "objective must be an Objective such as CrossEntropy(), got 'bce'"),
    (u.Body, {"pool": torch.sum}, "pool must be given together with encoder and head"),
    (u.Body, {"head": "fc", "mask": "mask"}, "mask must be given together with encoder and head"),
    (u.Body, {"dense": True}, "dense must be given together with head"),
    (u.Body, {"denes": True}, "options must be of objective, dense, gather, got denes"),
    (u.Segmenter, DENSE | {"pool": torch.sum}, "pool does not go with dense=True: where every position has logits"),
    (lambda: nn.Linear(5, 3), {}, "Linear is a single layer; put it into nn.Sequential"),
    (nn.Sequential, {}, "Sequential is a single layer"),
    (lambda: nn.Sequential(nn.Flatten(), nn.ReLU()), {}, "Sequential has no layer with weights that could give logits"),
    (lambda: "resnet18", {}, "model must be a torch.nn.Module, got str"),
    (lambda: u.Body, {}, "model must be a torch.nn.Module, got <class 'models.unusual.Body'>"),
]
SPLITS = [
    (lambda: written(maximum), BODY, "'fc', is not itself: pool(embed(inputs)) is not what enters the head; it is off"),
    (zeroed, BODY, ". Pass as head= the layer that gives the logits, as encoder= the module whose output is to be mix"),
    (u.Body, {"encoder": "body.0", "head": "fc"}, "pool(embed(inputs)) is not what enters the head"),
    (lambda: written(lambda m, x: m.fc(m.features(x)) / 0.5), BODY, f"{CALLS} the model's logits (it gets (4, 8) in"),
    (lambda: written(u.Body.forward), BODY | {"head": "other"}, "(it is never called in the model, (4, 8) here)"),
    (lambda: written(lambda m, x: m.fc(z := m.features(x)) + m.other(z)), BODY, f"{CALLS} the model's logits"),
    (lambda: written(u.Body.forward), BODY | {"encoder": "other"}, "encoder: Body never runs 'other' in its forward"),
    (u.Segmenter, DENSE | {"encoder": "body.0"}, "pool(embed(inputs)) is not what enters the head"),
    (u.Segmenter, DENSE | {"head": "aside"}, f"{CALLS} what leaves its head (it is never called"),
    (lambda: u.Segmenter(nn.Conv2d(6, 4, 3, padding=1)), DENSE, f"{CALLS} what leaves its head (it gets (4, 6, 8, 8)"),
]
HEADS = [  # what the model does in its forward pass, how it is adapted, what the error says
    (
        lambda m, x: F.dropout(m.fc(m.features(x)), 0.5, m.training),
        {},
        "does something to what its head 'fc' gives",
    ),
    (lambda m, x: (lambda z: z[:, :3] if m.training else m.fc(z))(m.features(x)), {}, "head: Body never runs 'fc'"),
    (lambda m, x: m.fc(m.features(x).detach()), BODY, "does not train as itself: gradients of 'stem.weight'"),
    (lambda m, x: m.fc(turned(m.features(x))), BODY, "does not train as itself: gradients of 'stem.weight'"),
    (lambda m, x: m.fc(m.features(x)).mul_(10), {}, "changes in place what its head 'fc' gives"),
    (lambda m, x: m.fc(m.features(x)).relu_(), {"head": "fc"}, "changes in place what its head 'fc' gives, while"),
    (lambda m, x: m.fc(m.features(x)).sigmoid(), {}, "makes a sigmoid of what its head 'fc' gives"),
    (lambda m, x: -m.fc(m.features(x)), {}, "makes the negative of what its head 'fc' gives"),
    (lambda m, x: m.fc(m.features(x)).softmax(1), {"head": "fc"}, "makes a softmax of what its head 'fc'"),
    (lambda m, x: m.fc(m.features(x))[:, 0], {}, "goes on after its last linear layer 'fc'"),
    (lambda m, x: m.fc(m.features(x)) ** 2, {}, "let the model return what it gives"),
    (lambda m, x: F.linear(m.features(x), m.fc.weight), {}, "makes its logits in no layer; make the layer that"),
    (lambda m, x: F.linear(m.features(x), m.fc.weight), {"head": "fc"}, "never runs 'fc' in its forward pass"),
    (lambda m, x: m.fc(rows(m.body(m.stem(x)))), {}, "logits at every position, (4, 16, 3); pass dense=True and"),
    (lambda m, x: m.fc(rows(m.body(m.stem(x)))).mean(1), {}, "pools what its last linear layer 'fc' gives"),
    (lambda m, x: m.fc(rows(m.body(m.stem(x)))).mean(1), {"head": "fc"}, "pools what its last linear layer 'fc'"),
    (lambda m, x: dict.fromkeys("ab", m.features(x)), {}, "must return tensors, got dict of a, b"),
    (lambda m, x: m.fc(m.features(x)), {"head": "stem"}, "Body returns what 'fc' gives, not 'stem'"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize(("make", "names", "words"), ARGUMENTS)
def test_arguments_are_refused_at_once(make, names, words):
    with pytest.raises((ValueError, TypeError)) as caught:
        adapt(make(), **names)
    assert words in str(caught.value)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "names", "words"),
    [*SPLITS, *((lambda forward=forward: written(forward), names, words) for forward, names, words in HEADS)],
)
def test_a_wrong_split_is_found_on_the_first_batch(make, names, words):
    network = adapt(make(), **names)
    for _ in range(2):
        with pytest.raises((ValueError, TypeError)) as caught:
            network(u.IMAGES)
        assert words in str(caught.value)
    assert network.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.bad_input
def test_a_column_that_is_returned_as_numbers():
    model = written(lambda m, x: m.fc(m.features(x)).squeeze(1), nn.Linear(8, 1))
    with pytest.raises(ValueError, match=r"number an example, \(4,\), where its head 'fc' gives a column, \(4, 1\);"):
        adapt(model)(u.IMAGES)
    assert adapt(u.Body(nn.Linear(8, 1)))(u.IMAGES).shape == (4, 1)


@pytest.mark.bad_input
def test_what_later_batches_do_is_looked_at_too():
    network = adapt(model := u.Body(), head="fc")
    network(u.IMAGES)
    model.features = lambda x: torch.ones(4, 5, 8)
    with pytest.raises(ValueError, match=r"what enters 'fc' of Body has shape \(4, 5, 8\), not one row an example"):
        network(u.IMAGES)
