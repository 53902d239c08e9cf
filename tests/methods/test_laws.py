"""Every method against every law, images of any kind, and what methods are called with."""

import copy
import re
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

import cases
import laws
import toy
from methods.shared import MAKES, MIXERS, same, state
from multimix.distill import SelfDistilled
from multimix.methods import (
    ERM,
    METHODS,
    Alternate,
    CoMixup,
    CutMix,
    DenseMultiMix,
    ManifoldMixup,
    MixesInputs,
    Mixup,
    MultiMix,
    PuzzleMix,
)
from multimix.protocols import Teacher
from toy import seeded


@pytest.mark.parametrize(
    ("law", "case"),
    [
        pytest.param(law, case, id=f"{law.__name__}-{case.name}")
        for law in laws.LAWS
        for case in cases.CASES
        if laws.applies(law, case)
    ],
)
def test_law(law, case, device):
    law(case, device)


@pytest.mark.bad_input
@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_wrong_arguments_are_named(case):
    said = {refusal.name: answer(refusal, case) for refusal in cases.REFUSALS}
    assert {name: text for name, (right, text) in said.items() if not right} == {}


def answer(refusal: cases.Refusal, case: cases.Case) -> tuple[bool, str]:
    """Whether a method refuses a wrong argument as it should, and what it says."""
    network, inputs, targets = cases.images()
    try:
        cases.run(case.make(), network, *refusal.spoil(inputs, targets))
    except refusal.error as error:
        return re.search(refusal.message, str(error)) is not None, str(error)
    return False, "nothing"


def test_every_method_of_the_list_is_tried():
    assert {cls.name for cls in cases.METHODS} <= {case.name for case in cases.CASES}
    assert len({case.name for case in cases.CASES}) == len(cases.CASES)


def test_methods_that_want_images_say_so():
    for case in cases.CASES:
        if not case.vectors:
            with pytest.raises(ValueError, match=r"inputs must be images of shape \(b, c, h, w\)"):
                cases.run(case.make(), toy.vectors(), *toy.batch(7, 8))


@pytest.mark.bad_input
@pytest.mark.parametrize("method", [Mixup(), CutMix(), PuzzleMix()], ids=lambda m: m.name)
@pytest.mark.parametrize(
    "spoil", [Tensor.to_sparse, lambda x: torch.nested.nested_tensor(list(x))], ids=["sparse", "nested"]
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_inputs_that_cannot_be_mixed_are_named(method, spoil):
    network, inputs, targets = cases.images()
    with pytest.raises(TypeError, match=rf"inputs must be a dense tensor for {type(method).__name__}, got one that is"):
        method(network, spoil(inputs), targets)


WRONG = {
    "a plain model": (lambda: nn.Linear(3, 5), "got Linear, which has no embed, pool, classify, head"),
    "a function": (lambda: lambda x: x, "got function, which has no embed"),
    "nothing": (lambda: None, "got NoneType, which has no embed"),
    "an average": (lambda: AveragedModel(toy.vectors()), "got AveragedModel; give the network inside it"),
    "a class": (lambda: toy.Toy, "got the class Toy$"),
    **{  # known by their names: without a process group they cannot be built
        name: (type(name, (nn.Module,), {}), f"got {name}; wrap a module of your own that holds net")
        for name in ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")
    },
}


@pytest.mark.bad_input
@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_what_is_no_network_is_refused(case):
    _, inputs, targets = cases.images()
    for wrong, message in WRONG.values():
        said = f"^network must be an adapted network, net = mm.adapt\\(model\\), {message}"
        with pytest.raises(TypeError, match=said):
            cases.run(case.make(), wrong(), inputs, targets)


class Quiet(toy.Toy):
    """One that keeps no list of what it has seen, which torch 2.4 cannot compile."""

    def embed(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return inputs.flatten(2).transpose(1, 2)


@pytest.mark.bad_input
@pytest.mark.parametrize("method", [MultiMix(), ManifoldMixup()], ids=lambda m: m.name)
def test_a_compiled_network_is_refused_where_its_forward_pass_would_not_run(method):
    network, inputs, targets = cases.images()
    with pytest.raises(TypeError, match=r"got OptimizedModule; .* net\.embed = torch\.compile\(net\.embed\)"):
        method(torch.compile(network, backend="eager"), inputs, targets)


@pytest.mark.compiles
@pytest.mark.parametrize("method", [ERM(), Mixup(), CutMix()], ids=lambda m: m.name)
def test_a_compiled_network_will_do_where_it_is_only_called(method):
    network, (inputs, targets) = Quiet(nn.Conv2d(3, 6, 3), width=6, classes=5), toy.batch(7, 3, 6, 6)
    plain = cases.run(method, network, inputs, targets).total
    torch.testing.assert_close(cases.run(method, torch.compile(network, backend="eager"), inputs, targets).total, plain)


@pytest.mark.bad_input
def test_manifold_mixup_wants_stages_as_well():
    members = {"head": None, **dict.fromkeys(("forward", "embed", "pool", "classify"), lambda self, values: values)}
    with pytest.raises(TypeError, match="got Bare, which has no mixing_at, stages"):
        ManifoldMixup()(type("Bare", (nn.Module,), members)(), *toy.batch(4, 5))


@pytest.mark.bad_input
@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_a_seed_is_no_generator(case):
    (network, *batch), method = cases.images(), case.make()
    message = r"^generator must be a torch.Generator or None, got 7; take .*manual_seed\(7\)"
    with pytest.raises(TypeError, match=message):
        method(network, *batch, generator=7)
    if isinstance(method, MixesInputs):
        with pytest.raises(TypeError, match=message):
            method.mix(*batch, num_classes=5, network=network, generator=7)


# ------------------------------------------------------------------------------------------------ one-hot integers


def test_of_as_many_classes_as_positions_too():
    """Maps of 3 x 3 positions and 9 classes: (b, 9) could be a label map, and is none."""
    network = toy.images(classes=9).eval()
    inputs, targets = toy.batch(7, 3, 6, 6, classes=9)
    assert network.embed(inputs).shape[1] == 9
    for method in (ERM(), MultiMix(31), DenseMultiMix(13)):
        ours = cases.run(method, network, inputs, functional.one_hot(targets, 9)).total
        torch.testing.assert_close(ours, cases.run(method, network, inputs, targets).total)


def test_a_network_with_outputs_at_every_position_takes_them_for_label_maps():
    network = toy.Toy(width=5, classes=4)
    network.pool = lambda features: features
    network.dense = True
    inputs = torch.randn(3, 4, 5)
    maps = torch.eye(4, dtype=torch.long)[:3]
    expected = functional.cross_entropy(network(inputs).flatten(0, 1), maps.flatten())
    torch.testing.assert_close(cases.run(ERM(), network, inputs, maps).total, expected)


@pytest.mark.bad_input
@pytest.mark.parametrize("method", [ERM(), Mixup(), MultiMix(31), DenseMultiMix(13)], ids=lambda m: m.name)
def test_several_labels_in_integers_are_refused_with_what_they_may_be(method):
    network, inputs, targets = cases.images()
    rows = functional.one_hot(targets, 5)
    rows[0] = 1
    with pytest.raises(ValueError, match=r"^targets .*BinaryCrossEntropy"):
        cases.run(method, network, inputs, rows)
    if isinstance(method, MixesInputs):
        with pytest.raises(ValueError, match=r"BinaryCrossEntropy"):
            method.mix(inputs, rows, num_classes=5)


# ---------------------------------------------------------------------------------------------- missing packages


NEEDS = {
    PuzzleMix: "^PuzzleMix's graph cut needs scipy, which is not installed: pip install scipy(\n|$)",
    CoMixup: "^Co-Mixup's search needs numpy, which is not installed: pip install numpy(\n|$)",
}


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.name)
def test_methods_do_without_further_packages_or_name_them(cls, monkeypatch):
    for module in ("scipy", "scipy.sparse", *(["numpy"] if cls is not PuzzleMix else [])):
        monkeypatch.setitem(sys.modules, module, None)
    if cls not in NEEDS:
        assert cases.run(cls(**cases.settings_of(cls)), *cases.images()).total.isfinite()
        return
    for method in (cls(), SelfDistilled(cls()), Alternate([cls()])):
        with pytest.raises(ImportError, match=NEEDS[cls]):
            cases.run(method, *cases.images())


EXTRA = {
    "adamixup": lambda terms: terms["intrusion"],
    "automix": lambda terms: 1.5 * terms["distance"] - 0.3 * terms["entropy"],
    "co-mixup": lambda terms: terms["clean"],
    "puzzlemix": lambda terms: 0.5 * terms["clean"],
    "smmix": lambda terms: terms["fine"] + terms["consistency"],
}
"""What is in a method's loss besides the labels and the teacher."""
every = pytest.mark.parametrize("name", MAKES)
mixers = pytest.mark.parametrize("name", MIXERS)
shapes = pytest.mark.parametrize("shape", [(1, 3, 6, 6), (2, 3, 1, 1), (5, 3, 7, 2), (3, 3, 5, 9)])


@every
def test_a_teacher_sees_its_own_view_mixed_alike(name):
    student, teacher = toy.images().eval(), toy.images(seed=1).eval()
    (inputs, targets), (other, _) = toy.batch(7, 3, 8, 8), toy.batch(7, 3, 8, 8, seed=5)
    method, twin = MAKES[name](), MAKES[name]()
    drawn = twin.draw(teacher if name == "supermix" else student, inputs, targets, seeded())
    ours = method(student, inputs, targets, generator=seeded(), teacher=Teacher(teacher, other, 0.3))
    logits, seen = drawn.predict(student, inputs), drawn.predict(teacher, other).detach()
    labels = functional.cross_entropy(logits, drawn.mix_targets(toy.one_hot(targets)))
    taught = functional.cross_entropy(logits, seen.softmax(-1))
    torch.testing.assert_close(ours.terms["labels"], labels.detach())
    torch.testing.assert_close(ours.terms["teacher"], taught.detach())
    extra = EXTRA[name](ours.terms) if name in EXTRA else 0
    torch.testing.assert_close(ours.total, 0.3 * labels + 0.7 * taught + extra)
    ours.total.backward()
    assert all(p.grad is None for p in teacher.parameters())


@mixers
@pytest.mark.parametrize("kind", ["indices", "one-hot", "soft"])
def test_the_data_can_be_had_alone(name, kind):
    """And the step is trained on them, in one pass of the network over the mixed images."""
    network, (inputs, targets) = toy.images().eval(), toy.batch(7, 3, 8, 8)
    probabilities = toy.soft_targets(7, 5) if kind == "soft" else toy.one_hot(targets)
    given = {"indices": targets, "one-hot": functional.one_hot(targets, 5), "soft": probabilities}[kind]
    k = 5 if kind == "indices" else None
    mixed, rows = MIXERS[name]().mix(inputs, given, num_classes=k, network=network, generator=seeded())
    drawn = MIXERS[name]().draw(network, inputs, probabilities, seeded())
    assert torch.equal(mixed, drawn.mix(inputs))
    assert torch.equal(rows, drawn.mix_targets(probabilities))
    torch.testing.assert_close(rows.sum(1), torch.ones(7))
    network.seen.clear()
    losses = MIXERS[name]()(network, inputs, given, generator=seeded())
    assert torch.equal(network.seen[-2 if name == "puzzlemix" else -1], mixed)  # then the clean images, for their loss
    torch.testing.assert_close(losses.terms["labels"], functional.cross_entropy(network(mixed), rows).detach())


@mixers
def test_the_network_is_left_as_it_was_but_for_one_pass_over_the_mixed_images(name):
    network, (inputs, targets) = toy.images(), toy.batch(7, 3, 8, 8)
    network.blocks[1].eval()
    network.classifier.weight.grad = torch.ones_like(network.classifier.weight)
    before = state(network)
    drawn = MIXERS[name]().draw(network, inputs, targets, seeded())
    assert same(before, state(network))
    twin = copy.deepcopy(network)
    twin(drawn.mix(inputs))
    MIXERS[name]()(network, inputs, targets, generator=seeded())
    assert all(torch.equal(*pair) for pair in zip(twin.buffers(), network.buffers(), strict=True))


@pytest.mark.parametrize("name", ["puzzlemix", "co-mixup", "supermix"])
def test_a_network_that_fails_is_left_as_it_was(name):
    network, (inputs, targets) = toy.images(), toy.batch(7, 3, 8, 8)
    network.blocks[1].eval()
    network.classify = lambda embeddings: 1 / 0
    before = state(network)
    with pytest.raises(ZeroDivisionError):
        MIXERS[name]().draw(network, inputs, targets, seeded())
    assert same(before, state(network))


@every
@shapes
def test_images_of_any_kind(name, shape):
    network, (inputs, targets) = toy.images(norm=False), toy.batch(*shape)
    constant = torch.arange(float(len(inputs))).view(-1, 1, 1, 1).expand_as(inputs)
    for images in (inputs, constant, torch.zeros_like(inputs)):
        losses = MAKES[name]()(network, images, targets, generator=seeded())
        losses.total.backward()
        assert losses.total.isfinite()
    assert all(p.grad.isfinite().all() for p in network.parameters())


@mixers
@shapes
def test_mixed_images_keep_their_form(name, shape):
    network, (inputs, targets) = toy.images(norm=False), toy.batch(*shape)
    for images in (inputs, inputs.bfloat16(), torch.full_like(inputs, 0.7)):
        seen = toy.images(norm=False).to(images.dtype)
        for labels in (targets, torch.zeros_like(targets)):
            method = MIXERS[name]()
            mixed, rows = method.mix(images, labels, num_classes=5, network=seen, generator=seeded())
            assert (mixed.shape, mixed.dtype) == (images.shape, images.dtype)
            assert mixed.isfinite().all()
        torch.testing.assert_close(rows, toy.one_hot(labels))  # one class alone stays what it is
    last = inputs.contiguous(memory_format=torch.channels_last)
    one, other = (MIXERS[name]().draw(network, x, targets, seeded(1)).mix(x) for x in (inputs, last))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


PRECISE = ["mixup-elem", "cutmix-pair", "fmix", "resizemix", "resizemix-bilinear", "zeta-mixup", "opttransmix"]
PRECISE += ["smoothmix", "gridmix"]


@pytest.mark.parametrize("name", PRECISE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_give_the_same_images(name, dtype):
    images, targets = toy.batch(7, 3, 10, 6)
    images = images.to(dtype)
    truth, rows = MIXERS[name]().mix(images.float(), targets, num_classes=5, generator=seeded(1))
    mixed, shares = MIXERS[name]().mix(images, targets, num_classes=5, generator=seeded(1))
    assert (mixed.dtype, shares.dtype) == (dtype, torch.float32)
    near = max(2 * torch.finfo(dtype).eps, 16 * torch.finfo(torch.float32).eps)
    torch.testing.assert_close(mixed.float(), truth, rtol=near, atol=near)
    torch.testing.assert_close(shares, rows)


SEEN_BY_MODULES = ("puzzlemix", "co-mixup", "automix", "stylecutmix", "guidedmixup-gradient", "transmix", "smmix")


@mixers
def test_autocast_changes_no_image(name):
    network, (inputs, targets) = toy.images().eval(), toy.batch(5, 3, 8, 8)
    given = {"num_classes": 5, "network": network}
    truth, rows = MIXERS[name]().mix(inputs, targets, **given, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        mixed, probabilities = MIXERS[name]().mix(inputs, targets, **given, generator=seeded())
    if name not in SEEN_BY_MODULES:  # which work under autocast
        torch.testing.assert_close(mixed, truth)
        torch.testing.assert_close(probabilities, rows)
    assert mixed.isfinite().all()
