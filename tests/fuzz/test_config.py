"""Configurations: whatever is allowed comes back from text as it was; what is not is refused by the field's name."""

import json
import math
import types
from dataclasses import MISSING, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import strategies as st

from fuzz.ranges import CONFIGS, range_of, refused, share, text
from fuzz.strategies import law
from multimix.distill import SelfDistilled
from multimix.lab.detect import DetectConfig
from multimix.lab.train import SGD, AdamW, Cosine, Step, TrainConfig, from_json, to_json
from multimix.methods import ERM, METHODS, Alternate, AttentiveMix, Chain, Mixup, Ramp, SuperMix, Until
from train.tiny import same

ALONE = {"alpha", "effective"}, {"encoder", "decoder"}  # fields that do not go, or only go, with each other


def kinds_of(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def values_of(cls: type[Any], name: str, hint: Any) -> st.SearchStrategy[Any]:
    kinds = kinds_of(hint)
    found = st.none() if types.NoneType in kinds else st.nothing()
    if bool in kinds:
        return found | st.booleans()
    if literals := [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]:
        found |= st.sampled_from(literals)
    if known := range_of(cls, name):
        return found | known.allowed
    return found | text


@st.composite
def made(draw: st.DrawFn, cls: type[Any], **given: Any) -> Any:
    hints = get_type_hints(cls)
    skipped = {*ALONE[1], *(ALONE[0] - {draw(st.sampled_from(sorted(ALONE[0])))} if "effective" in hints else ())}
    chosen = dict(given)
    for f in fields(cls):
        needed = f.default is MISSING and f.default_factory is MISSING
        if f.name not in chosen and f.name not in skipped and (needed or draw(st.booleans())):
            chosen[f.name] = draw(values_of(cls, f.name, hints[f.name]))
    if "effective" in chosen:
        chosen["alpha"] = None
    if chosen.get("nesterov") and chosen.get("momentum") == 0:
        chosen["nesterov"] = False
    return cls(**chosen)


single = st.sampled_from([cls for cls in METHODS if cls not in (AttentiveMix, SuperMix)]).flatmap(made)
nested = st.recursive(
    single,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda methods: Alternate(tuple(methods))),
        st.tuples(inner, share, inner).map(lambda parts: Until(*parts)),
        inner.flatmap(lambda method: made(Ramp, method=method, otherwise=ERM())),
        inner.map(lambda method: Chain(Mixup(), method)),
    ),
    max_leaves=4,
)
methods = nested | nested.flatmap(lambda method: made(SelfDistilled, method=method))
optimizers = st.sampled_from([SGD, AdamW]).flatmap(made)
schedules = st.sampled_from([Step, Cosine]).flatmap(made)


@st.composite
def configs(draw: st.DrawFn) -> TrainConfig | DetectConfig:
    given: dict[str, Any] = {"optimizer": draw(optimizers), "schedule": draw(schedules), "device": "cpu"}
    if draw(st.booleans()):
        return draw(made(DetectConfig, **given, init="run"))
    alone = {"compile": False, "fsdp": False, "devices": 1, "nodes": 1, "init": None, "pretrained": False}
    return draw(made(TrainConfig, **given, **alone, method=draw(methods)))


@law(examples=60, config=configs())
def test_every_allowed_configuration_comes_back_from_text(config):
    back = from_json(json.loads(json.dumps(to_json(config))))
    assert same(back, config)
    assert to_json(back) == to_json(config)


@pytest.mark.parametrize("cls", METHODS, ids=lambda cls: cls.name)
@law(examples=8)
def test_every_method_comes_back_from_text(cls, data):
    method = data.draw(made(cls))
    assert same(from_json(json.loads(json.dumps(to_json(method)))), method)


@pytest.mark.parametrize("cls", CONFIGS, ids=lambda cls: cls.__name__)
def test_every_field_of_a_number_or_a_choice_has_a_range(cls):
    hints = get_type_hints(cls)
    for f in fields(cls):
        checked = {int, float, tuple, Literal} & {get_origin(kind) or kind for kind in kinds_of(hints[f.name])}
        assert range_of(cls, f.name) or not checked or f.name == "methods", f.name


@pytest.mark.bad_input
@pytest.mark.parametrize("cls", CONFIGS, ids=lambda cls: cls.__name__)
def test_what_is_out_of_range_is_refused_by_the_field_s_name(cls: type[Any]):
    for name, value in refused(cls):
        with pytest.raises((ValueError, TypeError), match=name.removesuffix("s")) as caught:
            cls(**{**CONFIGS[cls], name: value})
        assert "\n" not in str(caught.value)


ODD: tuple[Any, ...] = ("x", "", None, 1.5, 2, -1, 0, True, [], {}, (1,), ("x",), ("x", "y"), math.nan, -math.inf, b"x")
"""What somebody might give for a field; some of it suits each."""


@pytest.mark.bad_input
@pytest.mark.parametrize("cls", CONFIGS, ids=lambda cls: cls.__name__)
@law(examples=40, value=st.sampled_from(ODD))
def test_settings_take_what_is_of_the_field_s_type_or_name_a_field(cls, value, data):
    hints = get_type_hints(cls)
    name = data.draw(st.sampled_from(sorted(hints.keys() & {f.name for f in fields(cls)})))
    kinds = {get_origin(kind) or kind for kind in kinds_of(hints[name])}
    said, settings = "", None
    try:
        settings = cls(**{**CONFIGS[cls], name: value})
    except (ValueError, TypeError) as error:
        said = str(error)
    if settings is None:
        assert any(f.name.removesuffix("s") in said for f in fields(cls))
        assert "\n" not in said
    elif kinds <= {int, float, bool, str, tuple, types.NoneType}:
        took = getattr(settings, name)
        assert type(took) in kinds | ({int} if float in kinds else set())
        assert took == took, "NaN"
