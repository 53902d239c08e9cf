"""What an engine holds besides its network: averages, teachers, what methods count and learn, and its saved state."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import references
from multimix.distill import EMATeacher, SelfDistilled
from multimix.lab.train import SGD, AdamW, Engine
from multimix.methods import ERM, Alternate, MultiMix, Until
from multimix.protocols import Losses, Network, Stateful, submethods
from train.tiny import assert_equal, parameters, splits_of, tiny, train_all


@pytest.fixture(scope="module")
def splits():
    return splits_of(tiny())


def test_a_configuration_serves_many_runs(splits):
    """What the first run learns stays its own: neither a teacher nor progress reaches the second."""
    config = tiny(method=SelfDistilled(Until(ERM(), 0.5, MultiMix(tuples=5)), momentum=0.5))
    first, second = Engine(config, splits), Engine(config, splits)
    losses = train_all(first)
    assert train_all(second) == losses
    assert train_all(Engine(config, splits)) == losses
    assert config.method.ema is None


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_moving_average_follows_its_closed_form(accumulate, splits):
    """4 mini-batches in groups of 3 are 2 steps an epoch; the average moves at steps alone."""
    engine = Engine(tiny(ema=0.8, accumulate=accumulate), splits)
    start = parameters(engine.network)
    visited: list[dict[str, Tensor]] = []
    for epoch in range(2):
        for inputs, labels in engine.epoch():
            before = engine.at.step
            engine.step(inputs, labels)
            if engine.at.step > before:
                visited.append(parameters(engine.network))
        assert len(visited) == (epoch + 1) * engine.steps_per_epoch
        engine.end_epoch()
    for name, _ in engine.network.named_parameters():
        expected = references.moving_average(start[name], [values[name] for values in visited], 0.8)
        averaged = engine.ema.network.state_dict()[name]
        torch.testing.assert_close(averaged.double(), torch.as_tensor(expected), rtol=1e-5, atol=1e-7)
    for name, value in engine.network.named_buffers():
        assert torch.equal(engine.ema.network.state_dict()[name], value)


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_the_teacher_follows_once_a_step(accumulate, splits, monkeypatch):
    updated: list[int] = []
    real = EMATeacher.update_
    engine = Engine(tiny(method=Alternate((SelfDistilled(ERM()),)), accumulate=accumulate), splits)

    def counted(self: EMATeacher, network: nn.Module) -> None:
        updated.append(engine.at.step)
        real(self, network)

    monkeypatch.setattr(EMATeacher, "update_", counted)
    train_all(engine)
    assert updated == list(range(1, engine.steps + 1))


def test_the_teacher_starts_as_a_copy_that_the_optimiser_does_not_touch(splits):
    engine = Engine(tiny(method=SelfDistilled(ERM(), momentum=0.999)), splits)
    assert_equal(parameters(engine.method.ema.network), parameters(engine.network))
    optimised = {id(p) for group in engine.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in engine.network.parameters()}
    teacher = engine.method.ema.network
    train_all(engine)
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    assert not any(module.training for module in teacher.modules())
    assert all(module.training for module in engine.network.modules())


@dataclass(frozen=True)
class Called(ERM):
    """Plain training that remembers how often."""

    name: ClassVar[str] = "called"
    calls: list[int] = field(default_factory=list)

    def __call__(self, network: Network, inputs: Tensor, targets: Tensor, **more: Any) -> Losses:
        self.calls.append(len(targets))
        return super().__call__(network, inputs, targets, **more)


@pytest.mark.parametrize(("fraction", "first"), [(0.0, 0), (0.5, 4), (0.6, 5), (1.0, 8)])
def test_until_hears_how_far_training_is(fraction, first, splits):
    """8 steps: after the 4th, half of training is done; after the 5th, 0.625 of it."""
    engine = Engine(tiny(method=Until(Called(), fraction, Called())), splits)
    train_all(engine)
    assert (len(engine.method.method.calls), len(engine.method.then.calls)) == (first, 8 - first)


@dataclass(eq=False)
class Learning(Stateful):
    """Scales the loss by something learned, built for the network."""

    name: ClassVar[str] = "learning"

    def prepare(self, network: Network) -> None:
        self.scale = nn.Parameter(torch.full((len(network.stages),), 0.5))

    def forward(self, network: Network, inputs: Any, targets: Tensor, **more: Any) -> Losses:
        losses = ERM()(network, inputs, targets, **more)
        return Losses(losses.total * self.scale.square().sum(), losses.terms)


@pytest.mark.parametrize(
    "method",
    [Learning(), SelfDistilled(Learning()), Alternate((Learning(),)), SelfDistilled(Until(Alternate((Learning(),))))],
    ids=["alone", "distilled", "alternate", "deep inside"],
)
@pytest.mark.parametrize("optimizer", [SGD(learning_rate=0.05), AdamW()])
def test_what_a_method_learns_is_optimised_once_and_clipped(method, optimizer, splits):
    engine = Engine(tiny(method=method, optimizer=optimizer, clip=1e-3), splits)
    (scale,) = (part.scale for part in submethods(engine.method) if isinstance(part, Learning))
    given = [p for group in engine.optimizer.param_groups for p in group["params"]]
    assert sum(p is scale for p in given) == 1
    assert len(given) == len({id(p) for p in given}) == len(list(engine.network.parameters())) + 1
    before = scale.detach().clone()
    seen: list[float] = []
    handle = engine.optimizer.optimizer.register_step_pre_hook(lambda *_: seen.append(float(scale.grad.norm())))
    engine.step(*next(engine.epoch()))
    handle.remove()
    assert not torch.equal(scale.detach(), before)
    assert 0 < seen[0] <= 1e-3


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "other",
    [{"width": 3}, {"method": SelfDistilled(ERM())}, {"optimizer": AdamW()}, {"ema": 0.9}],
    ids=lambda changes: ", ".join(changes),
)
def test_the_state_of_another_run_is_refused(other, splits):
    with pytest.raises(ValueError, match="the checkpoint belongs to another run: "):
        Engine(tiny(**other), splits).load(Engine(tiny(), splits).state())
