"""The suite of out-of-distribution detection: what it yields and keeps, what it warns of and refuses."""

import json
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

import toy
from evaluate import made
from evaluate.made import STD, batches
from evaluate.test_ood_scores import odin
from listening import Kept
from multimix.lab.evaluate import Source
from multimix.lab.evaluate.ood import METRICS, OOD, SCORES, OODSettings
from multimix.lab.evaluate.ood.scores import KNN, Mahalanobis, energy, max_logit, msp
from multimix.lab.evaluate.ood.suite import fingerprints
from multimix.lab.evaluate.passes import NonFiniteError, embed
from multimix.protocols import Monitor

BUILT_IN = ("gaussian-noise", "uniform-noise", "digits")


def source(name: str = "npz:own") -> Source:
    return made.source(name=name, root="nowhere")


def settings(**given: Any) -> OODSettings:
    return OODSettings(**({"ood_examples": 25, "knn_neighbours": 5} | given))


@pytest.fixture(scope="module")
def measured():
    kept = Kept()
    return dict(OOD.of(source(), settings())(toy.images(), kept)), kept


def test_every_metric_of_every_score_on_every_set_and_the_means(measured):
    metrics, kept = measured
    assert kept.passes == ["training images", "test", *BUILT_IN]
    names = [f"{score}/{metric}" for score in SCORES for metric in METRICS]
    assert list(metrics) == [f"{which}/{name}" for which in (*BUILT_IN, "mean") for name in names]
    for name in names:
        assert metrics[f"mean/{name}"] == pytest.approx(sum(metrics[f"{which}/{name}"] for which in BUILT_IN) / 3)


def test_figures_are_small_and_ready_for_json(measured):
    metrics, kept = measured
    assert list(kept.figures) == [f"ood/{name}" for name in BUILT_IN]
    assert len(json.dumps(kept.figures, allow_nan=False)) < 100_000 * len(BUILT_IN)
    for name in BUILT_IN:
        scores = kept.figures[f"ood/{name}"]["scores"]
        assert tuple(scores) == SCORES
        for score, data in scores.items():
            assert list(data) == ["edges", "in", "out", "fpr", "tpr"]
            area = float(torch.trapezoid(torch.tensor(data["tpr"]), torch.tensor(data["fpr"])))
            assert area == pytest.approx(metrics[f"{name}/{score}/auroc"], abs=1e-4)


def test_the_numbers_are_those_of_the_scores_and_of_scikit_learn():
    suite, network = OOD.of(source(), settings(sets=("gaussian-noise",))), toy.images()
    found = dict(suite(network))
    train, labels = embed(network, suite.train)
    (test, _), (out, _) = (embed(network, served) for served in (suite.test, suite.sets["gaussian-noise"]))
    seen, known = torch.cat([test, out]), np.r_[np.ones(40), np.zeros(25)]
    logits = network.classify(seen).detach()
    scores = {"mahalanobis": Mahalanobis(train, labels)(seen), "energy": energy(logits), "msp": msp(logits)}
    for name, values in scores.items():
        assert found[f"gaussian-noise/{name}/auroc"] == pytest.approx(roc_auc_score(known, values), abs=1e-9)
        wanted = average_precision_score(1 - known, -values)
        assert found[f"gaussian-noise/{name}/aupr_out"] == pytest.approx(wanted, abs=1e-9)


def test_only_what_is_wanted_is_measured():
    kept = Kept()
    suite = OOD.of(source(), settings(sets=("uniform-noise",), scores=("energy", "msp"), examples=10))
    found = dict(suite(toy.images(), kept))
    assert kept.passes == ["test", "uniform-noise"]
    assert [sum(len(labels) for _, labels in b) for b in (suite.test, suite.sets["uniform-noise"])] == [10, 25]
    assert [name for name in found if name.endswith("auroc")][:2] == [
        f"uniform-noise/{s}/auroc" for s in ("energy", "msp")
    ]
    fewer = OOD.of(source(), settings(scores=("knn",), train_examples=20))
    assert sum(len(labels) for _, labels in fewer.train) == 20


def test_a_seed_changes_noise_and_not_the_test_images():
    metrics = [dict(OOD.of(source(), settings(seed=seed, scores=("energy",)))(toy.images())) for seed in (0, 0, 1)]
    assert metrics[0] == metrics[1] != metrics[2]


@pytest.mark.parametrize(("part", "where"), [("test", "test set"), ("train", "training images")])
def test_a_set_that_shares_images_with_the_run_is_named(tmp_path, part, where):
    run = source()
    mixed = torch.cat([getattr(run.splits, part).images[3:6], made.images(7, seed=9).images])
    np.savez(tmp_path / "leaky.npz", images=mixed.permute(0, 2, 3, 1).numpy())
    suite = OOD.of(run, settings(sets=(f"npz:{tmp_path / 'leaky.npz'}",), scores=("msp", "knn")))
    with pytest.warns(UserWarning, match=f"ood: 3 of the 10 images of leaky are in the {where} too"):
        dict(suite(toy.images()))


def test_the_run_s_own_data_set_is_named_at_once():
    with pytest.warns(UserWarning, match="ood: resize:digits is the data set of the run itself"):
        OOD.of(source("digits"), settings(sets=("resize:digits",)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(OOD.of(source("digits"), settings()).sets) == ["gaussian-noise", "uniform-noise"]


@pytest.mark.bad_input
def test_settings_that_do_not_fit_the_run_are_refused_before_it_is_measured():
    for given, says in (
        ({"knn_neighbours": 61}, "knn_neighbours=61 must be from 1 to 60, as there are only 60 training images"),
        ({"knn_neighbours": 21, "train_examples": 20}, "knn_neighbours=21 must be from 1 to 20"),
        ({"train_examples": 3, "knn_neighbours": 1}, "train_examples=3 does not fit"),
        ({"sets": ("digit",)}, "unknown set 'digit'; did you mean digits"),
    ):
        with pytest.raises(ValueError, match=says):
            OOD.of(source(), settings(**given))


def suite_of(inputs, **given):
    """A suite that is asked for scores only; its set outside is the one inside."""
    labels = torch.arange(len(inputs)) % 5
    train = batches(*toy.batch(40, 3, 8, 8, seed=1)) if inputs.ndim == 4 else None
    served = batches(inputs, labels, given.pop("size", 4))
    return OOD(train, served, {"same": served}, STD, settings(**given))


def test_one_pass_gives_what_the_scores_say_one_by_one():
    network = toy.images().eval()
    inputs, _ = toy.batch(9, 3, 8, 8)
    chosen = {"energy_temperature": 1.5, "odin_temperature": 100.0, "odin_epsilon": 0.01}
    suite = suite_of(inputs, **chosen, mahalanobis_shrinkage=0.01, size=9)
    fitted, _ = suite._fitted(network, Monitor())
    network.seen.clear()
    found = suite._seen(network, suite.test, fitted)[0]
    assert len(network.seen) == 2  # an image passes no more often than needed
    train, labels = embed(network, batches(*toy.batch(40, 3, 8, 8, seed=1)))
    with torch.no_grad():
        pooled, logits = network.pool(network.embed(inputs)), network(inputs)
    step = 0.01 / torch.tensor(STD).view(3, 1, 1)
    wanted = {
        "msp": msp(logits),
        "max_logit": max_logit(logits),
        "energy": energy(logits, 1.5),
        "odin": odin(network, inputs, step=step, temperature=100.0),
        "knn": KNN(train, 5)(pooled),
        "mahalanobis": Mahalanobis(train, labels, shrinkage=0.01)(pooled),
    }
    assert tuple(found) == SCORES
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values, rtol=1e-5, atol=1e-6)
    still = suite_of(inputs, odin_epsilon=0.0, odin_temperature=100.0, scores=("odin",))
    torch.testing.assert_close(still._seen(network, still.test, {})[0]["odin"], msp(logits, 100.0))


@pytest.mark.bad_input
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_gives_no_numbers_is_refused(value):
    inputs, _ = toy.batch(5, 4)
    inputs[3, 1] = value
    with pytest.raises(NonFiniteError, match="the network embeds as NaN or infinity"):
        dict(suite_of(inputs, scores=("msp",))(toy.identity(4)))


def test_fingerprints_know_equal_images():
    images, _ = toy.batch(50, 3, 8, 8)
    prints = fingerprints(images)
    assert len(prints.unique()) == 50
    assert torch.equal(fingerprints(images[[7, 3]].contiguous(memory_format=torch.channels_last)), prints[[7, 3]])
    near = images.clone()
    near[0, 2, 7, 7] = torch.nextafter(near[0, 2, 7, 7], torch.tensor(9.0))
    assert (fingerprints(near) == prints).tolist() == [False] + [True] * 49
    binary = (images > 0).float()
    assert len(fingerprints(binary).unique()) == 50
