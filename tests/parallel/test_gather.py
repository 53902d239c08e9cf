"""Tuples over the examples of several processes: exactly what one process makes of the whole mini-batch."""

import pytest
import torch
from torch import Tensor, nn

import references
import toy
from multimix.methods import DenseMultiMix, MultiMix
from multimix.ops import CrossEntropy, Gather, SquaredError
from multimix.protocols import EncoderOutput, Method, Teacher
from parallel.jobs import each, gathered_back, in_turn, losses_and_gradients, normalised, with_weights
from parallel.together import together

METHODS = {
    "multimix": MultiMix(tuples=30),
    "one tuple of three": MultiMix(tuples=1, tuple_length=3),
    "balanced, half clean": MultiMix(tuples=30, alpha=(0.5, 2.0), balanced=True, clean=0.5, confidence=0.9),
    "fused": MultiMix(tuples=30, impl="fused"),
    "dense": DenseMultiMix(tuples=30),
    "dense, attention learns": DenseMultiMix(tuples=30, detach=False, query="cam", balanced=True),
    "dense, shared": DenseMultiMix(tuples=30, shared=True, clean=0.3),
}


OBJECTIVES = {"squared error": SquaredError(), "smoothed": CrossEntropy(label_smoothing=0.1)}
CASES = [
    *((name, "affine") for name in METHODS),
    *((name, "any") for name in ("multimix", "dense", "balanced, half clean")),
    *((name, head) for name in ("multimix", "dense") for head in ("smoothed", "squared error")),
]


def setting(name: str, head: str, *, taught: bool) -> tuple[Method, nn.Module, Tensor, Tensor, nn.Module | None]:
    network = toy.images(norm=False, affine=head != "any").double()
    network.objective = OBJECTIVES.get(head, CrossEntropy())
    teacher = toy.images(norm=False, seed=3, affine=head != "any").double() if taught else None
    inputs, targets = toy.batch(8, 3, 6, 6, dtype=torch.float64)
    if head == "squared error":
        targets = toy.soft_targets(8, 5, dtype=torch.float64)
    return METHODS[name], network, inputs, targets, teacher


@pytest.fixture(scope="module")
def answers() -> dict[tuple[str, str, bool], list[dict[str, Tensor]]]:
    """What each of two processes finds in every case, all in one process group: to make one takes a second."""
    keys = [(name, head, taught) for name, head in CASES for taught in (False, True)]
    found = together(2, each, losses_and_gradients, [setting(*key[:2], taught=key[2]) for key in keys])
    return dict(zip(keys, zip(*found, strict=True), strict=True))


@pytest.mark.parametrize("taught", [False, True], ids=["alone", "taught"])
@pytest.mark.parametrize(("name", "head"), CASES)
def test_losses_and_gradients_are_those_of_one_process(name, head, taught, answers):
    method, network, inputs, targets, teacher = setting(name, head, taught=taught)
    by = None if teacher is None else Teacher(teacher, inputs, 0.3)
    losses = method(network, inputs, targets, generator=torch.Generator().manual_seed(5), teacher=by)
    losses.total.backward()
    for answer in answers[name, head, taught]:
        torch.testing.assert_close(answer["loss"], losses.total.detach().double(), rtol=1e-6, atol=1e-7)
        for parameter, value in network.named_parameters():
            torch.testing.assert_close(answer[parameter], value.grad, rtol=1e-5, atol=1e-8)


OWN = {
    "multimix": MultiMix(tuples=6, balanced=False, tuples_over="device"),
    "dense": DenseMultiMix(tuples=6, tuples_over="device"),
}
OWN_CASES = [(name, head, taught) for name in OWN for head in ("affine", "any") for taught in (False, True)]


def own_setting(name: str, head: str, taught: bool) -> tuple[Method, nn.Module, Tensor, Tensor, nn.Module | None]:
    return OWN[name], *setting("multimix", head, taught=taught)[1:]


@pytest.fixture(scope="module")
def own_answers() -> dict[tuple[str, str, bool], list[dict[str, Tensor]]]:
    found = together(2, each, with_weights, [own_setting(*key) for key in OWN_CASES])
    return dict(zip(OWN_CASES, zip(*found, strict=True), strict=True))


def loop_loss(
    network: nn.Module, inputs: Tensor, targets: Tensor, weights: Tensor, teacher: nn.Module | None
) -> Tensor:
    """The loss of one share by loops, of every position if there is a set of weights for each."""
    dense = len(weights) > 6

    def embedded(net: nn.Module) -> Tensor:
        features = net.embed(inputs)
        return features if dense else net.pool(features)

    z, labels = embedded(network), toy.one_hot(targets, dtype=torch.float64)
    taught = None if teacher is None else (teacher.classify, embedded(teacher).detach(), 0.3)
    if not dense:
        return references.network_loss(network.classify, z, labels, weights.double(), taught)
    attention = references.attention(z, "gap", "relu", None).detach()
    sets = weights.double().unflatten(0, (z.shape[1], 6))
    return references.dense_network_loss(network.classify, z, labels, sets, attention, taught)


@pytest.mark.parametrize(("name", "head", "taught"), OWN_CASES)
def test_over_a_device_each_draws_its_own_tuples_of_its_share(name, head, taught, own_answers):
    _, network, inputs, targets, teacher = own_setting(name, head, taught)
    one, two = own_answers[name, head, taught]
    assert not torch.allclose(one["weights"], two["weights"])
    assert torch.equal(one["generator"], two["generator"])  # so that the next coin falls alike
    losses = [loop_loss(network, inputs[r::2], targets[r::2], (one, two)[r]["weights"], teacher) for r in (0, 1)]
    mean = sum(losses) / 2
    mean.backward()
    for answer in (one, two):
        torch.testing.assert_close(answer["loss"], mean.detach(), rtol=1e-6, atol=1e-7)
        for parameter, value in network.named_parameters():
            torch.testing.assert_close(answer[parameter], value.grad, rtol=1e-5, atol=1e-8)


def test_all_choose_the_same_method_where_they_gather():
    cases = [(*toy.batch(8, 3, 6, 6), gathers) for gathers in (True, False)]
    one, two = together(2, each, in_turn, cases)
    assert one[0] == two[0]
    assert one[1] != two[1]
    assert len({tuple(terms) for terms in one[0]}) == 2


def test_examples_come_in_turn_and_gradients_go_back():
    cases = [([2, 2, 2], True), ([3, 2, 2], False), ([1, 4, 0], False)]
    found = together(3, each, gathered_back, cases)
    for (sizes, _), answers in zip(cases, zip(*found, strict=True), strict=True):
        turns = [[float(rank), float(i)] for i in range(max(sizes)) for rank in range(3) if i < sizes[rank]]
        for rank, answer in enumerate(answers):
            assert answer["size"] == sum(sizes)
            assert answer["all"].tolist() == turns
            mine = [1 + place for place, (owner, _) in enumerate(turns) if owner == rank]
            assert answer["gradient"].tolist() == [[6.0 * place, 0.0] for place in mine]  # from 1, 2 and 3 times it


def test_masked_positions_are_refused():
    class Masked(toy.Toy):
        def embed(self, inputs):
            return EncoderOutput(super().embed(inputs), torch.tensor([[True] * 9, [True] * 8 + [False]]))

        def pool(self, output):
            return output.features.mean(1)

    network = Masked(torch.nn.Conv2d(3, 6, 3, stride=2, padding=1), width=6, classes=5)
    network.gather = Gather()
    with pytest.raises(ValueError, match="masked positions cannot be gathered across processes"):
        DenseMultiMix(tuples=3)(network, *toy.batch(2, 3, 6, 6))


LAYERS = {"default": {}, "no affine": {"affine": False}, "cumulative": {"momentum": None, "eps": 0.1}}
SHAPES = {(4,): nn.BatchNorm1d, (4, 3): nn.BatchNorm1d, (4, 3, 2): nn.BatchNorm2d}


def test_batchnorm_over_processes_is_batchnorm_over_their_examples():
    cases = []
    for settings in LAYERS.values():
        for shape, cls in SHAPES.items():
            layer = cls(4, **settings).double()
            if layer.affine:
                nn.init.uniform_(layer.weight)
                nn.init.uniform_(layer.bias)
            inputs = [torch.randn(b, *shape, dtype=torch.float64) + 5 * b for b in (3, 2)]
            cases.append((layer, inputs, [torch.randn_like(part) for part in inputs]))
    answers = zip(*together(2, each, normalised, cases), strict=True)
    for (layer, inputs, upstream), (one, two) in zip(cases, answers, strict=True):
        whole = torch.cat(inputs).requires_grad_()
        outputs = layer(whole)
        outputs.backward(torch.cat(upstream))
        torch.testing.assert_close(torch.cat([one["outputs"], two["outputs"]]), outputs.detach())
        torch.testing.assert_close(torch.cat([one["inputs"], two["inputs"]]), whole.grad)
        for name, buffer in layer.named_buffers():
            torch.testing.assert_close([one[name], two[name]], [buffer, buffer])
        for name, parameter in layer.named_parameters():  # training averages what each process has of it
            torch.testing.assert_close(one[f"grad {name}"] + two[f"grad {name}"], parameter.grad)
