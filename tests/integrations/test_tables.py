import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from multimix.integrations import MultiMixClassifier
from multimix.integrations._tables import by_class, by_label


@pytest.mark.parametrize(("counts", "share"), [((20, 2), 0.3), ((50, 30, 20), 0.25), ((7, 5, 1), 0.5), ((2, 2), 0.9)])
def test_no_class_is_lost_from_training_and_each_is_held_out_by_its_share(counts, share):
    classes = np.repeat(np.arange(len(counts)), counts)
    for seed in range(60):
        held = by_class(np.random.default_rng(seed).permutation(len(classes)), share, classes)
        assert len(set(held)) == len(held)
        found = np.bincount(classes[held], minlength=len(counts))
        assert (found < counts).all()
        assert all(k == 1 or abs(min(share * k, k - 1) - n) < 1 for k, n in zip(counts, found, strict=True))
    if min(counts) * share > 0.5 and share < 0.5:
        theirs = train_test_split(classes, test_size=share, stratify=classes, random_state=0)[1]
        assert np.array_equal(found, np.bincount(theirs))


def test_every_label_is_there_and_missing_in_training():
    labels = np.zeros((20, 3), int)
    labels[0, 0] = labels[1:, 1] = labels[:10, 2] = 1  # one row has the first label, one lacks the second
    for seed in range(20):
        held = by_label(np.random.default_rng(seed).permutation(20), 0.5, labels)
        kept = np.delete(labels, held, 0)
        assert len(kept) == 10
        assert (kept.any(0) & ~kept.all(0)).all()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("method__tupels", r"Invalid parameter 'tupels' for estimator MultiMix\(.*Valid parameters are: \['tuples', "),
        ("method__tuples__x", "Invalid parameter 'x' for estimator 1000"),
        ("methods__tuples", "Invalid parameter 'methods' for estimator MultiMixClassifier"),
    ],
)
def test_settings_that_a_method_does_not_have_are_named(name, message):
    with pytest.raises(ValueError, match=message):
        MultiMixClassifier().set_params(**{name: 3})
