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
from multimix.integrations.sklearn import MultiMixClassifier, MultiMixRegressor, perceptron


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


@pytest.mark.parametrize("method", ["multimix", "mixup", "distilled", "until", "manifold"])
def test_equals_the_own_loop(toy, method):
    x, y = blobs()
    method = {**toy.methods, "manifold": mm.ManifoldMixup}[method]()
    settings = {"epochs": 3, "batch_size": 40, "learning_rate": 0.01, "weight_decay": 0.1}
    fitted = MultiMixClassifier((8,), method=method, random_state=0, **settings).fit(x, y)

    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    torch.manual_seed(seed)
    net = perceptron(5, 3, (8,))
    assert net.stages == range(2)
    rows = torch.from_numpy((x - x.mean(0)) / x.std(0)).float()
    labels = torch.from_numpy(y)
    generator = torch.Generator().manual_seed(seed)
    groups = [{"params": [p for p in net.parameters() if (p.ndim > 1) == decays]} for decays in (True, False)]
    groups[1]["weight_decay"] = 0.0
    optimizer = torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1)
    step, curve = 0, []
    for _ in range(3):
        total = 0.0
        for batch in torch.randperm(90, generator=generator).split(40):
            if isinstance(method, nn.Module):
                method.at(step / 9)
            for group in groups:
                group["lr"] = 0.01 * 0.5 * (1 + np.cos(np.pi * step / 9))
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


def test_methods_by_name_in_a_search():
    x, y = blobs()
    estimator = MultiMixClassifier([16], epochs=15, learning_rate=0.01, random_state=0)
    named = {"multimixclassifier__method": ["erm", "multimix-paper", "mixup"]}
    search = GridSearchCV(make_pipeline(MinMaxScaler(), estimator), named, cv=2).fit(x, y)
    assert min(search.cv_results_["mean_test_score"]) > 0.8
    assert search.best_estimator_[-1].hidden == [16]


def test_constant_columns_and_outliers():
    x, y = blobs()
    x[:, 2] = 1e8
    fitted = MultiMixClassifier(epochs=10, random_state=0).fit(x, y)
    assert fitted.score(x, y) > 0.8
    x[:, 0] = 1e300
    assert np.isfinite(fitted.predict_proba(x)).all()


def test_held_out_rows_stop_early_and_the_best_weights_stay(capsys):
    x, y = blobs()
    y = np.random.default_rng(0).permutation(y)  # nothing to learn: the held-out loss soon rises
    settings = {"method": mm.ERM(), "validation": 0.3, "patience": 3, "learning_rate": 0.01, "verbose": 1}
    fitted = MultiMixClassifier(epochs=200, random_state=0, **settings).fit(x, y)
    seen = [float(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines()]
    assert fitted.n_epochs_ == len(fitted.loss_curve_) == len(seen) == np.argmin(seen) + 1 + 3 < 100
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    held = torch.randperm(90, generator=torch.Generator().manual_seed(seed))[:27].numpy()
    loss = -np.log(fitted.predict_proba(x[held])[np.arange(27), y[held]]).mean()
    assert loss == pytest.approx(min(seen), abs=1e-4)


def test_network_of_ones_own():
    def make(features, classes):
        body = nn.Sequential(nn.Linear(features, 12), nn.Tanh(), nn.Dropout(0.1))
        return mm.adapt(nn.Sequential(body, nn.Linear(12, classes)), encoder="0", head="1")

    x, y = blobs()
    state = torch.get_rng_state()
    fitted = MultiMixClassifier(network=make, epochs=30, learning_rate=0.01, random_state=0).fit(x, y)
    assert torch.equal(torch.get_rng_state(), state)  # dropout included
    assert fitted.score(x, y) > 0.9
    assert isinstance(fitted.network_.model[0][2], nn.Dropout)


def test_regressor_of_several_targets_and_large_ones():
    x, _ = blobs(60)
    y = np.stack([1e6 * x[:, 0], x[:, 1] - 500], 1)
    fitted = MultiMixRegressor(random_state=0, epochs=60, method=mm.Mixup(), learning_rate=0.01).fit(x, y)
    assert fitted.predict(x).shape == (60, 2)
    assert fitted.score(x, y) > 0.8


def test_pickles_prints_and_predicts_on_the_cpu(capsys):
    x, y = blobs()
    fitted = MultiMixClassifier(epochs=2, verbose=1, random_state=0, device="cpu").fit(x, y)
    again = pickle.loads(pickle.dumps(fitted))  # noqa: S301
    again.set_params(device="mps")  # which has no float64
    assert np.array_equal(again.predict_proba(x), fitted.predict_proba(x))
    losses = fitted.loss_curve_
    assert capsys.readouterr().out == f"epoch 1 of 2: loss {losses[0]:.4f}\nepoch 2 of 2: loss {losses[1]:.4f}\n"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"hidden": 3}, TypeError, "hidden must be a tuple of integers, got 3"),
        ({"hidden": (0,)}, ValueError, "hidden must hold values that each must be at least 1"),
        ({"method": "mixupp"}, ValueError, "unknown method 'mixupp'; did you mean"),
        ({"method": mm.MultiMix}, TypeError, "method must be a method"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"batch_size": 1.5}, TypeError, "batch_size must be an integer, got 1.5"),
        ({"patience": 0}, ValueError, "patience must be at least 1, got 0"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate must be above 0 and finite, got nan"),
        ({"weight_decay": -1}, ValueError, "weight_decay must be at least 0, got -1"),
        ({"validation": 1.0}, ValueError, r"validation must lie in \[0, 1\), got 1.0"),
        ({"validation": 0.001}, ValueError, "validation=0.001 of 90 samples leaves none on one side"),
        ({"device": "abacus"}, ValueError, "device must be 'auto' or a torch device such as 'cpu', got 'abacus'"),
        ({"device": "cuda:1"}, ValueError, "device 'cuda:1' is not there: torch sees no CUDA device"),
        ({"network": lambda f, c: 1}, TypeError, r"network must return a torch\.nn\.Module, got int"),
        ({"method": mm.CutMix()}, ValueError, "inputs must be"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_settings_are_named(settings, error, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(error, match=message):
        MultiMixClassifier(**settings).fit(*blobs())
