"""Methods by name."""

import pytest

from multimix.distill import SelfDistilled
from multimix.lab.train import from_json, to_json
from multimix.methods import METHODS, Alternate, CutMix, DecoupledMixup, DenseMultiMix, Mixup, MultiMix, Ramp, Until
from multimix.names import METHOD_NAMES, about_method, method_named


def test_every_method_of_the_one_list_goes_by_its_name():
    assert {cls.name for cls in METHODS} <= set(METHOD_NAMES)
    for cls in METHODS:
        assert to_json(method_named(cls.name)) == to_json(cls())  # those that learn are equal to themselves only


def test_the_published_forms():
    """n = 1000, alpha in (0.5, 2), half of the steps input mixup with lambda ~ Beta(2, 2): paper.md, 1.4, 1.7 and 7."""
    mixup = Mixup(alpha=2.0)
    ours = MultiMix(alpha=(0.5, 2.0), tuples=1000, balanced=False, tuples_over="device")
    assert method_named("multimix-paper") == Alternate((ours, mixup), (0.5, 0.5))
    assert method_named("multimix-balanced").balanced
    dense = DenseMultiMix(alpha=(0.5, 2.0), tuples=1000, query="gap", activation="relu", tuples_over="device")
    assert not dense.shared
    assert method_named("dense-multimix-paper") == Alternate((dense, mixup), (0.5, 0.5))
    for name in ("multimix-paper", "dense-multimix-paper"):
        first = method_named(name).methods[0]
        assert (first.tuple_length, first.balanced) == (None, False)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_every_name_has_a_self_distilled_form_that_can_be_written_down(name):
    distilled = method_named(f"distilled-{name}")
    assert isinstance(distilled, SelfDistilled)
    assert to_json(distilled.method) == to_json(method_named(name))
    assert to_json(from_json(to_json(distilled))) == to_json(distilled)
    assert method_named(f"distilled-{name}") is not distilled


def test_a_method_is_scheduled_by_name():
    assert to_json(method_named("until-mixup")) == to_json(Until(Mixup()))
    assert to_json(method_named("Ramp-Mixup")) == to_json(Ramp(Mixup()))
    assert to_json(method_named("distilled-until-ramp-mixup")) == to_json(SelfDistilled(Until(Ramp(Mixup()))))


def test_a_method_that_mixes_pairs_is_decoupled_by_name():
    assert method_named("decoupled-mixup") == DecoupledMixup()
    assert method_named("decoupled-cutmix") == DecoupledMixup(CutMix())
    with pytest.raises(TypeError, match=r"method must mix pairs of examples, .* got MultiMix"):
        method_named("decoupled-multimix")


def test_case_and_underscores_do_not_matter():
    assert method_named("Dense_MultiMix") == DenseMultiMix()


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_every_name_is_explained_in_a_line(name):
    said = about_method(name)
    assert len(said) > 10
    assert "\n" not in said
    assert not said.startswith(("Return", "ERM(", "Mixup("))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mutlimix", r"unknown method 'mutlimix'; did you mean multimix or \S+\? known are erm, "),
        ("distilled-mixupp", r"unknown method 'mixupp'; did you mean mixup"),
        ("xyz", "unknown method 'xyz'; known are erm, mixup, .*also as distilled-NAME or .* or decoupled-NAME"),
        ("ramp-until-mixupp", r"unknown method 'mixupp'; did you mean mixup"),
        ("distilled-", "unknown method ''; known are erm"),
    ],
)
def test_unknown_names_are_refused_with_what_is_near(name, message):
    with pytest.raises(ValueError, match=message):
        method_named(name)
