import pickle

import numpy as np
import pytest
import sklearn
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import multimix as mm
from integrations.rows import blobs, several
from multimix.integrations._tables import perceptron
from multimix.integrations.sklearn import MultiMixClassifier, MultiMixRegressor

REPEATED = "mini-batches are random: a row that counts twice is mixed otherwise than two rows"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [MultiMixClassifier((64,), epochs=3, learning_rate=0.1), MultiMixRegressor((32,), epochs=5, learning_rate=0.05)],
    expected_failed_checks=lambda estimator: {"check_sample_weight_equivalence_on_dense_data": REPEATED},
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


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


@pytest.mark.parametrize("weighted", [False, True])
def test_held_out_rows_stop_early_and_the_best_weights_stay(weighted, capsys):
    x, y = blobs()
    y = np.random.default_rng(0).permutation(y)  # nothing to learn: the held-out loss soon rises
    weights = np.arange(1.0, 91.0) if weighted else None
    settings = {"method": mm.ERM(), "validation": 0.3, "patience": 3, "learning_rate": 0.01, "verbose": 1}
    fitted = MultiMixClassifier(epochs=200, random_state=0, **settings).fit(x, y, weights)
    seen = [float(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines()]
    assert fitted.n_epochs_ == len(fitted.loss_curve_) == len(seen) == np.argmin(seen) + 1 + 3 < 100
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    order = torch.randperm(90, generator=torch.Generator().manual_seed(seed)).numpy()
    held = [row for k in range(3) for row in [row for row in order if y[row] == k][:9]]
    losses = -np.log(fitted.predict_proba(x[held])[np.arange(27), y[held]])
    assert np.average(losses, weights=None if weights is None else weights[held]) == pytest.approx(min(seen), abs=1e-4)


CLASSES = {0: 3.0, 2: 0.5}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["classes", "balanced", CLASSES, "labels", "values"], ids=str)
def test_the_loss_is_torchs_with_its_weights(kind, weighted):
    x, y = blobs()
    x, y = x[:80], y[:80]
    weights = np.random.default_rng(0).integers(1, 5, 80) if weighted else np.ones(80)
    settings = {"method": mm.ERM(), "epochs": 1, "batch_size": 80, "random_state": 0}
    estimator = MultiMixClassifier((8,), **settings)
    if kind == "values":
        estimator = MultiMixRegressor((8,), **settings)
        y = np.stack([x[:, 0] ** 2, x[:, 1]], 1)
        mean = np.average(y, 0, weights)
        y = (y - mean) / np.sqrt(np.average((y - mean) ** 2, 0, weights))
    elif kind == "labels":
        y = several(y)
    elif kind != "classes":
        estimator.set_params(class_weight=kind)
    found = estimator.fit(x, y, weights if weighted else None).loss_curve_[0]

    mean = np.average(x, 0, weights)
    rows = torch.from_numpy((x - mean) / np.sqrt(np.average((x - mean) ** 2, 0, weights))).float()
    torch.manual_seed(int(np.random.RandomState(0).randint(2**31 - 1)))
    outputs = perceptron(5, 2 if y.ndim == 2 else 3, (8,))(rows).detach().double()
    amounts, targets = torch.from_numpy(weights).double(), torch.from_numpy(y)
    if kind == "values":
        losses = F.mse_loss(outputs, targets, reduction="none").mean(1)
    elif kind == "labels":
        losses = F.binary_cross_entropy_with_logits(outputs, targets.double(), reduction="none").mean(1)
    else:
        losses = F.cross_entropy(outputs, targets, reduction="none")
        by_class = [CLASSES.get(k, 1.0) for k in range(3)] if kind == CLASSES else np.ones(3)
        if kind == "balanced":
            by_class = compute_class_weight("balanced", classes=np.arange(3), y=np.repeat(y, weights.astype(int)))
        amounts = amounts * torch.tensor(by_class)[targets]
    assert found == pytest.approx(float((amounts * losses).sum() / amounts.sum()), abs=1e-6)


@pytest.mark.parametrize("kind", ["classes", "labels", "values"])
def test_weights_are_rows_repeated_where_nothing_is_random(kind):
    x, y = blobs(40)
    y = {"classes": y, "labels": several(y), "values": x[:, 0] * x[:, 1]}[kind]
    make = MultiMixRegressor if kind == "values" else MultiMixClassifier
    estimator = make((8,), method=mm.ERM(), epochs=20, batch_size=1000, learning_rate=0.01, random_state=0)
    weights = np.random.default_rng(0).integers(0, 4, 40)
    weighted = clone(estimator).fit(x, y, 7.0 * weights)
    repeated = clone(estimator).fit(np.repeat(x, weights, 0), np.repeat(y, weights, 0))
    assert weighted.loss_curve_ == pytest.approx(repeated.loss_curve_, rel=1e-4)
    assert weighted.score(x, y) == pytest.approx(repeated.score(x, y), abs=1e-3)


@pytest.mark.parametrize("settings", [{}, {"class_weight": "balanced"}, {"class_weight": {1: 2, 0: 2, 2: 2}}], ids=str)
def test_equal_weights_are_none_and_weight_0_is_not_there(settings):
    x, y = blobs()
    estimator = MultiMixClassifier((8,), epochs=3, validation=0.2, random_state=0)
    expected = estimator.fit(x, y).predict_proba(x)
    weights = np.r_[np.full(90, 3.5), 0, 0]
    more = np.r_[x, [[1e300] * 5, [-5.0] * 5]], np.r_[y, 0, 7]
    fitted = estimator.set_params(**settings).fit(*more, weights)
    assert np.array_equal(fitted.predict_proba(x), expected)
    assert fitted.classes_.tolist() == [0, 1, 2]


def test_sample_weights_are_routed():
    x, y = blobs(60)
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = MultiMixClassifier((8,), epochs=2, random_state=0).set_fit_request(sample_weight=True)
        estimator.set_score_request(sample_weight=True)
        search = GridSearchCV(estimator, {"epochs": [2]}, cv=2).fit(x, y, sample_weight=np.arange(60.0))
    expected = clone(estimator).fit(x, y, np.arange(60.0)).predict_proba(x)
    assert np.array_equal(search.predict_proba(x), expected)


@pytest.mark.parametrize(
    ("form", "dtype"), [(csr_matrix, int), (np.ndarray.tolist, int), (lambda y: y.astype(bool), bool)]
)
def test_labels_of_which_several_hold_in_other_forms(form, dtype):
    x, y = blobs()
    y = several(y)
    estimator = MultiMixClassifier((16,), epochs=2, random_state=0)
    expected = estimator.fit(x, y).predict_proba(x)
    fitted = estimator.fit(x, form(y))
    assert np.array_equal(fitted.predict_proba(x), expected)
    assert fitted.predict(x).dtype == dtype
    assert fitted.score(x, form(y)) == fitted.score(x, y)


def test_labels_of_which_several_hold():
    x, y = blobs()
    y = several(y)
    fitted = MultiMixClassifier((16,), epochs=15, learning_rate=0.02, validation=0.1, random_state=0).fit(x, y)
    probabilities = fitted.predict_proba(x)
    rows = torch.from_numpy(fitted.scaler_.transform(x)).float()
    assert np.allclose(probabilities, fitted.network_(rows).sigmoid().detach().numpy(), atol=1e-5)
    assert np.array_equal(fitted.predict(x), probabilities > 0.5)
    assert fitted.predict(x).dtype == int
    assert fitted.score(x, y) > 0.9
    assert cross_val_score(fitted, x, y, cv=2, scoring="roc_auc").min() > 0.9  # MLPClassifier has NaN for two labels
    assert fitted.classes_.tolist() == [[0, 1], [0, 1]]
    apart = cross_val_predict(fitted, x, y, cv=KFold(2), method="predict_proba")
    assert np.array_equal(apart[45:], clone(fitted).fit(x[:45], y[:45]).predict_proba(x[45:]))


def test_settings_of_the_method_are_parameters():
    x, y = blobs()
    own = mm.SelfDistilled(mm.MultiMix(tuples=32))
    estimator = MultiMixClassifier((8,), method=own, epochs=2, random_state=0)
    assert estimator.get_params()["method__method__tuples"] == 32
    assert "method__gamma" not in estimator.get_params(deep=False)
    estimator.set_params(method__method__tuples=64, method__gamma=0.7)
    assert (estimator.method.gamma, estimator.method.method, own.method.tuples) == (0.7, mm.MultiMix(64), 32)
    search = GridSearchCV(clone(estimator), {"method__method__effective": [2, 3]}, cv=2).fit(x, y)
    assert search.best_estimator_.method.method.tuples == 64
    for given in (None, "multimix"):
        changed = MultiMixClassifier((8,), method=given, epochs=2, random_state=0).set_params(method__effective=3)
        expected = MultiMixClassifier((8,), method=mm.MultiMix(effective=3), epochs=2, random_state=0)
        assert np.array_equal(changed.fit(x, y).predict_proba(x), expected.fit(x, y).predict_proba(x))


@pytest.mark.parametrize("method", [mm.SelfDistilled(mm.MultiMix(32)), mm.Alternate((mm.AdaMixUp(), mm.Mixup()))])
def test_a_second_fit_begins_anew_and_so_does_a_method_that_has_learned(method):
    x, y = blobs()
    estimator = MultiMixClassifier((8,), method=method, epochs=2, random_state=0)
    expected = estimator.fit(x, y).predict_proba(x)
    assert getattr(method, "ema", None) is None
    for again in (estimator, clone(estimator)):
        assert np.array_equal(again.fit(x, y).predict_proba(x), expected)
    learned = pickle.loads(pickle.dumps(method))  # noqa: S301
    for part in mm.protocols.stateful(learned):
        part.prepare(perceptron(3, 2, (4,)))
    estimator.set_params(method=pickle.loads(pickle.dumps(learned)))  # noqa: S301
    assert np.array_equal(estimator.fit(x, y).predict_proba(x), expected)
    state = np.random.RandomState(0)
    first, second = (MultiMixClassifier((8,), epochs=2, random_state=state).fit(x, y) for _ in range(2))
    assert first.loss_curve_ != second.loss_curve_  # the second goes on in the stream, as elsewhere in scikit-learn


@pytest.mark.bad_input
def test_a_fit_that_fails_leaves_the_estimator_as_it_was():
    x, y = blobs()
    estimator = MultiMixClassifier((8,), epochs=2, method=mm.CutMix())
    before = dict(vars(estimator))
    with pytest.raises(ValueError, match="images"):
        estimator.fit(x, y)
    assert vars(estimator) == before
    estimator.set_params(method=None).fit(x, y)
    before = dict(vars(estimator))
    with pytest.raises(ValueError, match="1 class"):
        estimator.fit(x[:, :2], y * 0)
    assert vars(estimator) == before


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
