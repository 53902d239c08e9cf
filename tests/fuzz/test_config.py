"""Configurations: whatever is allowed comes back from text as it was; what is not is refused by the field's name."""

import json
import math
import types
from dataclasses import MISSING, fields, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import strategies as st

from fuzz.strategies import law
from multimix._declared import check_fields
from multimix.distill import SelfDistilled
from multimix.lab.train import SGD, AdamW, Cosine, Step, TrainConfig, from_json, to_json
from multimix.methods import ERM, METHODS, Alternate, Chain, Mixup, SuperMix, Until
from train.test_codec import same

positive = st.one_of(st.sampled_from([1e-300, 1.0, 1e300]), st.floats(1e-6, 1e6))
share = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
below_1 = st.floats(0, 1, exclude_max=True)
count = st.one_of(st.sampled_from([1, 2**31]), st.integers(1, 1000))
natural = st.one_of(st.just(0), count)
text = st.text("aé数🦊 \\\"'\n:/%{}", max_size=8)
data = st.data()

RANGES: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("alpha", "alpha1", "alpha2", "delta", "epsilon", "clip", "factor", "gamma_zeta"), positive),
    **dict.fromkeys(("prob", "r", "balance_power", "clean", "omega", "adversarial"), share),
    **dict.fromkeys(("final", "fraction", "gamma"), share),
    **dict.fromkeys(("validation", "ema", "momentum"), below_1),
    **dict.fromkeys(("confidence", "held_out", "share"), st.floats(1e-6, 1 - 1e-6)),
    **dict.fromkeys(("seed", "split_seed", "crop_padding", "workers", "warmup"), natural),
    **dict.fromkeys(("labels", "images"), st.integers(2, 50)),
    "size": st.integers(32, 500),
    "betas": st.tuples(below_1, below_1),
    "scales": st.tuples(share, share).map(lambda pair: tuple(sorted(pair))),
    "levels": st.tuples(st.floats(-5, 0), st.floats(1, 5)),
    "milestones": st.lists(st.floats(1e-6, 1 - 1e-6), max_size=4).map(tuple),
    "stages": st.lists(natural, min_size=1, max_size=4).map(tuple),
    "grids": st.lists(count, min_size=1, max_size=4).map(tuple),
    "strides": st.lists(count, min_size=1, max_size=4).map(tuple),
}
"""Values of fields whose range is narrower, or wider, than their type says."""
ALONE = {"alpha": "effective", "encoder": "decoder"}
"""Fields that do not go, or only go, with another one; the second keeps its default."""
EITHER = ("auto", "beta")


def values_of(cls: type[Any], name: str, hint: Any) -> st.SearchStrategy[Any]:
    """Allowed values of a field."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    none = st.none() if types.NoneType in kinds else st.nothing()
    if name == "gamma" and cls.__name__ in ("ZetaMixup", "CoMixup", "PuzzleMix"):
        return positive.filter(lambda value: value < 1e200)
    if name == "teacher" and cls is SuperMix:
        return st.none()
    if bool in kinds:
        return none | st.booleans()
    if name in RANGES:
        return none | RANGES[name]
    literals = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
    if literals:
        return none | st.sampled_from(literals)
    if str in kinds:
        return none | text
    if int in kinds and float not in kinds:
        return none | count
    return none | positive.filter(lambda value: value < 1)


@st.composite
def made(draw: st.DrawFn, cls: type[Any], **given: Any) -> Any:
    """An allowed instance of a dataclass, some of its fields given."""
    hints = get_type_hints(cls)
    left = {name for first, second in ALONE.items() for name in (first, second)} & {f.name for f in fields(cls)}
    skipped = left if "encoder" in left else left - {"alpha"} if "effective" in left else set()
    chosen = dict(given)
    for f in fields(cls):
        needed = f.default is MISSING and f.default_factory is MISSING
        if f.name not in chosen and f.name not in skipped and (needed or draw(st.booleans())):
            chosen[f.name] = draw(values_of(cls, f.name, hints[f.name]))
    if chosen.get("nesterov") and chosen.get("momentum") == 0:
        chosen["nesterov"] = False
    return cls(**chosen)


single = st.sampled_from([cls for cls in METHODS if cls is not SuperMix]).flatmap(made)
nested = st.recursive(
    single,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda methods: Alternate(tuple(methods))),
        st.tuples(inner, share, inner).map(lambda parts: Until(*parts)),
        inner.map(lambda method: Chain(Mixup(), method)),
    ),
    max_leaves=4,
)
methods = nested | nested.flatmap(lambda method: made(SelfDistilled, method=method))
optimizers = st.sampled_from([SGD, AdamW]).flatmap(made)
schedules = st.sampled_from([Step, Cosine]).flatmap(made)


@st.composite
def configs(draw: st.DrawFn) -> TrainConfig:
    """An allowed configuration of training."""
    given: dict[str, Any] = {"method": draw(methods), "optimizer": draw(optimizers), "schedule": draw(schedules)}
    given |= {
        "compile": False,
        "fsdp": False,
        "devices": 1,
        "nodes": 1,
        "init": None,
        "device": "cpu",
        "pretrained": False,
    }
    known = {f.name for f in fields(TrainConfig)}
    return draw(made(TrainConfig, **{name: value for name, value in given.items() if name in known}))


@law(examples=40, config=configs())
def test_every_allowed_configuration_comes_back_from_text(config: TrainConfig):
    back = from_json(json.loads(json.dumps(to_json(config))))
    assert same(back, config)
    assert to_json(back) == to_json(config)


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.name)
@law(examples=8, data=data)
def test_every_method_comes_back_from_text(cls, data):
    method = data.draw(made(cls, **({"teacher": None} if cls is SuperMix else {})))
    back = from_json(json.loads(json.dumps(to_json(method))))
    assert same(back, method)


ODD: tuple[Any, ...] = ("x", "", None, 1.5, 2, -1, 0, True, [], {}, (1,), ("x",), ("x", "y"), math.nan, -math.inf, b"x")
"""What somebody might give for a field; some of it suits each."""
CLASSES: dict[type[Any], dict[str, Any]] = {
    **{cls: {} for cls in METHODS if cls not in (ERM, SuperMix)},
    SuperMix: {"teacher": None},
    SelfDistilled: {"method": ERM()},
    Until: {"method": ERM()},
    Alternate: {"methods": (ERM(),)},
    Chain: {"first": Mixup(), "then": ERM()},
}


@pytest.mark.bad_input
@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@law(examples=80, data=data)
def test_a_method_takes_a_value_or_names_the_field(cls, data):
    """And what it takes is of the field's type."""
    name = data.draw(st.sampled_from([f.name for f in fields(cls)]))
    value = data.draw(st.sampled_from(ODD))
    said, method = "", None
    try:
        method = cls(**{**CLASSES[cls], name: value})
    except (ValueError, TypeError) as error:
        said = str(error)
    if method is None:
        assert name in said
        assert "\n" not in said
    else:
        check_fields(method)
        assert not (isinstance(value, float) and math.isnan(value))


CHECKED: dict[type[Any], dict[str, tuple[Any, ...]]] = {
    TrainConfig: {
        **dict.fromkeys(
            ("epochs", "batch_size", "accumulate", "width", "validate_every", "checkpoint_steps", "train_size"),
            (0, -1, 1.5, "x", True, [], math.nan),
        ),
        "image_size": (0, -1, 1.5, "x", True, [], math.nan),
        **dict.fromkeys(("split_seed", "crop_padding", "workers"), (-1, 1.5, "x", True, [], math.nan)),
        "seed": (-1, 2**64, 1.5, "x", True),
        "validation": (-0.1, 1, 1.5, math.nan, math.inf),
        "ema": (-0.1, 1, 1.5, math.nan, math.inf),
        "clip": (0, -1, math.nan, math.inf),
        "precision": ("fp8", "", None, 16),
        "method": ("mixup", None, Mixup, 5),
        "optimizer": ("sgd", None, SGD, Cosine()),
        "schedule": ("cosine", None, Cosine, SGD()),
    },
    SGD: {
        "learning_rate": (0, -1, math.nan, math.inf),
        "momentum": (-0.1, 1, math.nan, math.inf),
        "weight_decay": (-1e-9, math.nan, -math.inf),
    },
    AdamW: {"betas": ((0.9, 1.0), (-0.1, 0.9), (math.nan, 0.9)), "learning_rate": (0, math.nan), "weight_decay": (-1,)},
    Step: {
        "milestones": ((0.0,), (1.0,), (0.5, math.nan)),
        "factor": (0, -1, math.nan, math.inf),
        "warmup_epochs": (-1,),
    },
    Cosine: {"final": (-0.1, 1.1, math.nan), "warmup_epochs": (-1, math.nan)},
}
"""Values that the fields of a configuration refuse."""


@pytest.mark.bad_input
@pytest.mark.parametrize(("cls", "name"), [(cls, name) for cls, names in CHECKED.items() for name in names])
def test_a_wrong_value_is_refused_by_the_field_s_name(cls: type[Any], name: str):
    for value in CHECKED[cls][name]:
        with pytest.raises((ValueError, TypeError), match=name):
            replace(cls(), **{name: value})
        if not isinstance(value, type):
            with pytest.raises((ValueError, TypeError), match=name):
                from_json({**to_json(cls()), name: to_json(value)})


@pytest.mark.bad_input
@law(examples=15, config=configs(), junk=st.sampled_from(["typ", "", "Epochs", "epochs ", "__class__"]))
def test_unknown_fields_and_classes_are_refused(config, junk):
    written = to_json(config)
    with pytest.raises(ValueError, match="TrainConfig has no field"):
        from_json({**written, junk: 1})
    with pytest.raises(ValueError, match="must name a known class"):
        from_json({**written, "method": {**written["method"], "type": junk}})
