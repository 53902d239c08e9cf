"""Configurations as JSON: every class comes back as it was; anything else is refused by name."""

import json
from dataclasses import dataclass

import pytest

from multimix.distill import SelfDistilled
from multimix.lab._code import Code
from multimix.lab.train import SGD, AdamW, Cosine, Step, TrainConfig, from_json, to_json
from multimix.methods import ERM, METHODS, Alternate, CutMix, DenseMultiMix, ManifoldMixup, Mixup, MultiMix, Ramp, Until
from multimix.names import method_named
from train.tiny import same

NESTED = Alternate(
    (
        SelfDistilled(
            Until(DenseMultiMix(alpha=(0.5, 2.0), query="uniform"), 0.4, Mixup()), teacher="mix", warmup=True
        ),
        SelfDistilled(Until(MultiMix(effective=(1.5, 3.0), tuples=7, tuple_length=3, balanced=True), 0.0)),
        SelfDistilled(Alternate((ERM(), CutMix(alpha=0.3)))),
    ),
    (0.25, 0.25, 0.5),
)
WHOLE = TrainConfig(
    label='a <b> "c" é',
    strides=(1, 2, 1, 2),
    final_norm=False,
    flip=False,
    method=NESTED,
    optimizer=AdamW(learning_rate=0.1 + 0.2, betas=(0.8, 0.95), weight_decay=1e-7),
    schedule=Step(milestones=(1 / 3, 2 / 3), factor=0.3, warmup_epochs=1.5),
    epochs=7,
    ema=0.5,
    seed=2**63 + 1,
)
"""With values that are no defaults, which a lost field would be; tests/fuzz tries every field."""
PARTS = [
    *(method() for method in METHODS),
    ManifoldMixup(alpha=0.2, stages=(0, 3)),
    NESTED,
    *NESTED.methods,
    Ramp(CutMix(prob=0.5), (0.9, 0.1), ("alpha", 0.5, 1.5), "cosine", Mixup()),
    SGD(learning_rate=0.3, momentum=0.5, nesterov=True, weight_decay=0.0),
    AdamW(),
    Step(),
    Cosine(final=0.1, warmup_epochs=2.5),
    TrainConfig(),
    WHOLE,
]


@pytest.mark.parametrize("value", PARTS, ids=lambda value: type(value).__name__)
def test_everything_comes_back_from_text_as_it_was(value):
    assert same(from_json(json.loads(json.dumps(to_json(value)))), value)


def test_what_a_method_learns_is_not_written():
    method = SelfDistilled(ERM())
    before = to_json(method)
    method.ema = object()
    assert (
        to_json(method)
        == before
        == {
            "type": "SelfDistilled",
            "method": {"type": "ERM"},
            "gamma": 0.5,
            "teacher": "predict",
            "momentum": 0.999,
            "buffer_rule": "copy",
            "warmup": True,
        }
    )


def test_names_of_earlier_records_are_read_where_the_class_has_the_new_one():
    assert from_json({"type": "CutMix", "probability": 0.25}) == from_json({"type": "CutMix", "prob": 0.25})
    assert from_json({"type": "CutMix", "probability": 0.25}).prob == 0.25
    with pytest.raises(ValueError, match="Mixup has no field probability; it has alpha"):
        from_json({"type": "Mixup", "probability": 0.25})


@pytest.mark.parametrize("on", [True, False])
def test_earlier_records_wrote_for_tensorboard_or_for_nobody(on):
    written = {"type": "TrainConfig", "tensorboard": on}
    assert from_json(written) == TrainConfig(logger=("tensorboard",) * on)


def test_published_methods_of_earlier_records_drew_their_tuples_over_all_devices():
    written = to_json(method_named("multimix-paper"))
    assert written["methods"][0].pop("tuples_over") == "device"
    assert from_json(written).methods[0].tuples_over == "all"


def test_a_method_from_a_file_stands_unrun_without_the_file_and_is_written_as_it_was():
    written = {"type": "SelfDistilled", "method": {"type": "mine.py:Mix", "share": [0.1, 2]}, "warmup": False}
    found = from_json(written)
    assert to_json(found)["method"] == written["method"]
    assert found.method.name == "mine.py:Mix"
    with pytest.raises(ValueError, match=r"mine\.py:Mix is code of a run's own, which is not run without trust_code"):
        found.method(None, None, None)


def test_a_method_from_a_file_comes_back_with_the_file(tmp_path):
    source = b"from dataclasses import dataclass\n@dataclass\nclass Mix:\n    share: tuple = (1.0,)\n    name = 'mix'\n"
    found = from_json({"type": "mine.py:Mix", "share": [0.1, 2]}, Code({"mine.py": source}, tmp_path))
    assert (type(found).__name__, found.share) == ("Mix", (0.1, 2))
    assert to_json(found) == {"type": "mine.py:Mix", "share": [0.1, 2]}


@dataclass
class Settings:
    values: dict


@pytest.mark.bad_input
def test_settings_that_json_does_not_have_are_refused():
    with pytest.raises(ValueError, match="a setting must be a number, a text, None, a tuple or a dataclass"):
        to_json(Settings(values={"a": 1}))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"type": "MixUp"}, r"known class in 'type', got 'MixUp'"),
        ({"alpha": 1.0}, r"known class in 'type', got None"),
        ({"type": ["Mixup"]}, r"known class in 'type', got \['Mixup'\]"),
        ({"type": "TrainConfig", "method": {"type": "os.system"}}, r"known class in 'type', got 'os.system'"),
        ({"type": "Mixup", "alfa": 1.0}, r"Mixup has no field alfa; it has alpha"),
        ({"type": "TrainConfig", "b": 1, "a": 2}, r"TrainConfig has no field a, b; it has recipe, label"),
        ({"type": "SelfDistilled", "gamma": 0.1}, r"SelfDistilled needs method"),
        ({"type": "Alternate", "methods": [{"type": "MultiMix", "tuples": 0}]}, r"tuples must be at least 1, got 0"),
    ],
)
def test_what_is_no_configuration_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        from_json(value)
