"""Models of all kinds, most of them hand-written: what one writes, what comes, and what is refused."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import multimix as mm
from models import unusual as u
from multimix.models import adapt

MULTIMIX = mm.MultiMix(tuples=10)


@dataclass(frozen=True)
class Case:
    """A model, how it is adapted, and what comes: it works, or a line that holds ``words``."""

    what: str
    make: Callable[[], nn.Module]
    names: dict[str, Any] = field(default_factory=dict)
    words: str = ""
    inputs: Any = None
    method: Any = MULTIMIX
    logits: Callable[[Any], Tensor] = lambda output: output

    @property
    def line(self) -> str:
        """What the documentation says of it."""
        names = "".join(f", {name}={value!r}" for name, value in self.names.items()).replace("'", '"')
        return f"| {self.what} | `adapt(model{names})` | {f'refused: `{self.words}`' if self.words else 'works'} |"


def bert() -> nn.Module:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(num_labels=u.CLASSES, vocab_size=20, **sizes)
    return transformers.BertForSequenceClassification(config)


def timm_vit() -> nn.Module:
    timm = pytest.importorskip("timm")
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=u.CLASSES, drop_rate=0.1, **sizes)
    model.set_grad_checkpointing()
    return model


def changed(make: Callable[[], nn.Module], name: str, change: Callable[[nn.Module], nn.Module]) -> nn.Module:
    model = make()
    setattr(model, name, change(getattr(model, name)))
    return model


def torchvision_mobilenet() -> nn.Module:
    return pytest.importorskip("torchvision").models.mobilenet_v3_small(num_classes=u.CLASSES, width_mult=0.25)


BODY = {"encoder": "body", "head": "fc"}
CASES = [
    Case("the network of PyTorch's CIFAR-10 tutorial: activations and views are functions", u.Tutorial),
    Case("a hand-written residual network", u.ResNet),
    Case(
        "the same, to mix its maps",
        u.ResNet,
        {"encoder": "layer2", "head": "linear"},
        method=mm.DenseMultiMix(tuples=10),
    ),
    Case("a hand-written residual network that drops blocks", lambda: u.ResNet(drop=0.3)),
    Case("a vision transformer with a class token, hand-written", u.ViT),
    Case("a GRU over words", u.Recurrent, inputs=u.WORDS),
    Case("all convolutions, the last one 1x1", u.Convolutional),
    Case("dropout between body and head", u.Dropped),
    Case(
        "the same, to mix maps",
        u.Dropped,
        BODY,
        "in training mode Dropped does more between 'body' and its head 'fc' than the network",
    ),
    Case("`F.dropout` or noise between them, in training mode", u.Noisy),
    Case(
        "the same, to mix maps",
        u.Noisy,
        BODY,
        "something random or of the batch, F.dropout for one; leave encoder= out",
    ),
    Case("dropout on the maps, to mix these", u.DroppedMaps, BODY, "leave encoder= out, adapt(model, head='fc'), or"),
    Case("the same, as that line says", u.DroppedMaps, {"encoder": "drop", "head": "fc"}),
    Case("an adapter whose gate starts at 0", u.Gated),
    Case("the same, to mix maps", u.Gated, BODY, "does not train as itself: gradients of 'gate' differ"),
    Case("a body inside re-entrant checkpointing", lambda: u.checkpointed(reentrant=True)),
    Case(
        "the same, to mix maps",
        lambda: u.checkpointed(reentrant=True),
        BODY,
        "let the model call checkpoint(..., use_reentrant=False), or leave encoder= out",
    ),
    Case("the same with `use_reentrant=False`", lambda: u.checkpointed(reentrant=False), BODY),
    Case("returns `(features, logits)`", u.WithFeatures, logits=lambda output: output[1]),
    Case('returns `{"features": ..., "out": ...}`', u.InMapping, logits=lambda output: output["out"]),
    Case("returns a dataclass", u.InDataclass, logits=lambda output: output.logits),
    Case("two heads", u.TwoHeads, {}, "returns what several layers give ('fc', 'other'); pass head="),
    Case("the same, one named", u.TwoHeads, {"head": "other"}, logits=lambda output: output[1]),
    Case("ends in `nn.LogSoftmax`", u.LogSoftmax, {}, "ends in LogSoftmax ('act') after its head 'fc'"),
    Case("the same with `model.act = nn.Identity()`", lambda: changed(u.LogSoftmax, "act", lambda _: nn.Identity())),
    Case("ends in `F.log_softmax`", u.FunctionalLogSoftmax, {}, "makes a log-softmax of what its head 'fc' gives"),
    Case("logits divided by a temperature", u.Temperature, {}, "makes a multiple of what its head 'fc' gives"),
    Case("a head that is called twice", u.Siamese, {}, "calls 'fc' 2 times in a forward pass"),
    Case(
        "logits that are a product with the words' vectors",
        u.TiedWords,
        {},
        "runs no linear layer as a module; make the layer that gives them a module of its own (nn.Linear)",
        inputs=u.WORDS,
    ),
    Case("a head with LoRA around it", lambda: u.Body(u.LoRA(nn.Linear(8, u.CLASSES)))),
    Case("a head with old-style `weight_norm`", lambda: u.Body(nn.utils.weight_norm(nn.Linear(8, u.CLASSES)))),
    Case(
        "`nn.DataParallel(model)`",
        lambda: nn.DataParallel(u.Body()),
        {},
        "adapt the plain model inside, and wrap a module in DistributedDataParallel whose forward returns",
    ),
    Case(
        "`torch.compile(model)`",
        lambda: torch.compile(u.Body()),
        {},
        "adapt the plain model and compile its parts, model.body = torch.compile(model.body)",
    ),
    Case(
        "the same, as that line says",
        lambda: changed(u.Body, "body", lambda part: torch.compile(part, backend="eager")),
    ),
    Case("a ViT of timm with dropout, `set_grad_checkpointing()`", timm_vit),
    Case("a MobileNetV3 of torchvision, with its dropout", torchvision_mobilenet),
    Case("a BERT of transformers", bert, inputs=u.WORDS, logits=lambda output: output.logits),
    Case("the same, its head alone", bert, {"head": "classifier"}, inputs=u.WORDS, logits=lambda output: output.logits),
]
WORKING = [case for case in CASES if not case.words]


def _inputs(case: Case) -> Any:
    return u.IMAGES if case.inputs is None else case.inputs


def _gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("case", WORKING, ids=[case.what for case in WORKING])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_it_is_the_model_and_trains_as_it(case):
    alone, inputs = case.make().eval(), _inputs(case)
    model = case.make().eval()
    model.load_state_dict(alone.state_dict())
    network = adapt(model, **case.names)
    torch.testing.assert_close(network(inputs), case.logits(alone(inputs)))

    network.train()
    alone.train()
    torch.manual_seed(1)
    expected = _gradients(alone, F.cross_entropy(case.logits(alone(inputs)), u.LABELS))
    torch.manual_seed(1)
    ours = _gradients(model, mm.ERM()(network, inputs, u.LABELS).total)
    for name, gradient in expected.items():
        if gradient is not None:
            torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, alone.get_buffer(name), msg=name)

    model.zero_grad()
    torch.manual_seed(1)
    ours = _gradients(model, case.method(network, inputs, u.LABELS).total)
    missing = {name for name, gradient in expected.items() if gradient is not None and ours[name] is None}
    assert not missing


@pytest.mark.bad_input
@pytest.mark.parametrize("case", [case for case in CASES if case.words], ids=lambda case: case.what)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_it_is_refused_in_one_line(case):
    torch.manual_seed(0)
    model = case.make()
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # what it says is compared below
        case.method(adapt(model, **case.names), _inputs(case), u.LABELS)
    said = str(caught.value)
    assert case.words in said
    assert "\n" not in said
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_documentation_has_every_line():
    page = (Path(__file__).parents[2] / "docs" / "hosts.md").read_text(encoding="utf-8")
    assert [case.line for case in CASES if case.line not in page] == []
    assert len(CASES) > 20


def test_the_advice_about_dropout_works():
    torch.manual_seed(0)
    model = u.Dropped()
    with pytest.raises(ValueError, match="leave encoder= out") as caught:
        adapt(model, **BODY)(u.IMAGES)
    advice = "nn.Sequential(nn.AdaptiveAvgPool2d((1, None)), nn.Flatten(), model.get_submodule('drop'))"
    assert str(caught.value).endswith(f"or pass pool={advice}")
    network = adapt(model, **BODY, pool=eval(advice, {"nn": nn, "model": model}))  # noqa: S307  # what the line says
    mm.DenseMultiMix(tuples=10)(network, u.IMAGES, u.LABELS).total.backward()
    torch.manual_seed(1)
    expected = model(u.IMAGES)
    torch.manual_seed(1)
    torch.testing.assert_close(network(u.IMAGES), expected)


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


class Cosines(nn.Module):
    """Compares directions, as face recognition does."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(u.CLASSES, 8))

    def forward(self, x):
        return 30 * F.linear(F.normalize(x), F.normalize(self.weight))


class SequenceFirst(nn.Module):
    """Patches before examples, as torch's layers for sequences have them unless they are told."""

    def __init__(self, side):
        super().__init__()
        self.stem, self.body, self.fc = nn.Conv2d(3, 8, side, side), nn.Linear(8, 8), nn.Linear(8, u.CLASSES)

    def forward(self, x):
        return self.fc(self.body(self.stem(x).flatten(2).permute(2, 0, 1)).mean(0))


def softened(last):
    """Return what makes a body whose head, with small weights, ends in a layer."""

    def make():
        model = u.Body(nn.Sequential(nn.Linear(8, u.CLASSES), last))
        nn.init.normal_(model.fc[0].weight, std=0.01)
        return model

    return make


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
    (softened(nn.Softmax(1)), {}, "ends in Softmax ('fc.1') after its head 'fc.0'"),
    (softened(nn.Softmax(1)), {"head": "fc"}, "head: what 'fc' of Body gives are probabilities, while methods need"),
    (softened(nn.Softmin(1)), {"head": "fc"}, "head: what 'fc' of Body gives are probabilities, while methods need"),
    (softened(nn.Sigmoid()), {"head": "fc", "objective": mm.BinaryCrossEntropy()}, "gives are probabilities"),
    (softened(nn.Softmax(1)), BODY, "head: what 'fc' of Body gives are probabilities, while methods need"),
    (lambda: u.Body(Cosines()), {}, "Body returns what 'fc' gives, a Cosines, which is not affine; pass head='fc'"),
    (lambda: u.Temperature(nn.Sequential(nn.Linear(8, 3), nn.Identity())), {}, "makes a multiple of what its head"),
    (
        lambda: SequenceFirst(4),
        BODY,
        "is read as (b, r, d), (16, 4, 8), for 4 examples; the batch must be its first ax",
    ),
    (
        lambda: SequenceFirst(8),
        BODY | {"pool": lambda x: x.mean(0)},
        "each example by itself; of (1, 4, 8) it makes (4, 8)",
    ),
    (u.Body, BODY | {"pool": lambda x: x.mean((2, 3))}, "features (b, r, d) of 'body', (4, 16, 8), do not reach the"),
    (u.Body, BODY | {"pool": nn.AdaptiveAvgPool2d(1)}, "(4, 16, 8), do not reach the head 'fc': mat1 and mat2 shapes"),
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
