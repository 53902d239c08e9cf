"""Methods that learn modules of their own: built to fit, trained, saved, and missed where a loop forgets them."""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import cases
import toy
from multimix.distill import SelfDistilled
from multimix.methods import ERM, AdaMixUp, Alternate, AutoMix, Mixup
from multimix.protocols import Method
from toy import seeded

LEARNERS = {"automix": lambda: AutoMix(width=4), "adamixup": AdaMixUp}
FROZEN = {"automix": set(), "adamixup": {"policy.trunk.classifier.weight", "policy.trunk.classifier.bias"}}
WARNING = r"learns nothing: .* torch\.optim\.SGD\(\[\*network\.parameters\(\), \*method\.parameters\(\)\], lr=\.\.\.\)"
learners = pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)


@pytest.mark.parametrize("name", LEARNERS)
def test_gradients_reach_all_that_is_to_learn(name):
    network, (inputs, targets) = toy.images(), toy.batch(8, 3, 32, 32)
    method = AutoMix() if name == "automix" else AdaMixUp()
    method(network, inputs, targets, generator=seeded()).total.backward()
    learning = [*network.named_parameters(), *method.named_parameters()]
    assert {key for key, p in learning if not p.requires_grad} == FROZEN[name]
    for key, parameter in learning:
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.abs().sum() > 0, key


@learners
def test_modules_fit_the_network_and_leave_the_global_state_alone(make):
    network = toy.images().bfloat16()
    before = torch.get_rng_state()
    first, second = make(), make()
    first.prepare(network)
    second.prepare(network)
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one.dtype == torch.bfloat16
        assert torch.equal(one, other)
    own = [p.data_ptr() for p in first.parameters()]
    assert not {p.data_ptr() for p in network.parameters()} & set(own)
    first.prepare(network)
    assert [p.data_ptr() for p in first.parameters()] == own
    total = first(network, *toy.batch(4, 3, 6, 6, dtype=torch.bfloat16), generator=seeded()).total
    assert total.dtype == torch.float32
    assert total.isfinite()


def engine(method: Method) -> Any:
    lab = pytest.importorskip("multimix.lab.train")
    data = pytest.importorskip("multimix.lab.bench.step")
    config = lab.TrainConfig(
        data="noise", method=method, optimizer=lab.SGD(learning_rate=0.05), device="cpu", width=2, batch_size=8
    )
    return lab.Engine(config, data.random_images(32, 16, classes=5))


def advance(run: Any, steps: int) -> None:
    for _, batch in zip(range(steps), run.epoch(), strict=False):
        run.step(*batch)


@pytest.mark.parametrize("name", LEARNERS)
def test_the_engine_trains_the_modules_and_resumes_them(name):
    method = Alternate((LEARNERS[name](), ERM()), (0.9, 0.1))
    whole = engine(method)
    (first,) = copy.deepcopy(whole.state())["method"]
    advance(whole, 4)
    killed = engine(method)
    advance(killed, 2)
    resumed = engine(method)
    resumed.load(copy.deepcopy(killed.state()))
    advance(resumed, 2)
    ended, wanted = resumed.state(), whole.state()
    for key in ("network", "method", "generator", "at"):
        torch.testing.assert_close(ended[key], wanted[key], rtol=0, atol=0)
    same = {key.replace("head", "classifier") for key in first if torch.equal(wanted["method"][0][key], first[key])}
    assert same == FROZEN[name]


@learners
def test_what_is_no_module_or_has_no_layer_to_read_from_is_refused(make):
    bare = toy.Toy(width=3, classes=3, affine=False)
    bare.classifier = nn.Softplus()
    with pytest.raises(TypeError, match=r"network must be a torch module for A.*, got function"):
        make().prepare(lambda x: x)
    with pytest.raises(ValueError, match=r"(width|channels) must be given to A.*: the network has no (linear|convol)"):
        make().prepare(bare)


# ------------------------------------------------------------------------------------------------- loops that forget


def loop(method, network, optimiser, inputs, targets, *, steps=8, accumulate=1):
    for step in range(steps):
        cases.run(method, network, inputs, targets, step).total.backward()
        if (step + 1) % accumulate == 0:
            optimiser.step()
            optimiser.zero_grad()


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
@pytest.mark.parametrize(
    "case", ["trains both", "fused", "network stands still", "modules frozen", "led", "no gradient"]
)
def test_nor_is_one_that_trains_both_or_nothing_or_knows_what_it_does(make, case):
    network, *batch = cases.images()
    method = make()
    method.prepare(network)
    method.requires_grad_(case != "modules frozen")
    method.led = case == "led"
    optimiser = torch.optim.SGD(network.parameters(), lr=0.0 if case == "network stands still" else 0.01)
    if case in ("trains both", "fused"):
        both = [*network.parameters(), *method.parameters()]
        optimiser = torch.optim.Adam(both, lr=1e-6, fused=case == "fused")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if case != "no gradient":
            loop(method, network, optimiser, *batch, accumulate=2, steps=20)
            return
        with torch.no_grad():
            for _ in range(8):
                network.classifier.weight.add_(1)
                cases.run(method, network, *batch)
