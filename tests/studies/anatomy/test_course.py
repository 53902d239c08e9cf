import json
from itertools import pairwise

import pytest
import torch

from anatomy import AnatomySettings, anatomise
from anatomy.course import course
from multimix.lab.runs.checkpoint import random_states
from multimix.lab.train import Engine
from multimix.methods import ERM, MultiMix
from train.tiny import splits_of, tiny, train_all

FEW = AnatomySettings(
    batches=2, tuples=2000, dense_tuples=10, expected_tuples=60, noise_tuples=(5, 20), noise_draws=2, examples=60
)


@pytest.fixture(scope="module")
def records():
    config = tiny(method=ERM())
    return list(anatomise(config, splits_of(config), FEW))


def test_measuring_changes_nothing_of_the_training(monkeypatch):
    config = tiny(method=MultiMix(50))
    plain = Engine(config, splits_of(config))
    losses = train_all(plain)
    kept = []
    monkeypatch.setattr("anatomy.course.Engine", lambda *given: kept.append(Engine(*given)) or kept[-1])
    for _ in anatomise(config, splits_of(config), FEW):
        pass
    (measured,) = kept
    assert len(losses) == measured.at.step == plain.at.step
    there = measured.network.state_dict()
    for name, value in plain.network.state_dict().items():  # batch normalisation's buffers are among them
        assert torch.equal(there[name], value), name
    assert torch.equal(measured.generator.get_state(), plain.generator.get_state())


def test_measuring_leaves_the_global_generators_alone():
    config = tiny()
    steps = anatomise(config, splits_of(config), FEW)
    next(steps)  # the network has been built and measured once
    before = random_states()["torch"]
    while next(steps)["progress"] == 0:
        pass
    assert torch.equal(random_states()["torch"], before)


@pytest.mark.parametrize(("accumulate", "steps"), [(1, [0, 2, 4, 8]), (2, [0, 1, 2, 4])])
def test_points_are_the_start_the_first_epoch_and_the_fractions(accumulate, steps):
    config = tiny(accumulate=accumulate)
    assert list(course(Engine(config, splits_of(config)), (0.25, 0.5, 1.0))) == steps


def test_every_record_says_what_it_is(records):
    for record in records:
        assert {"metric", "value", "label", "seed", "epoch", "progress", "m", "data", "model"} <= set(record)
        assert {"device", "torch", "commit", "date"} <= set(record)
        json.dumps(record, allow_nan=False)
    assert {record["progress"] for record in records} == {0.0, 0.25, 0.5, 1.0}
    counts = [sum(record["progress"] == at for record in records) for at in (0.0, 0.25, 0.5, 1.0)]
    assert all(a == b for a, b in pairwise(counts))


def test_at_the_start_the_law_holds_on_the_logits_of_a_network(records):
    ratio = {
        json.dumps(r["alpha"]): r["value"]["logits_centred"]
        for r in records
        if r["metric"] == "norm_ratio" and r["measured"] == "multimix" and not r["balanced"] and r["progress"] == 0
    }
    law = {
        json.dumps(r["alpha"]): r["value"]["logits_centred"]
        for r in records
        if r["metric"] == "law_norm_ratio" and r["progress"] == 0
    }
    assert set(ratio) == set(law) == {"[0.5, 2.0]", "0.5", "0.03125", "0.125"}
    for alpha, predicted in law.items():
        assert ratio[alpha] == pytest.approx(predicted, rel=0.1)


def test_data_is_named_without_its_path(tmp_path):
    import numpy as np

    path = tmp_path / "little.npz"
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(80, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(80) % 4
    np.savez(path, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    config = tiny(data=f"npz:{path}", train_size=None, epochs=1)
    record = next(anatomise(config, splits_of(config), FEW))
    assert record["data"] == "npz:little.npz"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"points": (0.5, 1.5)}, r"points must be fractions of training in \(0, 1\], got \(0.5, 1.5\)"),
        ({"batches": 0}, "batches must be at least 1, got 0"),
        ({"noise_draws": 1}, "noise_draws must be at least 2, got 1"),
        ({"noise_tuples": (10, 0)}, "noise_tuples must be at least 1, got 0"),
    ],
)
def test_impossible_settings_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        AnatomySettings(**settings)


@pytest.mark.bad_input
def test_trainings_that_cannot_be_measured_are_named():
    for config, said in ((tiny(compile=True), "compile must be False"), (tiny(batch_size=1), "must be at least 2")):
        with pytest.raises(ValueError, match=said):
            next(anatomise(config, splits_of(config), FEW))
