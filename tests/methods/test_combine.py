"""Alternate and Until: which method has its turn; Chain: inputs mixed by one method are another one's mini-batch."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from scipy import stats

import toy
from multimix.methods import ERM, AlignMix, Alternate, AutoMix, Chain, CutMix, ManifoldMixup, Mixup, MultiMix, Until
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


@pytest.mark.parametrize(
    ("fraction", "turns"),
    [(0.9, [0, 0, 0, 0, 1, 1]), (0.5, [0, 0, 1, 1, 1, 1]), (0.0, [1] * 6), (1.0, [0, 0, 0, 0, 0, 1])],
)
def test_until_changes_over_at_its_fraction(fraction, turns):
    method = Until(Says(0.0), fraction, Says(1.0))
    said = [int(method(NETWORK, INPUTS, TARGETS).total)]  # at the beginning, before anybody says so
    for progress in (0.0, 0.49, 0.5, 0.899, 0.9, 1.0):
        method.at(progress)
        said.append(int(method(NETWORK, INPUTS, TARGETS).total))
    assert said == [turns[0], *turns]
    assert Until(Says(0.0)).then == ERM()


@pytest.mark.parametrize("around", [Alternate, Until], ids=lambda cls: cls.name)
def test_everything_is_handed_on(around):
    says, generator, teacher = Says(1.0), seeded(), Teacher(NETWORK, INPUTS, 0.5)
    method = around((says,) if around is Alternate else says)
    method(NETWORK, "inputs", TARGETS, generator=generator, teacher=teacher)
    method(NETWORK, "inputs", TARGETS)
    assert says.asked == [("inputs", TARGETS, generator, teacher), ("inputs", TARGETS, None, None)]


@dataclass
class Both:
    """A method of one's own that holds others in a list."""

    name: ClassVar[str] = "both"
    methods: list[Method]

    def __call__(self, network, inputs, targets, *, generator=None, teacher=None):
        return Losses(torch.zeros(()))


class InDictionary:
    """A method of one's own that is no dataclass, holds others by number, and knows itself."""

    name = "in-dictionary"

    def __init__(self, methods):
        self.methods, self.itself, self.network = dict(enumerate(methods)), self, NETWORK
        self.network.name = "of no method"

    __call__ = Both.__call__


@pytest.mark.parametrize("around", [Alternate, Both, InDictionary], ids=lambda cls: cls.name)
def test_methods_inside_and_what_they_declare_are_found_outermost_first(around):
    until = Until(ManifoldMixup(), 0.5)
    method = around([MultiMix(), until])
    assert list(submethods(method)) == [method, MultiMix(), until, until.method, until.then]
    assert all(isinstance(part, Method) for part in submethods(method))
    assert declares(method, "needs_stages")
    assert not declares(around([ERM(), Mixup()]), "needs_stages")
    assert stateful(method) == [until]
    assert list(submethods(Alternate((ERM(), method))))[2:] == list(submethods(method))


def test_lists_are_as_good_as_tuples():
    assert Alternate([ERM(), Mixup()], [0.3, 0.7]) == Alternate((ERM(), Mixup()), (0.3, 0.7))
    assert ManifoldMixup(stages=[0, 1]) == ManifoldMixup(stages=(0, 1))
    assert hash(MultiMix(alpha=[0.5, 2.0])) == hash(MultiMix(alpha=(0.5, 2.0)))


TURNS = "methods must be a method such as MultiMix"
SUM = "probabilities must be 2 numbers that sum to 1"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        *(
            (lambda m=m: Alternate(m), TypeError, "methods must be a tuple of methods, got")
            for m in ({"a": Mixup()}, Mixup(), iter([Mixup()]), None)
        ),
        (lambda: Alternate(()), ValueError, "methods must hold at least one method, got none"),
        (lambda: Alternate((Mixup,)), TypeError, TURNS),
        (lambda: Alternate(("mixup",)), TypeError, TURNS),
        (lambda: Alternate((Mixup(), ERM()), (1.0,)), ValueError, SUM),
        (lambda: Alternate((Mixup(), ERM()), (0.5, 0.6)), ValueError, SUM),
        (lambda: Alternate((Mixup(), ERM()), (1.5, -0.5)), ValueError, "hold values that each must lie in"),
        (lambda: Until(Mixup), TypeError, "method must be a method such as MultiMix"),
        (lambda: Until(Mixup(), then="erm"), TypeError, "then must be a method such as MultiMix"),
        (lambda: Until(Mixup(), 1.1), ValueError, r"fraction must lie in \[0, 1\], got 1.1"),
        (lambda: Until(Mixup()).at(30), ValueError, r"progress must lie in \[0, 1\], got 30"),
        (lambda: Alternate((toy.images(), Mixup())), TypeError, "methods must .* got a value of type Toy$"),
        (lambda: Chain(AlignMix(), ERM()), TypeError, "first must be a method that mixes inputs, such as Mixup"),
        (lambda: Chain(AutoMix(), ERM()), TypeError, "first must be trained by no loss of its own, which Chain would"),
        (lambda: Chain(Mixup(), MultiMix), TypeError, "then must be a method"),
    ],
)
def test_impossible_combinations_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_alternate_mixes_inputs_if_all_do():
    inputs, targets = toy.batch(7, 8)
    method = Alternate((Mixup(), ERM()), (0.0, 1.0))
    mixed, labels = method.mix(inputs, targets, num_classes=5, generator=seeded())
    assert method.mixes_inputs
    assert torch.equal(mixed, inputs)
    assert torch.equal(labels, toy.one_hot(targets))
    assert not Alternate((Mixup(), MultiMix())).mixes_inputs


# ----------------------------------------------------------------------------------------------------------- Chain


@pytest.mark.parametrize("then", [ERM(), MultiMix(31)], ids=["erm", "multimix"])
@pytest.mark.parametrize("first", [Mixup(), CutMix()], ids=["mixup", "cutmix"])
def test_the_second_gets_what_the_first_has_mixed(first, then):
    network, (inputs, targets) = toy.images(), toy.batch(6, 3, 8, 8)
    generator = seeded()
    mixed, shared = first.mix(inputs, targets, num_classes=5, generator=generator)
    expected = then(network, mixed, shared, generator=generator)
    before = inputs.clone()
    found = Chain(first, then)(network, inputs, targets, generator=seeded())
    torch.testing.assert_close(found.total, expected.total)
    assert torch.equal(inputs, before)


def test_the_teacher_sees_its_own_view_mixed_by_the_same_draw():
    network, teacher, (inputs, targets) = toy.images(), toy.images(seed=1), toy.batch(6, 3, 8, 8)
    view = inputs.flip(-1)
    method = Chain(Mixup(), ERM())
    found = method(network, inputs, targets, generator=seeded(), teacher=Teacher(teacher, view, 0.5))
    mixing = Mixup().draw(None, inputs, targets, seeded())
    assert torch.equal(teacher.seen[-1], mixing.mix(view))
    alone = Mixup()(network, inputs, targets, generator=seeded(), teacher=Teacher(teacher, view, 0.5))
    torch.testing.assert_close(found.total, alone.total)


@pytest.mark.bad_input
def test_class_indices_need_an_affine_head():
    network, (inputs, targets) = toy.images(affine=False), toy.batch(6, 3, 8, 8)
    with pytest.raises(ValueError, match=r"targets must be class probabilities \(b, k\)"):
        Chain(Mixup(), ERM())(network, inputs, targets)
    assert Chain(Mixup(), ERM())(network, inputs, toy.one_hot(targets)).total.isfinite()
