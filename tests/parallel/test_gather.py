"""Tuples over the examples of several processes: exactly what one process makes of the whole mini-batch."""

import pytest
import torch
from torch import Tensor, nn

import toy
from multimix.methods import DenseMultiMix, MultiMix
from multimix.ops import CrossEntropy, Gather, SquaredError, gathered
from multimix.protocols import EncoderOutput, Method, Teacher
from parallel.jobs import each, gathered_back, losses_and_gradients, normalised
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


def network_with(head: str) -> nn.Module:
    network = toy.images(norm=False, affine=head != "any").double()
    if head == "squared error":
        network.objective = SquaredError()
    if head == "smoothed":
        network.objective = CrossEntropy(label_smoothing=0.1)
    return network


CASES = [
    *((name, "affine") for name in METHODS),
    *((name, "any") for name in ("multimix", "dense", "balanced, half clean")),
    *((name, head) for name in ("multimix", "dense") for head in ("smoothed", "squared error")),
]


def setting(name: str, head: str, *, taught: bool) -> tuple[Method, nn.Module, Tensor, Tensor, nn.Module | None]:
    network = network_with(head)
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


SIZES = [[2, 2, 2], [3, 2, 2], [1, 4, 0]]


def test_examples_are_dealt_and_gradients_come_back():
    found = together(3, each, gathered_back, [(sizes, len(set(sizes)) == 1) for sizes in SIZES])
    for sizes, answers in zip(SIZES, zip(*found, strict=True), strict=True):
        dealt = [[float(rank), float(i)] for i in range(max(sizes)) for rank in range(3) if i < sizes[rank]]
        for rank, answer in enumerate(answers):
            assert answer["size"] == sum(sizes)
            assert answer["all"].tolist() == dealt
            mine = [1 + place for place, (owner, _) in enumerate(dealt) if owner == rank]
            everyone = sum(1 + other for other in range(3))
            assert answer["gradient"].tolist() == [[float(everyone * place), 0.0] for place in mine]


def test_alone_everything_comes_back_as_it_is():
    values = torch.randn(3, 2)
    assert Gather()(values) is values
    assert Gather().size(3, values.device) == 3
    network = toy.vectors()
    assert gathered(network, values) is values
    network.gather = Gather()
    assert gathered(network, values) is values


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
    for case, answers in zip(cases, zip(*together(2, each, normalised, cases), strict=True), strict=True):
        assert_whole(*case, answers)


def assert_whole(layer, inputs, upstream, answers):
    whole = torch.cat(inputs).requires_grad_()
    outputs = layer(whole)
    outputs.backward(torch.cat(upstream))
    torch.testing.assert_close(torch.cat([answer["outputs"] for answer in answers]), outputs.detach())
    torch.testing.assert_close(torch.cat([answer["inputs"] for answer in answers]), whole.grad)
    for name, buffer in layer.named_buffers():
        for answer in answers:
            torch.testing.assert_close(answer[name], buffer)
    for name, parameter in layer.named_parameters():  # each process has its own share, which training averages
        torch.testing.assert_close(sum(answer[f"grad {name}"] for answer in answers), parameter.grad)
