"""Passes over a data set, what a run offers its suites, and what holds for every suite."""

import json
from collections.abc import Iterable

import pytest
import torch
from torch import nn

import toy
from evaluate.made import MEAN, STD, batches, images, source
from listening import Kept
from multimix.lab import evaluate
from multimix.lab.evaluate import SUITES, Normalised
from multimix.lab.evaluate.passes import NonFiniteError, embed, evaluating, per_example, predict
from multimix.methods import Mixup


def modes(network: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in network.named_modules()}


def test_every_example_is_predicted_in_order(device):
    network = toy.images().to(device).eval()
    inputs, labels = toy.batch(11, 3, 8, 8, device=device)
    logits, found = predict(network, iter(batches(inputs, labels, 4)))
    embeddings, same = embed(network, batches(inputs, labels, 4))
    with torch.no_grad():
        torch.testing.assert_close(logits, network(inputs).cpu())
        torch.testing.assert_close(embeddings, network.pool(network.embed(inputs)))
    assert torch.equal(found, labels.cpu())
    assert torch.equal(same, labels)
    assert (logits.device.type, found.device.type, logits.dtype) == ("cpu", "cpu", torch.float32)
    assert not any(values.requires_grad for values in (logits, embeddings))


def test_the_mode_comes_back_after_a_failure():
    network = toy.images()
    network.blocks[1].eval()
    before = modes(network)
    with pytest.raises(RuntimeError):
        predict(network, [(torch.zeros(2, 7, 8, 8), torch.zeros(2, dtype=torch.int64))])
    with pytest.raises(KeyboardInterrupt), evaluating(network):
        raise KeyboardInterrupt
    assert modes(network) == before


def test_half_precision_comes_back_as_float32_and_what_is_no_module_can_be_measured_too():
    inputs, labels = toy.batch(3, 8, dtype=torch.bfloat16)
    logits, _ = predict(lambda given: given * 2, [(inputs, labels)])
    assert torch.equal(logits, inputs.float() * 2)
    assert logits.dtype == torch.float32


@pytest.mark.bad_input
@pytest.mark.parametrize("through", [predict, embed])
def test_no_batch_at_all_is_refused(through):
    with pytest.raises(ValueError, match="batches must hold at least one batch, got none"):
        through(toy.vectors(), iter(()))


@pytest.mark.bad_input
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(value):
    """A class may be ruled out by a logit of minus infinity, but an embedding may not hold one."""
    inputs, labels = toy.batch(4, 5)
    inputs[1, 2] = value
    with pytest.raises(NonFiniteError, match="the network predicts NaN or infinity"):
        predict(lambda given: given, batches(inputs, labels, 3))
    with pytest.raises(NonFiniteError, match="the network embeds as NaN or infinity"):
        embed(toy.identity(5), batches(inputs, labels, 3))
    inputs[1, 2] = -float("inf")
    assert torch.equal(predict(lambda given: given, [(inputs, labels)])[0], inputs)
    with pytest.raises(NonFiniteError):
        embed(toy.identity(5), [(inputs, labels)])


def test_pixels_are_those_of_the_set_in_its_order_and_normalised_the_batches():
    run, network = source(), Normalised(toy.images(), MEAN, STD).eval()
    served, taken = run.pixels(run.test()), run.batches(run.test())
    for _ in range(2):  # batches start over
        pixels, inputs = (torch.cat([values for values, _ in batches]) for batches in (served, taken))
        assert torch.equal((pixels * 255).round().byte(), run.splits.test.images)
        torch.testing.assert_close(network.normalise(pixels), inputs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(network(pixels), network.network(inputs), rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.cat([labels for _, labels in taken]), run.splits.test.labels)


def test_fewer_examples_keep_the_shares_of_the_classes():
    run = source(30)
    assert torch.bincount(run.test(10).labels).tolist() == [2] * 5
    assert len(run.test(30)) == len(run.test()) == 30
    with pytest.raises(ValueError, match="examples=31 does not fit: there are 30 images"):
        run.test(31)


@pytest.mark.bad_input
@pytest.mark.parametrize(("mean", "std"), [((0.0,), (1.0, 1.0)), ((0.0,), (0.0,)), ((0.0,), (float("nan"),))])
def test_statistics_that_cannot_be_are_refused(mean, std):
    with pytest.raises(ValueError, match="mean and std must have one number a channel, std above 0, got"):
        Normalised(toy.images(), mean, std)


def test_draws_belong_to_examples_and_not_to_batches():
    def drawn(examples, seed=3) -> torch.Tensor:
        return per_example(lambda generator: torch.rand(2, 3, generator=generator), examples, seed=seed)

    whole = drawn(range(9))
    assert torch.equal(drawn([7, 2]), whole[[7, 2]])
    assert len(whole.flatten().unique()) == whole.numel()
    assert not torch.equal(drawn(range(9), 4), whole)


QUICK = {
    "adversarial": {"steps": 2, "curve": (0.0, 0.01), "curve_examples": 30},
    "ood": {"ood_examples": 25, "knn_neighbours": 5},
    "corruption": {"severities": (3,)},
    "occlusion": {"grid": 4},
    "embedding": {"reference": "train", "neighbours": 3},
    "intrusion": {"mixing_batches": 2, "mixing_batch": 20},
}


pytestmark = pytest.mark.filterwarnings("ignore:(embedding|calibration). ")  # of what few images do

every_suite = pytest.mark.parametrize(
    "suite", [s for s in SUITES if s is not evaluate.Localisation], ids=lambda suite: suite.name
)


def made(suite, network):
    """A suite on a run of this network, and what it finds out about it."""
    run = source(60, validation=images(20, seed=3), method=Mixup())
    return (made := suite.of(run, suite.Settings(**QUICK.get(suite.name, {})))), dict(made(network))


@every_suite
def test_a_suite_may_be_called_again_and_with_another_network(suite):
    one, other = toy.images(), toy.images(seed=1)
    again, found = made(suite, one)
    assert dict(again(other)) == made(suite, other)[1]
    assert dict(again(one)) == found


@pytest.mark.bad_input
@every_suite
def test_batches_that_do_not_start_over_are_refused(suite):
    ready, _ = made(suite, toy.images())
    for name, value in vars(ready).items():
        if isinstance(value, Iterable) and not isinstance(value, (str, tuple, dict)):
            object.__setattr__(ready, name, iter(list(value)))
    with pytest.raises(ValueError, match="must hold at least one batch"):
        [dict(ready(toy.images())) for _ in range(2)]


@pytest.mark.bad_input
@every_suite
def test_a_network_that_gives_nan_is_refused_before_any_number(suite):
    network = toy.images()
    ready, _ = made(suite, network)
    torch.nn.init.constant_(network.blocks[1][0].weight, torch.nan)
    with pytest.raises(NonFiniteError):
        next(ready(network))


@every_suite
def test_the_batches_do_not_matter_and_the_network_is_left_as_it_was(suite):
    network = toy.images().train()
    network.blocks[1].eval()
    network.blocks[2][0].weight.requires_grad_(False)
    network.classifier.weight.grad = torch.ones_like(network.classifier.weight)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    then, needs = modes(network), [p.requires_grad for p in network.parameters()]
    random = torch.get_rng_state()
    found = []
    for size in (1, 7, 60):
        run, monitor = source(60, validation=images(20, seed=3), batch_size=size), Kept()
        found.append(dict(suite.of(run, suite.Settings(**QUICK.get(suite.name, {})))(network, monitor)))
        assert all(isinstance(value, float) for value in found[-1].values())
        json.dumps(monitor.figures, allow_nan=False)
    assert found[0] == pytest.approx(found[2], rel=1e-4, abs=2e-3)
    assert found[1] == pytest.approx(found[2], rel=1e-4, abs=2e-3)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert (modes(network), [p.requires_grad for p in network.parameters()]) == (then, needs)
    assert all((p.grad is not None) == (p is network.classifier.weight) for p in network.parameters())
    assert (network.classifier.weight.grad == 1).all()
    assert torch.equal(torch.get_rng_state(), random)
