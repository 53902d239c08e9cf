"""Methods that learn modules of their own, in a loop that forgets them and in loops that do not."""

import warnings

import pytest
import torch

import cases
from multimix.distill import SelfDistilled
from multimix.methods import AdaMixUp, Alternate, AutoMix, Mixup

LEARNERS = {"automix": lambda: AutoMix(width=4), "adamixup": AdaMixUp}
WARNING = r"learns nothing: .* torch\.optim\.SGD\(\[\*network\.parameters\(\), \*method\.parameters\(\)\], lr=\.\.\.\)"
learners = pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)


def loop(method, network, optimiser, inputs, targets, *, steps=8, accumulate=1, heard=lambda: None):
    for step in range(steps):
        cases.run(method, network, inputs, targets, step).total.backward()
        if (step + 1) % accumulate == 0:
            optimiser.step()
            optimiser.zero_grad()
            heard()


@learners
@pytest.mark.parametrize(
    "wrap",
    [lambda m: m, SelfDistilled, lambda m: Alternate([m, Mixup()], [0.9, 0.1])],
    ids=["alone", "taught", "in turn"],
)
def test_a_loop_that_trains_the_network_alone_is_told_once(make, wrap):
    network, *batch = cases.images()
    method = wrap(make())
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    with pytest.warns(UserWarning, match=WARNING) as told:
        loop(method, network, optimiser, *batch, steps=30)
    assert len(told) == 1


@learners
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_loop_that_trains_both_is_not(make, fused):
    network, *batch = cases.images()
    method = make()
    method.prepare(network)
    optimiser = torch.optim.Adam([*network.parameters(), *method.parameters()], lr=1e-6, fused=fused)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop(method, network, optimiser, *batch, accumulate=2, steps=20)


@learners
@pytest.mark.parametrize("rate", [0.0, 0.01])
def test_nor_is_one_that_trains_nothing_or_knows_what_it_does(make, rate):
    """No step of the network's; the learned modules frozen on purpose; a look without gradient."""
    network, *batch = cases.images()
    method = make()
    method.prepare(network)
    optimiser = torch.optim.SGD(network.parameters(), lr=rate)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if rate:
            method.requires_grad_(False)
        loop(method, network, optimiser, *batch)
        method.requires_grad_(True)
        with torch.no_grad():
            for _ in range(8):
                network.classifier.weight.add_(1)
                cases.run(method, network, *batch)


@learners
def test_nor_is_one_that_has_said_that_it_leads(make):
    network, *batch = cases.images()
    method = make()
    method.led = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop(method, network, torch.optim.SGD(network.parameters(), lr=0.01), *batch)
