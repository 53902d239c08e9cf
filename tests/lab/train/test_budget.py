"""What a run leaves out to be cheaper: looks at the validation split, the test set; and channels last."""

from dataclasses import replace

import pytest
import torch

from multimix.lab.train import Engine, load_network, train
from train.tiny import events, in_double, splits_of, tiny, train_all


@pytest.mark.parametrize(("every", "seen"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])])
def test_validation_is_looked_at_every_so_often_and_in_the_end(tmp_path, every, seen):
    train(tiny(epochs=5, validate_every=every), tmp_path / "run", quiet=True)
    found = events(tmp_path / "run", "epoch")
    assert [record["epoch"] for record in found if "validation_accuracy" in record] == seen
    assert len(found) == 5


class Guarded:
    """A test set that nobody may look at."""

    def __getattr__(self, name: str):
        raise AssertionError(f"the test set was asked for its {name}")


def test_a_trial_leaves_the_test_set_alone(tmp_path):
    config = tiny(test=False)
    splits = splits_of(config)

    guarded = replace(splits, test=Guarded())
    train(config, tmp_path / "run", quiet=True, splits=guarded)
    assert events(tmp_path / "run", "test") == []
    assert events(tmp_path / "run")[-1]["event"] == "end"
    assert load_network(tmp_path / "run")


"""Relative error of a step: 18 layers, each of which rounds by 6e-8, enlarged some ten times by their normalisation."""


def engines(splits) -> tuple[Engine, Engine]:
    """One of either layout."""
    plain, last = (Engine(tiny(width=8, channels_last=value), splits) for value in (False, True))
    filters = dict(last.network.named_parameters())["group2.0.conv2.weight"]
    assert filters.is_contiguous(memory_format=torch.channels_last)
    return plain, last


def test_channels_last_changes_the_layout_and_nothing_else():
    splits = splits_of(tiny())
    with in_double():
        plain, last = engines(splits)
    assert train_all(last) == pytest.approx(train_all(plain), rel=1e-10)


@pytest.mark.bad_input
def test_channels_last_is_refused_where_torch_would_write_outside_its_memory():
    with pytest.raises(ValueError, match=r"needs at least 8 channels .* got 2 into group2\.0\.shortcut"):
        Engine(tiny(channels_last=True), splits_of(tiny()))
