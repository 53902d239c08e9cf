"""Learning rates against values worked by hand, and which parameters an optimiser decays."""

import math

import pytest
import torch
from torch import nn

from multimix.lab.runs.optim import learning_rate, make_optimizer
from multimix.lab.train import SGD, AdamW, Cosine, Step
from train.tiny import tiny

ROOT = math.sqrt(0.5)
COSINE = [0.1 * (1 + math.cos(math.pi * step / 40)) for step in range(9)]


@pytest.mark.parametrize(
    ("schedule", "steps", "expected"),
    [
        (Step(), [0, 9, 10, 19, 20, 29, 30, 39], [0.2, 0.2, 0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002]),
        (Step(milestones=(0.99, 0.3), factor=0.5), [11, 12, 39], [0.2, 0.1, 0.1]),
        (Step(milestones=()), [0, 39], [0.2, 0.2]),
        (Cosine(), [0, 10, 20, 30, 40], [0.2, 0.1 * (1 + ROOT), 0.1, 0.1 * (1 - ROOT), 0.0]),
        (Cosine(final=0.1), [0, 20, 40, 50], [0.2, 0.2 * 0.55, 0.02, 0.02]),
        (Cosine(final=1.0), [0, 17, 39], [0.2, 0.2, 0.2]),
        (Step(warmup_epochs=2), [0, 1, 6, 7, 8], [0.025, 0.05, 0.175, 0.2, 0.2]),
        (Cosine(warmup_epochs=2), [0, 3, 7, 8], [COSINE[0] / 8, COSINE[3] / 2, COSINE[7], COSINE[8]]),
        (Step(warmup_epochs=0.5), [0, 1, 2], [0.1, 0.2, 0.2]),
        (Step(milestones=(), warmup_epochs=20), [39], [0.1]),
    ],
)
def test_learning_rates_are_those_worked_by_hand(schedule, steps, expected):
    """Of 10 epochs of 4 steps, with a peak of 0.2: two epochs of warm-up are 8 steps, of which the first takes 1/8."""
    config = tiny(epochs=10, schedule=schedule, optimizer=SGD(learning_rate=0.2))
    assert [learning_rate(config, step, steps_per_epoch=4) for step in steps] == pytest.approx(expected)


class Layers(nn.Module):
    """One parameter of each number of dimensions, a frozen one, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.linear = nn.Linear(3, 2)
        self.scalar = nn.Parameter(torch.ones(()))
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def test_adamw_spares_biases_norms_and_scalars():
    model = Layers()
    config = AdamW(learning_rate=0.01, betas=(0.8, 0.9), weight_decay=0.3)
    decayed, spared = make_optimizer(config, model.parameters()).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {"convolution.weight", "linear.weight"}
    assert {names[id(p)] for p in spared["params"]} == {
        "convolution.bias", "norm.weight", "norm.bias", "linear.bias", "scalar",
    }  # fmt: skip
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    for group in (decayed, spared):
        assert (group["lr"], group["betas"]) == (0.01, (0.8, 0.9))


def test_sgd_decays_everything_that_trains():
    model = Layers()
    config = SGD(learning_rate=0.3, momentum=0.8, nesterov=True, weight_decay=0.01)
    (group,) = make_optimizer(config, model.parameters()).param_groups
    assert len(group["params"]) == 7
    assert not any(p is model.frozen for p in group["params"])
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (0.3, 0.8, True, 0.01)


def test_sgd_steps_as_written():
    """Two steps by hand: v <- 0.9 v + (g + wd w), w <- w - lr v."""
    w = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = make_optimizer(SGD(learning_rate=0.1, momentum=0.9, weight_decay=0.5), [w])
    expected, v = 2.0, 0.0
    for gradient in (1.0, -3.0):
        w.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        v = 0.9 * v + gradient + 0.5 * expected
        expected -= 0.1 * v
        assert float(w.detach()) == pytest.approx(expected, rel=1e-14)
