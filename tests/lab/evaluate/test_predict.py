"""Predictions of a whole data set: all of them, in order, and the network is left as it was."""

import pytest
import torch
from torch import Tensor, nn

import toy
from multimix.lab.evaluate.predict import NonFiniteError, evaluating, predict


def in_batches(inputs: Tensor, labels: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(inputs.split(size), labels.split(size), strict=True))


def modes(network: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in network.named_modules()}


def test_every_example_is_predicted_in_order(device):
    network = toy.images().to(device).eval()
    inputs, labels = toy.batch(11, 3, 8, 8, device=device)
    logits, found = predict(network, iter(in_batches(inputs, labels, 4)))
    with torch.no_grad():
        torch.testing.assert_close(logits, network(inputs).cpu())
    assert torch.equal(found, labels.cpu())
    assert (logits.device.type, found.device.type, logits.dtype) == ("cpu", "cpu", torch.float32)
    assert not logits.requires_grad


def test_batch_normalisation_uses_and_keeps_its_running_statistics():
    network = toy.images()
    inputs, labels = toy.batch(6, 3, 8, 8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    together, _ = predict(network, [(inputs, labels)])
    one_by_one, _ = predict(network, in_batches(inputs, labels, 1))
    torch.testing.assert_close(together, one_by_one)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_every_module_comes_back(training):
    """Someone who fine-tunes keeps some modules in eval mode while the rest trains, or the other way round."""
    network = toy.images().train(training)
    network.blocks[1][1].train(not training)
    before = modes(network)
    seen: list[dict[str, bool]] = []
    network.classifier.register_forward_hook(lambda *_: seen.append(modes(network)))
    inputs, labels = toy.batch(2, 3, 8, 8)
    predict(network, [(inputs, labels)])
    assert not any(seen[0].values())
    assert modes(network) == before
    assert before["blocks.1.1"] != before["blocks.1.0"]


def test_the_mode_comes_back_after_a_failure():
    network = toy.images()
    network.blocks[1].eval()
    before = modes(network)
    with pytest.raises(RuntimeError):
        predict(network, [(torch.zeros(2, 7, 8, 8), torch.zeros(2, dtype=torch.int64))])
    with pytest.raises(KeyboardInterrupt), evaluating(network):
        raise KeyboardInterrupt
    assert modes(network) == before


def test_half_precision_comes_back_as_float32():
    network = toy.vectors().bfloat16()
    inputs, labels = toy.batch(3, 8, dtype=torch.bfloat16)
    assert predict(network, [(inputs, labels)])[0].dtype == torch.float32


def test_what_is_no_module_can_be_measured_too():
    inputs, labels = toy.batch(3, 4)
    assert torch.equal(predict(lambda given: given * 2, [(inputs, labels)])[0], inputs * 2)


@pytest.mark.bad_input
@pytest.mark.parametrize("batches", [[], iter(()), ()])
def test_no_batch_at_all_is_refused(batches):
    with pytest.raises(ValueError, match="batches must hold at least one batch, got none"):
        predict(toy.vectors(), batches)


@pytest.mark.bad_input
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_infinite_logits_are_refused(value):
    """Their likelihood would be NaN; a class that is ruled out by an infinitely small one has none of the kind."""
    inputs, labels = toy.batch(4, 5)
    inputs[1, 2] = value
    with pytest.raises(NonFiniteError, match="the network predicts NaN or infinity"):
        predict(lambda given: given, [(inputs, labels)])
    inputs[1, 2] = -float("inf")
    assert torch.equal(predict(lambda given: given, [(inputs, labels)])[0], inputs)


@pytest.mark.bad_input
def test_predictions_that_are_no_numbers_are_refused():
    network = toy.vectors()
    inputs, labels = toy.batch(8, 8)
    inputs[5, 3] = float("nan")
    with pytest.raises(NonFiniteError, match="the network predicts NaN"):
        predict(network, in_batches(inputs, labels, 3))
