"""Ramp: how often a method has its turn, and how strong it is, as training goes on."""

import pytest
import torch

import cases
import toy
from multimix.distill import SelfDistilled
from multimix.methods import ERM, AutoMix, ManifoldMixup, Mixup, MultiMix, Ramp, Until
from multimix.protocols import Losses, Teacher
from toy import seeded

NETWORK, INPUTS, TARGETS = toy.vectors(), *toy.batch(7, 8)


class Says:
    """A method that answers with its number, and remembers with what it was asked."""

    name = "says"

    def __init__(self, number):
        self.number = number

    def __call__(self, *asked, **options):
        self.asked = asked, options
        return Losses(torch.tensor(self.number))


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({}, (0.0, 0.25, 0.5, 1.0)),
        ({"prob": (1.0, 0.2)}, (1.0, 0.8, 0.6, 0.2)),
        ({"prob": (0.3, 0.3)}, (0.3, 0.3, 0.3, 0.3)),
        ({"shape": "cosine"}, (0.0, 0.1464, 0.5, 1.0)),
    ],
)
def test_a_method_has_its_turn_as_often_as_progress_says(settings, shares):
    method, generator, n = Ramp(Says(1.0), **settings, otherwise=Says(0.0)), seeded(), 1000
    for progress, share in zip((0.0, 0.25, 0.5, 1.0), shares, strict=True):
        method.at(progress)
        said = sum(float(method(NETWORK, INPUTS, TARGETS, generator=generator).total) for _ in range(n))
        assert abs(said / n - share) <= 4 * (share * (1 - share) / n) ** 0.5


@pytest.mark.parametrize(
    ("shape", "alphas"), [("linear", (0.2, 0.65, 1.1, 2.0)), ("cosine", (0.2, 0.2 + 1.8 * 0.1464466, 1.1, 2.0))]
)
def test_strength_is_a_setting_that_changes(shape, alphas):
    """And without a ``prob`` no coin is thrown: the draws are the method's own."""
    method = Ramp(Mixup(mode="elem"), strength=("alpha", 0.2, 2.0), shape=shape)
    for progress, alpha in zip((0.0, 0.25, 0.5, 1.0), alphas, strict=True):
        method.at(progress)
        ours, truth = (cases.run(m, NETWORK, INPUTS, TARGETS).total for m in (method, Mixup(alpha=alpha, mode="elem")))
        torch.testing.assert_close(ours, truth)
    assert torch.equal(ours, truth)  # the last value is exact


def test_at_its_ends_it_is_one_of_its_methods():
    method = Ramp(Mixup(), strength=("alpha", 0.3, 2.0), prob=(0.0, 1.0))
    for progress, alone in ((0.0, ERM()), (1.0, Mixup(2.0))):
        method.at(progress)
        ours, truth = (cases.run(m, NETWORK, INPUTS, TARGETS).total for m in (method, alone))
        assert torch.equal(ours, truth)


def test_everything_is_handed_on():
    says, options = Says(1.0), {"generator": seeded(), "teacher": Teacher(NETWORK, INPUTS, 0.5)}
    Ramp(says, (1.0, 1.0))(NETWORK, "inputs", TARGETS, **options)
    assert says.asked == ((NETWORK, "inputs", TARGETS), options)


def test_training_that_begins_anew_begins_at_the_start():
    method = Ramp(Says(1.0), (1.0, 0.0), otherwise=Says(0.0))
    method.at(1.0)
    method.prepare(NETWORK)
    assert method(NETWORK, INPUTS, TARGETS).total == 1


NAMED = "strength must begin with a setting of"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Ramp(Mixup), TypeError, "method must be a method such as MultiMix"),
        (lambda: Ramp(Mixup(), otherwise="erm"), TypeError, "otherwise must be a method such as MultiMix"),
        (lambda: Ramp(Mixup(), (0.0, 1.1)), ValueError, r"prob must .*lie in \[0, 1\], got \(0.0, 1.1\)"),
        (lambda: Ramp(Mixup(), (0.0,)), ValueError, r"prob must .*hold 2 values"),
        (lambda: Ramp(Mixup(), 0.5), TypeError, "prob must be a tuple of numbers or None, got 0.5"),
        (lambda: Ramp(Mixup(), shape="steps"), ValueError, "shape must be one of linear, cosine, got 'steps'"),
        (lambda: Ramp(Mixup(), strength=("beta", 0.1, 1.0)), ValueError, f"{NAMED} Mixup, which has alpha, mode; got"),
        (lambda: Ramp(Mixup(), strength=(0.1, 1.0, "alpha")), ValueError, f"{NAMED} Mixup"),
        (lambda: Ramp(Mixup(), strength=("alpha", 0.1)), ValueError, "strength must .*hold 3 values"),
        (lambda: Ramp(Mixup(), strength=("alpha", 0.1, "x")), TypeError, "strength must be a tuple of numbers"),
        (lambda: Ramp(Mixup(), strength=("alpha", 0.0, 1.0)), ValueError, "alpha must be above 0 and finite, got 0.0"),
        (lambda: Ramp(Mixup(), strength=("alpha", 1.0, -1.0)), ValueError, "alpha must be above 0 and finite, got -1"),
        (lambda: Ramp(MultiMix(), strength=("tuples", 10.0, 20.0)), TypeError, "tuples must be an integer, got 20.0"),
        (lambda: Ramp(AutoMix(), strength=("alpha", 0.1, 1.0)), ValueError, f"{NAMED} AutoMix, which has none"),
        (lambda: Ramp(Says(1.0), strength=("number", 0.1, 1.0)), ValueError, f"{NAMED} Says, which has none"),
        (lambda: Ramp(Mixup()).at(30), ValueError, r"progress must lie in \[0, 1\], got 30"),
    ],
)
def test_impossible_settings_are_refused(make, error, message):
    with pytest.raises(error, match=f"^{message}"):
        make()


def test_it_goes_with_what_else_is_made_of_methods():
    network, *batch = cases.images()
    for method in (SelfDistilled(Ramp(ManifoldMixup())), Until(Ramp(Mixup()), 0.5), Ramp(Ramp(Mixup(), (1.0, 1.0)))):
        for progress in (0.0, 0.4, 1.0):
            method.at(progress)
            assert cases.run(method, network, *batch).total.isfinite()
