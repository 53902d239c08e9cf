"""Every score against a loop in NumPy written from its equation, and against pytorch-ood's detector."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

import toy
from multimix.lab.evaluate.ood import KNN, Mahalanobis, energy, max_logit, msp, odin
from multimix.lab.evaluate.ood import scores as module

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pytorch_ood import detector


def embeddings(n: int, d: int = 6, *, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated clouds around a mean for each class, each class with an example."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    spread = torch.randn(d, d, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    means = 3 * torch.randn(classes, d, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ spread + means[labels], labels


def test_scores_of_logits_are_what_loops_and_pytorch_ood_find():
    logits, _ = toy.batch(20, 7)
    logits *= 4
    for temperature in (1.0, 2.5):
        exponentials = np.exp(logits.double().numpy() / temperature)
        confidence = [max(row) / sum(row) for row in exponentials]
        assert msp(logits, temperature).tolist() == pytest.approx(confidence, rel=1e-13)
        wanted = [temperature * math.log(sum(row)) for row in exponentials]
        assert energy(logits, temperature).tolist() == pytest.approx(wanted, rel=1e-13)
        theirs = detector.MaxSoftmax.score(logits.double(), temperature)
        torch.testing.assert_close(msp(logits, temperature), -theirs, rtol=1e-13, atol=0)
        theirs = detector.EnergyBased.score(logits.double(), temperature)
        torch.testing.assert_close(energy(logits, temperature), -theirs, rtol=1e-13, atol=0)
    assert max_logit(logits).tolist() == [max(row) for row in logits.tolist()]
    assert torch.equal(max_logit(logits), -detector.MaxLogit.score(logits).double())


def test_confident_predictions_stay_apart():
    """In float32 both probabilities are 1."""
    logits = torch.tensor([[20.0, 0.0], [25.0, 0.0]])
    assert (logits.softmax(1).amax(1) == 1).all()
    assert msp(logits)[0] < msp(logits)[1] < 1


def test_large_logits_have_a_finite_energy():
    assert energy(torch.tensor([[2e4, 2e4], [-2e4, -2e4]])).tolist() == pytest.approx(
        [2e4 + math.log(2), -2e4 + math.log(2)]
    )


@pytest.mark.parametrize(("temperature", "step"), [(1000.0, 0.0014), (2.0, 0.3), (1000.0, 0.0)])
def test_odin_of_a_linear_network_is_what_a_loop_finds(temperature, step):
    """Equations (1) and (2): there the gradient of log S_y(x; T) is (W_y - sum_c S_c W_c) / T."""
    network = toy.identity(5).double()
    torch.nn.init.normal_(network.classifier.weight)
    weight, bias = (value.detach().numpy() for value in (network.classifier.weight, network.classifier.bias))
    inputs, _ = toy.batch(9, 5, dtype=torch.float64)
    wanted = []
    for x in inputs.numpy():
        shares = softmax((weight @ x + bias) / temperature)
        gradient = (weight[shares.argmax()] - shares @ weight) / temperature
        moved = x - step * np.sign(-gradient)
        wanted.append(softmax((weight @ moved + bias) / temperature).max())
    found = odin(network, inputs, step=step, temperature=temperature)
    assert found.tolist() == pytest.approx(wanted, rel=1e-13)


def softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values)
    return exponentials / exponentials.sum()


def test_odin_is_pytorch_oods_with_the_step_in_pixels(device):
    network = toy.images().double().eval().to(device)
    inputs, _ = toy.batch(8, 3, 8, 8, dtype=torch.float64, device=device)
    std = [0.2, 0.3, 0.25]
    step = 0.01 / torch.tensor(std, dtype=torch.float64, device=device).view(3, 1, 1)
    theirs = detector.ODIN(network, eps=0.01, temperature=1000.0, norm_std=std).predict(inputs)
    found = odin(network, inputs, step=step)
    torch.testing.assert_close(found, -theirs, rtol=1e-14, atol=0)
    assert not torch.allclose(found, odin(network, inputs, step=0.0), rtol=1e-9)


def test_odin_makes_predictions_surer_and_leaves_no_gradient():
    network = toy.images().eval()
    inputs, _ = toy.batch(8, 3, 8, 8)
    with torch.no_grad():  # as a caller might have it
        assert (odin(network, inputs, step=0.01) > odin(network, inputs, step=0.0)).all()
    assert not inputs.requires_grad
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("neighbours", [1, 3, 20])
@pytest.mark.parametrize("chunk", [1, 7, 20, 100])
def test_knn_is_what_a_loop_and_pytorch_ood_find(monkeypatch, neighbours, chunk, device):
    monkeypatch.setattr(module, "CHUNK", chunk)
    (train, labels), (queries, _) = embeddings(20), embeddings(11, seed=1)
    train, queries = train.float().to(device), queries.float().to(device)
    found = KNN.fit(train, neighbours)(queries).cpu()
    unit = [v / np.linalg.norm(v) for v in train.cpu().double().numpy()]
    wanted = []
    for q in queries.cpu().double().numpy():
        distances = sorted(np.linalg.norm(q / np.linalg.norm(q) - v) for v in unit)
        wanted.append(-distances[neighbours - 1])
    assert found.tolist() == pytest.approx(wanted, rel=1e-12)
    theirs = detector.KNN(None, k=neighbours).fit_features(train.cpu(), labels).predict_features(queries.cpu())
    torch.testing.assert_close(found, -theirs, rtol=1e-5, atol=0)


def test_the_nearest_neighbour_of_a_training_embedding_is_itself():
    train, _ = embeddings(20)
    assert KNN.fit(train, 1)(3 * train).abs().max() < 1e-7


def test_an_embedding_of_length_zero_is_at_distance_one():
    train, _ = embeddings(5)
    assert KNN.fit(train, 2)(torch.zeros(1, 6)).tolist() == [-1.0]


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_mahalanobis_is_what_a_loop_finds(shrinkage, device):
    (train, labels), (queries, _) = embeddings(60), embeddings(11, seed=1)
    found = Mahalanobis.fit(train.to(device), labels.to(device), shrinkage=shrinkage)(queries.to(device))
    z, y = train.numpy(), labels.numpy()
    means = np.stack([z[y == c].mean(0) for c in range(3)])
    covariance = sum(np.outer(a - means[c], a - means[c]) for a, c in zip(z, y, strict=True)) / len(z)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 6 * np.eye(6)
    inverse = np.linalg.inv(covariance)
    wanted = [-min((q - m) @ inverse @ (q - m) for m in means) for q in queries.numpy()]
    assert found.tolist() == pytest.approx(wanted, rel=1e-10)


def test_mahalanobis_is_pytorch_oods():
    """Its score is half of the distance, and its covariance the sum over the examples, not the mean."""
    (train, labels), (queries, _) = embeddings(60), embeddings(11, seed=1)
    theirs = detector.Mahalanobis(None).fit_features(train.float(), labels).predict_features(queries.float())
    torch.testing.assert_close(Mahalanobis.fit(train, labels)(queries).float(), -2 * 60 * theirs, rtol=1e-3, atol=0)


def test_directions_without_variance_are_left_out():
    """A unit that is dead, or one that repeats another, gives no infinite distance."""
    (train, labels), (queries, _) = embeddings(60), embeddings(11, seed=1)
    wanted = Mahalanobis.fit(train, labels)(queries)

    def widened(values: Tensor) -> Tensor:
        return torch.cat([values, torch.zeros(len(values), 2), values[:, :1] + values[:, 1:2]], dim=1)

    fitted = Mahalanobis.fit(widened(train).float(), labels)
    torch.testing.assert_close(fitted(widened(queries).float()), wanted, rtol=1e-4, atol=0)
    assert fitted.whitening.shape == (9, 6)


def test_classes_without_an_example_do_not_matter():
    (train, labels), (queries, _) = embeddings(60), embeddings(11, seed=1)
    found = Mahalanobis.fit(train, labels * 5 + 2)(queries)
    assert torch.equal(found, Mahalanobis.fit(train, labels)(queries))


@pytest.mark.bad_input
def test_what_cannot_be_fitted_is_refused():
    train, _ = embeddings(6)
    for neighbours in (0, 7):
        with pytest.raises(
            ValueError, match=rf"neighbours must lie in 1..6, the training embeddings, got {neighbours}"
        ):
            KNN.fit(train, neighbours)
    with pytest.raises(ValueError, match="embeddings must vary within their classes"):
        Mahalanobis.fit(train, torch.arange(6))
