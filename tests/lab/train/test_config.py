"""What a configuration refuses, and what it says of its method."""

import pytest

from multimix.distill import SelfDistilled
from multimix.lab.train import SGD, AdamW, Cosine, Step, TrainConfig
from multimix.methods import ERM, Alternate, ManifoldMixup, Mixup, MultiMix, Until

NAN, INF = float("nan"), float("inf")
AT_LEAST_ONE = (
    *("epochs", "batch_size", "accumulate", "width", "checkpoint_steps", "train_size", "image_size"),
    *("devices", "nodes", "validate_every"),
)
AT_LEAST_ZERO = ("split_seed", "crop_padding", "workers")


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        *((cls, {"learning_rate": bad}, "learning_rate must be above 0 and finite, got")
          for cls in (SGD, AdamW) for bad in (0.0, INF)),
        *((cls, {"weight_decay": -1e-9}, "weight_decay must be at least 0, got") for cls in (SGD, AdamW)),
        *((SGD, {"momentum": bad}, r"momentum must lie in \[0, 1\), got") for bad in (-0.1, 1.0, NAN)),
        (SGD, {"momentum": 0.0, "nesterov": True}, "nesterov needs a momentum above 0"),
        *((AdamW, {"betas": bad}, r"betas must hold values that each must lie in \[0, 1\), got")
          for bad in ((0.9, 1.0), (-0.1, 0.9))),
        *((Step, {"milestones": (0.5, bad)}, r"milestones must hold values that each must lie in \(0, 1\), got")
          for bad in (0.0, 1.0)),
        *((Step, {"factor": bad}, "factor must be above 0 and finite, got") for bad in (0.0, INF)),
        *((cls, {"warmup_epochs": -0.5}, "warmup_epochs must be at least 0, got") for cls in (Step, Cosine)),
        *((Cosine, {"final": bad}, r"final must lie in \[0, 1\], got") for bad in (-0.1, 1.1)),
        *((TrainConfig, {name: 0}, f"{name} must be at least 1, got 0") for name in AT_LEAST_ONE),
        *((TrainConfig, {name: -1}, f"{name} must be at least 0, got -1") for name in AT_LEAST_ZERO),
        *((TrainConfig, {"seed": bad}, r"seed must lie in \[0, 18446744073709551616\), got") for bad in (-1, 2**64)),
        *((TrainConfig, {name: bad}, rf"{name} must lie in \[0, 1\), got {bad}")
          for name in ("validation", "ema") for bad in (-0.1, 1.0)),
        *((TrainConfig, {"clip": bad}, "clip must be above 0 and finite, got") for bad in (0.0, INF)),
        (TrainConfig, {"precision": "fp8"}, "precision must be one of 32-true, bf16-mixed, 16-mixed, got 'fp8'"),
        *((TrainConfig, {"compile": True, "method": method}, "compile=True does not go with ManifoldMixup")
          for method in (ManifoldMixup(), SelfDistilled(Until(Alternate((ERM(), ManifoldMixup())))))),
    ],
)  # fmt: skip
def test_impossible_values_are_refused_by_name(cls, settings, message):
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
    TrainConfig(**dict.fromkeys(AT_LEAST_ONE, 1), **dict.fromkeys(AT_LEAST_ZERO, 0), validation=0.0, ema=0.0, seed=0)
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
