"""One pass gives what the scores give one by one, whatever the batches, and leaves the network as it was."""

import pytest
import torch

import toy
from multimix.lab.evaluate.ood import KNN, SCORES, Mahalanobis, energy, max_logit, msp, odin
from multimix.lab.evaluate.ood.observe import Observer, embedded, fingerprints
from multimix.lab.evaluate.predict import NonFiniteError

STEP = (0.01, 0.02, 0.03)


def in_batches(inputs, size):
    return [(part, torch.zeros(len(part), dtype=torch.int64)) for part in inputs.split(size)]


def observer(network, *, names=SCORES, step=STEP, device="cpu"):
    inputs, labels = toy.batch(40, 3, 8, 8, seed=1, device=device)
    train, labels = embedded(network, list(zip(inputs.split(16), labels.split(16), strict=True)))
    return Observer(
        names=names,
        energy_temperature=1.5,
        odin_temperature=100.0,
        odin_step=step,
        knn=KNN.fit(train, 4),
        mahalanobis=Mahalanobis.fit(train, labels, shrinkage=0.01),
    )


def test_it_is_what_the_scores_say_one_by_one(device):
    network = toy.images().to(device).eval()
    inputs, _ = toy.batch(9, 3, 8, 8, device=device)
    watching = observer(network, device=device)
    found = watching(network, in_batches(inputs, 4)).scores
    with torch.no_grad():
        pooled, logits = network.pool(network.embed(inputs)), network(inputs)
    wanted = {
        "msp": msp(logits),
        "max_logit": max_logit(logits),
        "energy": energy(logits, 1.5),
        "odin": odin(network, inputs, step=torch.tensor(STEP, device=device).view(3, 1, 1), temperature=100.0),
        "knn": watching.knn(pooled),
        "mahalanobis": watching.mahalanobis(pooled),
    }
    assert tuple(found) == SCORES
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values.cpu(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 7, 30])
def test_the_size_of_the_batches_does_not_matter(size):
    network = toy.images().double()
    inputs, _ = toy.batch(30, 3, 8, 8, dtype=torch.float64)
    watching = Observer(names=("msp", "odin"), energy_temperature=1.0, odin_temperature=1000.0, odin_step=STEP)
    found, wanted = (watching(network, in_batches(inputs, chosen)) for chosen in (size, 13))
    for name in found.scores:
        torch.testing.assert_close(found.scores[name], wanted.scores[name], rtol=1e-12, atol=0)
    assert torch.equal(found.fingerprints, wanted.fingerprints)


def test_the_network_is_left_as_it_was():
    network = toy.images().train()
    network.blocks[1].eval()
    network.classifier.weight.grad = torch.ones_like(network.classifier.weight)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    random = torch.get_rng_state()
    inputs, _ = toy.batch(6, 3, 8, 8)
    with torch.no_grad():
        observer(network)(network, in_batches(inputs, 4))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(network.classifier.weight.grad, torch.ones_like(network.classifier.weight))
    assert all(p.grad is None for p in network.blocks.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert not inputs.requires_grad


@pytest.mark.parametrize(("names", "step", "passes"), [(SCORES, STEP, 2), (SCORES, (0.0,) * 3, 1), (("knn",), STEP, 1)])
def test_an_image_passes_no_more_often_than_needed(names, step, passes):
    network = toy.images()
    watching = observer(network, names=names, step=step)
    network.seen.clear()
    inputs, _ = toy.batch(6, 3, 8, 8)
    watching(network, in_batches(inputs, 6))
    assert len(network.seen) == passes


def test_without_a_step_odin_is_the_confidence_at_its_temperature():
    network = toy.images().eval()
    inputs, _ = toy.batch(6, 3, 8, 8)
    found = observer(network, names=("odin",), step=(0.0,) * 3)(network, in_batches(inputs, 6)).scores["odin"]
    with torch.no_grad():
        torch.testing.assert_close(found, msp(network(inputs), 100.0))


def test_half_precision_still_gets_a_step():
    """The gradient at temperature 1000 would be too small for it."""
    network = toy.vectors().bfloat16()
    inputs, _ = toy.batch(6, 8, dtype=torch.bfloat16)
    still = odin(network, inputs, step=0.0)
    assert (odin(network, inputs, step=0.5) > still).all()


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


@pytest.mark.bad_input
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_says_no_numbers_is_refused(value):
    network = toy.identity(4)
    inputs, _ = toy.batch(5, 4)
    inputs[3, 1] = value
    watching = Observer(names=("msp",), energy_temperature=1.0, odin_temperature=1.0, odin_step=(0.0,))
    with pytest.raises(NonFiniteError, match="the network says NaN or infinity"):
        watching(network, in_batches(inputs, 2))
    with pytest.raises(NonFiniteError, match="the network says NaN or infinity"):
        embedded(network, in_batches(inputs, 2))


@pytest.mark.bad_input
def test_no_batch_at_all_is_refused():
    watching = Observer(names=("msp",), energy_temperature=1.0, odin_temperature=1.0, odin_step=(0.0,))
    with pytest.raises(ValueError, match="batches must hold at least one batch"):
        watching(toy.identity(4), [])
    with pytest.raises(ValueError, match="batches must hold at least one batch"):
        embedded(toy.identity(4), [])
