import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris, make_blobs
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import multimix as mm
from multimix.integrations.sklearn import perceptron as tabular_network
from multimix.integrations.sklearn import MultiMixClassifier, MultiMixRegressor
from multimix.names import METHOD_NAMES


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([MultiMixClassifier((64,), epochs=15), MultiMixRegressor(epochs=15)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def blobs(n=90):
    return make_blobs(n, centers=3, n_features=5, random_state=0)


def test_learns_iris_and_diabetes():
    x, y = load_iris(return_X_y=True)
    assert cross_val_score(MultiMixClassifier(random_state=0, epochs=30), x, y, cv=3).mean() > 0.9
    x, y = load_diabetes(return_X_y=True)
    assert MultiMixRegressor(random_state=0, epochs=30).fit(x[:300], y[:300]).score(x[300:], y[300:]) > 0.3


def test_loss_falls():
    x, y = blobs()
    curve = MultiMixClassifier(random_state=0).fit(x, y).loss_curve_
    assert len(curve) == 50
    assert np.mean(curve[-5:]) < 0.7 * curve[0]


@pytest.mark.parametrize(
    "method",
    [
        mm.MultiMix(tuples=32),
        mm.DenseMultiMix(tuples=32),
        mm.Mixup(),
        mm.ManifoldMixup(),
        mm.SelfDistilled(mm.MultiMix(tuples=32)),
        mm.Until(mm.MultiMix(tuples=32), 0.5),
    ],
    ids=lambda method: method.name,
)
def test_equals_the_own_loop(method):
    x, y = blobs()
    fitted = MultiMixClassifier(
        (8,), method=method, random_state=0, epochs=3, batch_size=40, learning_rate=0.01, weight_decay=0.0
    ).fit(x, y)

    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    torch.manual_seed(seed)
    net = tabular_network(5, 3, (8,))
    rows = torch.from_numpy((x - x.mean(0)) / x.std(0)).float()
    labels = torch.from_numpy(y)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.0)
    step, curve = 0, []
    for _ in range(3):
        total = 0.0
        for batch in torch.randperm(90, generator=generator).split(40):
            if isinstance(method, nn.Module):
                method.at(step / 9)
            optimizer.param_groups[0]["lr"] = 0.01 * 0.5 * (1 + np.cos(np.pi * step / 9))
            losses = method(net, rows[batch], labels[batch], generator=generator)
            losses.total.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += losses.total.item() * len(batch)
            step += 1
        curve.append(total / 90)
    assert fitted.loss_curve_ == pytest.approx(curve, abs=1e-6)
    torch.testing.assert_close(fitted.network_.state_dict(), net.state_dict(), atol=1e-6, rtol=1e-5)


def test_same_seed_same_classifier_and_torchs_state_left_alone():
    x, y = blobs()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = MultiMixClassifier(random_state=3, epochs=3).fit(x, y).predict_proba(x)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert np.array_equal(MultiMixClassifier(random_state=3, epochs=3).fit(x, y).predict_proba(x), first)
    assert not np.array_equal(MultiMixClassifier(random_state=4, epochs=3).fit(x, y).predict_proba(x), first)


def test_method_given_is_left_as_it_was_and_serves_clones():
    x, y = blobs()
    method = mm.SelfDistilled(mm.MultiMix(tuples=32))
    estimator = MultiMixClassifier(method=method, epochs=2, random_state=0)
    first = estimator.fit(x, y).predict_proba(x)
    assert method.ema is None
    assert np.array_equal(clone(estimator).fit(x, y).predict_proba(x), first)


@pytest.mark.parametrize("name", [n for n in METHOD_NAMES if n in ("erm", "multimix-paper", "zeta-mixup", "mixup")])
def test_methods_by_name_in_a_search(name):
    x, y = blobs()
    search = GridSearchCV(
        make_pipeline(MinMaxScaler(), MultiMixClassifier((16,), epochs=15, learning_rate=0.01, random_state=0)),
        {"multimixclassifier__method": [name]},
        cv=2,
    ).fit(x, y)
    assert search.best_score_ > 0.8


def test_classes_of_strings_and_names_of_columns():
    x, y = blobs()
    names = np.array(["cat", "dog", "eel"])[y]
    fitted = MultiMixClassifier(epochs=10, random_state=0).fit(x, names)
    assert list(fitted.classes_) == ["cat", "dog", "eel"]
    assert set(fitted.predict(x)) <= {"cat", "dog", "eel"}
    assert fitted.n_features_in_ == 5
    np.testing.assert_allclose(fitted.predict_proba(x).sum(1), 1)


def test_constant_columns_and_outliers():
    x, y = blobs()
    x[:, 2] = 1e8
    fitted = MultiMixClassifier(epochs=10, random_state=0).fit(x, y)
    assert fitted.score(x, y) > 0.8
    far = x.copy()
    far[:, 0] = 1e300
    assert np.isfinite(fitted.predict_proba(far)).all()


def test_held_out_rows_stop_early_and_the_best_weights_stay():
    x, y = blobs()
    y = np.random.default_rng(0).permutation(y)  # nothing to learn: the held-out loss soon rises
    fitted = MultiMixClassifier(
        method=mm.ERM(), epochs=200, validation=0.3, patience=3, learning_rate=0.01, random_state=0
    ).fit(x, y)
    assert fitted.n_epochs_ < 100
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    held = torch.randperm(90, generator=torch.Generator().manual_seed(seed))[:27].sort().values.numpy()
    of_the_last = MultiMixClassifier(
        method=mm.ERM(), epochs=200, validation=0.3, patience=200, learning_rate=0.01, random_state=0
    ).fit(x, y)
    assert of_the_last.n_epochs_ == 200

    def held_out_loss(estimator):
        return -np.log(estimator.predict_proba(x[held])[np.arange(27), y[held]]).mean()

    assert held_out_loss(fitted) < np.log(3) * 1.2
    assert held_out_loss(of_the_last) <= held_out_loss(fitted) + 1e-6  # it looked on for longer and kept the best, too


def test_network_of_ones_own():
    class Net(nn.Module):
        def __init__(self, features, classes):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(features, 12), nn.Tanh(), nn.Dropout(0.1))
            self.out = nn.Linear(12, classes)

        def forward(self, rows):
            return self.out(self.body(rows))

    def make(features, classes):
        return mm.adapt(Net(features, classes), encoder="body", head="out")

    x, y = blobs()
    state = torch.get_rng_state()
    fitted = MultiMixClassifier(network=make, epochs=30, learning_rate=0.01, random_state=0).fit(x, y)
    assert torch.equal(torch.get_rng_state(), state)  # dropout included
    assert fitted.score(x, y) > 0.9
    assert type(fitted.network_.model) is Net


def test_regressor_of_several_targets_and_large_ones():
    x, _ = blobs(60)
    y = np.stack([1e6 * x[:, 0], x[:, 1] - 500], 1)
    fitted = MultiMixRegressor(random_state=0, epochs=60, method=mm.Mixup(), learning_rate=0.01).fit(x, y)
    assert fitted.predict(x).shape == (60, 2)
    assert fitted.score(x, y) > 0.8


def test_predicts_where_the_device_it_was_trained_on_is_missing():
    x, y = load_iris(return_X_y=True)
    model = MultiMixClassifier(hidden=(8,), epochs=2, random_state=0, device="cpu").fit(x, y)
    expected = model.predict_proba(x)
    assert np.array_equal(model.set_params(device="mps").predict_proba(x), expected)  # which has no float64


def test_pickles_and_prints(capsys):
    x, y = blobs()
    fitted = MultiMixClassifier(epochs=2, verbose=1, validation=0.2, random_state=0).fit(x, y)
    again = pickle.loads(pickle.dumps(fitted))  # noqa: S301
    assert np.array_equal(again.predict_proba(x), fitted.predict_proba(x))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert all("held out" in line for line in lines)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"hidden": 3}, TypeError, "hidden must be a tuple of layer widths, got 3"),
        ({"hidden": (0,)}, ValueError, "every width in hidden must be at least 1, got 0"),
        ({"method": "mixupp"}, ValueError, "unknown method 'mixupp'; did you mean"),
        ({"method": mm.MultiMix}, TypeError, "method must be a method"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"epochs": 1.5}, TypeError, "epochs must be an integer, got 1.5"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate must be finite and greater than 0, got nan"),
        ({"weight_decay": -1}, ValueError, "weight_decay must not be negative, got -1"),
        ({"validation": 1.0}, ValueError, r"validation must lie in \[0, 1\), got 1.0"),
        ({"validation": 0.001}, ValueError, "validation=0.001 of 90 samples leaves none on one side"),
        ({"device": "abacus"}, ValueError, "device must be 'auto' or a torch device such as 'cpu', got 'abacus'"),
        ({"network": lambda f, c: 1}, TypeError, r"network must return a torch\.nn\.Module, got int"),
        ({"method": mm.CutMix()}, ValueError, "inputs must be"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_settings_are_named(settings, error, message):
    with pytest.raises(error, match=message):
        MultiMixClassifier(**settings).fit(*blobs())
