"""Chain: inputs mixed by one method are another one's mini-batch."""

import pytest
import torch

import toy
from multimix import SelfDistilled
from multimix.methods import ERM, AlignMix, Chain, CutMix, Mixup, MultiMix
from multimix.protocols import Teacher
from toy import seeded


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


def test_a_chain_before_plain_training_is_the_first_method():
    network, (inputs, targets) = toy.images(), toy.batch(6, 3, 8, 8)
    found, alone = (m(network, inputs, targets, generator=seeded()).total for m in (Chain(Mixup(), ERM()), Mixup()))
    torch.testing.assert_close(found, alone)


def test_the_teacher_sees_its_own_view_mixed_by_the_same_draw():
    network, teacher, (inputs, targets) = toy.images(), toy.images(seed=1), toy.batch(6, 3, 8, 8)
    view = inputs.flip(-1)
    method = Chain(Mixup(), ERM())
    found = method(network, inputs, targets, generator=seeded(), teacher=Teacher(teacher, view, 0.5))
    mixing = Mixup().draw(None, inputs, targets, seeded())
    assert torch.equal(teacher.seen[-1], mixing.mix(view))
    alone = Mixup()(network, inputs, targets, generator=seeded(), teacher=Teacher(teacher, view, 0.5))
    torch.testing.assert_close(found.total, alone.total)


def test_it_can_be_distilled():
    network, (inputs, targets) = toy.images(), toy.batch(6, 3, 8, 8)
    losses = SelfDistilled(Chain(Mixup(), MultiMix(31)))(network, (inputs, inputs), targets, generator=seeded())
    losses.total.backward()
    assert set(losses.terms) == {"labels", "teacher"}


@pytest.mark.bad_input
def test_what_cannot_come_first_is_refused():
    with pytest.raises(TypeError, match="first must be a method that mixes inputs, such as Mixup"):
        Chain(AlignMix(), ERM())
    with pytest.raises(TypeError, match="then must be a method"):
        Chain(Mixup(), MultiMix)


@pytest.mark.bad_input
def test_class_indices_need_an_affine_head():
    network, (inputs, targets) = toy.images(affine=False), toy.batch(6, 3, 8, 8)
    with pytest.raises(ValueError, match=r"targets must be class probabilities \(b, k\)"):
        Chain(Mixup(), ERM())(network, inputs, targets)
    assert Chain(Mixup(), ERM())(network, inputs, toy.one_hot(targets)).total.isfinite()
