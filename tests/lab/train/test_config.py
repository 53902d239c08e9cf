"""What a configuration refuses, and what it says of its method."""

from dataclasses import fields

import pytest

from fuzz.ranges import COUNT, NATURAL, range_of
from multimix.distill import SelfDistilled
from multimix.lab.detect import DetectConfig
from multimix.lab.train import SGD, AdamW, Cosine, Step, TrainConfig
from multimix.methods import ERM, Alternate, Mixup, MultiMix, Until


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (SGD, {"momentum": 0.0, "nesterov": True}, "nesterov needs a momentum above 0"),
    ],
)  # fmt: skip
def test_values_that_do_not_go_together_are_refused(cls, settings, message):
    """What each field refuses by itself is in tests/fuzz/ranges.py."""
    with pytest.raises(ValueError, match=message):
        cls(**settings)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("field", "bad", "message"),
    [
        ("epochs", 1.0, "epochs must be an integer, got 1.0"),
        ("width", "3", "width must be an integer or None, got '3'"),
        ("method", "multimix", r"method must be a method such as MultiMix\(\), got 'multimix'"),
        ("method", MultiMix, r"method must be a method such as MultiMix\(\), got <class"),
        ("optimizer", "sgd", "optimizer must be SGD or AdamW, got 'sgd'"),
        ("optimizer", SGD, "optimizer must be SGD or AdamW, got <class"),
        ("schedule", None, "schedule must be Step or Cosine, got None"),
    ],
)
def test_parts_must_be_of_their_kind(field, bad, message):
    with pytest.raises(TypeError, match=message):
        TrainConfig(**{field: bad})


def test_the_limits_themselves_are_allowed():
    SGD(momentum=0.0, weight_decay=0.0)
    AdamW(betas=(0.0, 0.0), weight_decay=0.0)
    Step(milestones=())
    Cosine(final=1.0)
    Cosine(final=0.0)
    for cls in (TrainConfig, DetectConfig):
        for f in fields(cls):
            if range_of(cls, f.name) in (COUNT, NATURAL):
                cls(**{f.name: int(range_of(cls, f.name) is COUNT)})
    TrainConfig(validation=0.0, ema=0.0, seed=0)
    TrainConfig(seed=2**64 - 1, compile=True)


@pytest.mark.parametrize(
    ("method", "views"),
    [
        (ERM(), 1),
        (Alternate((MultiMix(), Mixup())), 1),
        (SelfDistilled(ERM()), 2),
        (SelfDistilled(Until(Alternate((Mixup(), ERM())))), 2),
        (Alternate((SelfDistilled(ERM()), SelfDistilled(Until(Mixup())))), 2),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_self_distillation_takes_two_views(method, views):
    assert TrainConfig(method=method).views == views


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "method",
    [
        Until(SelfDistilled(MultiMix())),
        Until(Mixup(), 0.5, SelfDistilled(ERM())),
        Alternate((Mixup(), Until(SelfDistilled(ERM()), 0.5, SelfDistilled(Mixup())))),
    ],
)
def test_self_distillation_of_a_part_is_refused(method):
    """It would fail at the first step of the other part, perhaps late."""
    with pytest.raises(ValueError, match="SelfDistilled takes two views of a mini-batch and other methods one: put it"):
        TrainConfig(method=method)


def test_tables_call_a_run_by_its_label_or_else_by_its_method():
    assert TrainConfig(method=Mixup()).title == "mixup"
    assert TrainConfig(method=Mixup(), label="mixup, alpha 1").title == "mixup, alpha 1"
