"""Splits by name that are not the model itself, and names and pools that cannot be."""

import pytest
import torch
from torch import nn

from models.body import IMAGES, Body
from multimix.models import adapt


class Double(Body):
    def forward(self, x):
        return super().forward(x) / 0.5


class MaxPooled(Body):
    def forward(self, x):
        return self.out(self.features(x).amax((2, 3)))


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
