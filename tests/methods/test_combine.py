"""Alternate and Until: which method has its turn."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from scipy import stats

import toy
from multimix.methods import ERM, Alternate, AutoMix, ManifoldMixup, Mixup, MultiMix, Until
from multimix.protocols import Losses, Method, Teacher, declares, stateful, submethods
from toy import seeded


class Says:
    """A method that answers with its number, and remembers how it was asked."""

    name = "says"

    def __init__(self, number: float):
        self.number = number
        self.asked = []

    def __call__(self, network, inputs, targets, *, generator=None, teacher=None):
        self.asked.append((inputs, targets, generator, teacher))
        return Losses(torch.tensor(self.number))


NETWORK, INPUTS, TARGETS = toy.vectors(), torch.zeros(1, 8), torch.tensor([1])


@pytest.mark.parametrize("probabilities", [None, (0.2, 0.5, 0.3), (0.0, 1.0, 0.0), (0.9, 0.0, 0.1)])
def test_alternate_draws_each_method_as_often_as_asked(probabilities):
    method, generator = Alternate(tuple(Says(float(i)) for i in range(3)), probabilities), seeded()
    said = [int(method(NETWORK, INPUTS, TARGETS, generator=generator).total) for _ in range(900)]
    expected = [900 * p for p in probabilities or (1 / 3,) * 3]
    observed = [said.count(i) for i in range(3)]
    possible = [i for i in range(3) if expected[i] > 0]
    assert sum(observed[i] for i in possible) == 900
    if len(possible) > 1:
        assert stats.chisquare([observed[i] for i in possible], [expected[i] for i in possible]).pvalue > 1e-3


def test_alternate_hands_everything_on():
    says, generator, teacher = Says(1.0), seeded(), Teacher(NETWORK, INPUTS, 0.5)
    method = Alternate((says,))
    method(NETWORK, "inputs", TARGETS, generator=generator, teacher=teacher)
    method(NETWORK, "inputs", TARGETS)
    assert says.asked == [("inputs", TARGETS, generator, teacher), ("inputs", TARGETS, None, None)]


def test_alternate_follows_the_generator():
    network, (inputs, targets) = toy.vectors(), toy.batch(7, 8)
    method = Alternate((MultiMix(31), Mixup(alpha=2.0)), (0.5, 0.5))
    totals = [[float(method(network, inputs, targets, generator=g).total.detach()) for _ in range(6)]
              for g in (seeded(3), seeded(3))]  # fmt: skip
    assert totals[0] == totals[1]
    assert len(set(totals[0])) == 6


def test_alternate_without_a_generator_draws_globally():
    method = Alternate((Says(0.0), Says(1.0)))
    torch.manual_seed(5)
    first = [method.choose() for _ in range(20)]
    torch.manual_seed(5)
    assert [method.choose() for _ in range(20)] == first
    assert len(set(first)) == 2


@pytest.mark.parametrize(
    ("fraction", "turns"),
    [(0.9, [0, 0, 0, 0, 1, 1]), (0.5, [0, 0, 1, 1, 1, 1]), (0.0, [1] * 6), (1.0, [0, 0, 0, 0, 0, 1])],
)
def test_until_changes_over_at_its_fraction(fraction, turns):
    method = Until(Says(0.0), fraction, Says(1.0))
    said = []
    for progress in (0.0, 0.49, 0.5, 0.899, 0.9, 1.0):
        method.at(progress)
        said.append(int(method(NETWORK, INPUTS, TARGETS).total))
    assert said == turns


def test_until_begins_at_the_beginning_and_ends_plain():
    network, (inputs, targets) = toy.vectors(), toy.batch(7, 8)
    method = Until(Mixup())
    mixed = Mixup()(network, inputs, targets, generator=seeded()).total
    assert torch.equal(method(network, inputs, targets, generator=seeded()).total, mixed)
    method.at(0.95)
    assert torch.equal(
        method(network, inputs, targets, generator=seeded()).total, ERM()(network, inputs, targets).total
    )


def test_until_hands_everything_on():
    says, generator, teacher = Says(1.0), seeded(), Teacher(NETWORK, INPUTS, 0.5)
    Until(says)(NETWORK, "inputs", TARGETS, generator=generator, teacher=teacher)
    assert says.asked == [("inputs", TARGETS, generator, teacher)]


def test_methods_inside_are_found_outermost_first():
    inner = (MultiMix(), Until(Mixup(), 0.5))
    method = Alternate(inner)
    assert list(submethods(method)) == [method, inner[0], inner[1], inner[1].method, inner[1].then]
    assert all(isinstance(part, Method) for part in submethods(method))


def test_lists_are_as_good_as_tuples():
    learner = AutoMix(width=4)
    method = Alternate([learner, Mixup()], [0.3, 0.7])
    assert method == Alternate((learner, Mixup()), (0.3, 0.7))
    assert list(submethods(method)) == [method, learner, Mixup()]
    assert ManifoldMixup(stages=[0, 1]) == ManifoldMixup(stages=(0, 1))
    assert hash(MultiMix(alpha=[0.5, 2.0])) == hash(MultiMix(alpha=(0.5, 2.0)))


def test_methods_are_found_in_lists_of_methods_of_ones_own():
    @dataclass
    class Both:
        name: ClassVar[str] = "both"
        methods: list[Method]

        def __call__(self, network, inputs, targets, *, generator=None, teacher=None):
            return Losses(torch.zeros(()))

    inner = [Until(Mixup()), ERM()]
    method = Both(inner)
    assert list(submethods(method)) == [method, inner[0], inner[0].method, inner[0].then, inner[1]]


@pytest.mark.bad_input
@pytest.mark.parametrize("methods", [{"a": Mixup()}, Mixup(), iter([Mixup()]), None], ids=lambda m: type(m).__name__)
def test_other_collections_of_methods_are_refused(methods):
    with pytest.raises(TypeError, match="methods must be a tuple of methods, got"):
        Alternate(methods)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("methods", "probabilities", "error", "message"),
    [
        ((), None, ValueError, "methods must hold at least one method, got none"),
        ((Mixup,), None, TypeError, "methods must be a method such as MultiMix"),
        (("mixup",), None, TypeError, "methods must be a method such as MultiMix"),
        ((Mixup(), ERM()), (1.0,), ValueError, "probabilities must be 2 numbers that sum to 1"),
        ((Mixup(), ERM()), (0.5, 0.6), ValueError, "probabilities must be 2 numbers that sum to 1"),
        ((Mixup(), ERM()), (1.5, -0.5), ValueError, "probabilities must hold values that each must lie in"),
    ],
)
def test_impossible_alternations_are_refused(methods, probabilities, error, message):
    with pytest.raises(error, match=message):
        Alternate(methods, probabilities)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"method": Mixup}, TypeError, "method must be a method such as MultiMix"),
        ({"method": Mixup(), "then": "erm"}, TypeError, "then must be a method such as MultiMix"),
        ({"method": Mixup(), "fraction": 1.1}, ValueError, r"fraction must lie in \[0, 1\], got 1.1"),
        ({"method": Mixup(), "fraction": float("nan")}, ValueError, r"fraction must lie in \[0, 1\], got nan"),
    ],
)
def test_impossible_changes_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        Until(**settings)


def test_what_a_method_declares_is_found_inside_of_others():
    assert declares(Alternate((ERM(), Until(ManifoldMixup()))), "needs_stages")
    assert not declares(Alternate((ERM(), Mixup())), "needs_stages")
    until = Until(Mixup())
    assert stateful(Alternate((until, ERM()))) == [until]


def test_alternate_mixes_inputs_if_all_do():
    inputs, targets = toy.batch(7, 8)
    method = Alternate((Mixup(), ERM()), (0.0, 1.0))
    mixed, labels = method.mix(inputs, targets, num_classes=5, generator=seeded())
    assert method.mixes_inputs
    assert torch.equal(mixed, inputs)
    assert torch.equal(labels, toy.one_hot(targets))
    assert not Alternate((Mixup(), MultiMix())).mixes_inputs
