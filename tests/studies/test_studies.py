"""Studies of ours: each asks something, its arms differ, and all of them see the same data."""

from dataclasses import replace

import pytest

from multimix.lab._code import find_made
from multimix.lab.recipes import Study
from studies.listed import STUDIES, study_named
from studies.test_vectors import FOLDER


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_asks_something_and_its_arms_differ(name):
    study = study_named(name)
    assert study.name == name
    assert study.question
    assert all(config.label == label for label, found in study.arms.items() for config in found)
    settings = [repr(replace(config, label="")) for found in study.arms.values() for config in found]
    assert len(set(settings)) == len(settings)


@pytest.mark.parametrize("name", STUDIES)
def test_arms_of_a_study_share_their_data(name):
    configs = [config for found in study_named(name).arms.values() for config in found]
    shared = {(c.data, c.train_size, c.validation, c.split_seed, c.image_size, c.model, c.width) for c in configs}
    assert len(shared) == 1


def test_every_study_can_be_named_by_its_file(tmp_path, monkeypatch):
    """From anywhere: a file that imports its neighbour brings it along."""
    monkeypatch.chdir(tmp_path)
    assert len(STUDIES) == 21
    study, file = find_made(str(FOLDER / "further.py:fine_tune"), "study", Study)
    assert (study.name, file) == ("fine-tune", "further.py:fine_tune")
    assert set(file.code.sources) == {"further.py", "comparison.py"}
