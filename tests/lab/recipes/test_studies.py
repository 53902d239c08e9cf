"""Studies: fair by construction, and every one of them can be trained as it is."""

from dataclasses import replace

import pytest

from multimix.lab.recipes import Study, digits
from multimix.lab.recipes.study import TRIAL_SEED, arms
from multimix.methods import ERM, Mixup


def small(**changes) -> Study:
    given = {"name": "small", "question": "Does it pay?", "arms": arms(digits(), {"erm": ERM(), "mixup": Mixup()})}
    return Study(**(given | changes))


def test_candidates_are_tried_with_a_seed_of_their_own_and_without_the_test_set():
    study = small(arms=arms(digits(), {"erm": (ERM(), ERM()), "mixup": (Mixup(0.2), Mixup(1.0))}))
    trials = study.trials()
    assert list(trials) == [("erm", 0), ("erm", 1), ("mixup", 0), ("mixup", 1)]
    assert {(config.seed, config.test) for config in trials.values()} == {(TRIAL_SEED, False)}
    assert [config.label for config in trials.values()] == ["erm-0", "erm-1", "mixup-0", "mixup-1"]
    assert study.chosen({"mixup": 1})["mixup"].method == Mixup(1.0)
    assert all(config.test for config in study.chosen({}).values())


def test_without_candidates_there_is_nothing_to_try():
    assert small().trials() == {}
    assert list(small().chosen({})) == ["erm", "mixup"]


def test_a_change_reaches_every_configuration():
    changed = small().changed(lambda config: replace(config, epochs=3))
    assert {config.epochs for found in changed.arms.values() for config in found} == {3}


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": {}}, "arms of study small must hold at least one arm, got none"),
        ({"against": "cutmix"}, "against must be one of erm, mixup, got 'cutmix'"),
        (
            {"arms": arms(digits(), {"erm": ERM(), "mixup": (Mixup(0.2), Mixup(1.0))})},
            "arms must have equally many candidates, at least 1, got {'erm': 1, 'mixup': 2}",
        ),
        ({"arms": {"erm": ()}}, "at least 1, got {'erm': 0}"),
    ],
)
def test_what_would_not_be_fair_is_refused(changes, said):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        small(**changes)
    assert said in str(caught.value)
