"""The engine against a training loop written by hand, step by step."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

import references
import toy
from multimix.data import Augment, Batches
from multimix.distill import EMATeacher, SelfDistilled
from multimix.methods import ERM, Alternate, MultiMix, Until
from multimix.models import build
from multimix.protocols import Losses, Network, Stateful
from multimix.train import SGD, AdamW, Cosine, Engine, Step, TrainConfig
from multimix.train.engine import build_network
from multimix.train.parallel import make_fabric
from train.tiny import BATCHES, splits_of, tiny, train_all


class Doubled(nn.Module):
    """The images in float64."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.double()


@pytest.fixture(scope="module")
def splits():
    return splits_of(tiny())


@pytest.fixture
def plain_network(monkeypatch) -> None:
    """Let the engine train a perceptron in float64, without batch normalisation: mini-batches simply add up."""

    def make(*_: Any) -> nn.Module:
        hidden = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh())
        return toy.Toy(Doubled(), hidden, width=12, classes=10).double()

    monkeypatch.setattr("multimix.train.engine.build_network", make)


def parameters(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def by_hand(config: TrainConfig, splits, losses_of: Callable[..., Tensor]) -> tuple[nn.Module, list[float]]:
    """Train in plain PyTorch with SGD and a cosine from the first step to the last."""
    torch.manual_seed(config.seed)
    network = build("preact_resnet18", num_classes=10, in_channels=1, width=2, strides=(1, 2, 2, 2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    generator = Generator().manual_seed(config.seed)
    batches = Batches(
        splits.train,
        batch_size=32,
        mean=splits.mean,
        std=splits.std,
        augment=Augment(crop_padding=1, flip=False),
        views=config.views,
        seed=config.seed,
    )
    losses, step, steps = [], 0, 2 * len(batches)
    for epoch in range(2):
        for inputs, targets in batches.epoch(epoch):
            optimizer.param_groups[0]["lr"] = 0.05 * (0.5 * (1 + math.cos(math.pi * step / steps)))
            loss = losses_of(network, inputs, targets, generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            step += 1
    return network, losses


@pytest.mark.parametrize(
    "method",
    [
        ERM(),
        MultiMix(tuples=20),
        SelfDistilled(MultiMix(tuples=20), momentum=0.9),
        SelfDistilled(ERM(), teacher="mix", warmup=True),
    ],
    ids=["erm", "multimix", "distilled-multimix", "distilled-erm"],
)
def test_two_epochs_equal_a_loop_by_hand_bit_for_bit(method, splits):
    mine = copy.deepcopy(method)

    def loss(network: Network, inputs: Any, targets: Tensor, generator: Generator) -> Tensor:
        return mine(network, inputs, targets, generator=generator).total

    config = tiny(method=method, seed=3)
    expected, losses = by_hand(config, splits, loss)
    engine = Engine(config, splits)
    assert train_all(engine) == losses
    assert_equal(parameters(engine.network), parameters(expected))
    assert (engine.at.epoch, engine.at.batch, engine.at.step) == (2, 0, 8)


def test_erm_equals_cross_entropy_by_hand(splits):
    """No line of ours but the network and the batches; the two cross-entropies round differently."""
    config = tiny(seed=1)
    expected, losses = by_hand(config, splits, lambda network, x, y, _: F.cross_entropy(network(x), y))
    engine = Engine(config, splits)
    assert train_all(engine) == pytest.approx(losses, rel=1e-4)
    for name, value in parameters(expected).items():
        torch.testing.assert_close(engine.network.state_dict()[name], value, rtol=1e-2, atol=1e-4)


def test_a_configuration_serves_many_runs(splits):
    """What the first run learns stays its own: neither a teacher nor progress reaches the second."""
    config = tiny(method=SelfDistilled(Until(ERM(), 0.5, MultiMix(tuples=5)), momentum=0.5))
    first, second = Engine(config, splits), Engine(config, splits)
    losses = train_all(first)
    assert train_all(second) == losses
    assert train_all(Engine(config, splits)) == losses
    assert config.method.ema is None


def test_another_seed_is_another_run(splits):
    first, other = (Engine(tiny(seed=seed), splits) for seed in (0, 1))
    assert not torch.equal(first.network.head.weight, other.network.head.weight)
    orders = [torch.cat([labels for _, labels in engine.epoch()]) for engine in (first, other)]
    assert not torch.equal(*orders)


@pytest.mark.parametrize(("accumulate", "size", "train_size"), [(2, 16, 100), (3, 10, 100), (3, 10, 110), (4, 8, 96)])
def test_accumulated_mini_batches_equal_one_of_their_size(accumulate, size, train_size, plain_network):
    """Incl. a last group of one or two mini-batches: 7 = 3 * 2 + 1, 10 = 3 * 3 + 1, 11 = 3 * 3 + 2, 12 = 3 * 4."""
    config = tiny(train_size=train_size, crop_padding=0, epochs=3, batch_size=size, accumulate=accumulate, clip=0.5)
    splits = splits_of(config)
    engine = Engine(config, splits)
    whole = Engine(replace(config, batch_size=size * accumulate, accumulate=1), splits)
    assert engine.steps_per_epoch == whole.steps_per_epoch == len(whole.batches)
    train_all(engine)
    train_all(whole)
    assert engine.at.step == whole.at.step == engine.steps
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(engine.network.state_dict()[name], value, rtol=1e-10, atol=1e-12)


def test_the_gradient_is_clipped_to_its_norm_over_all_parameters(plain_network):
    """One step of SGD at rate 1 moves the parameters by the gradient itself."""
    still = SGD(learning_rate=1.0, momentum=0.0, weight_decay=0.0)
    config = tiny(optimizer=still, schedule=Step(milestones=()), batch_size=100)
    splits = splits_of(config)

    def moved(clip: float | None) -> float:
        engine = Engine(replace(config, clip=clip), splits)
        before = parameters(engine.network)
        engine.step(*next(engine.epoch()))
        after = parameters(engine.network)
        return math.sqrt(sum(float((after[name] - before[name]).square().sum()) for name in before))

    norm = moved(None)
    assert moved(norm / 10) == pytest.approx(norm / 10, rel=1e-4)
    assert moved(norm * 10) == norm


def test_mixed_precision_computes_in_bfloat16_and_keeps_weights_and_losses_in_float32(splits):
    engine = Engine(tiny(precision="bf16-mixed", method=MultiMix(tuples=20)), splits)
    seen: list[torch.dtype] = []
    handle = engine.network.get_submodule("head").register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    total, terms = engine.step(*next(engine.epoch()))
    handle.remove()
    assert set(seen) == {torch.bfloat16}
    assert (total.dtype, terms["labels"].dtype) == (torch.float32, torch.float32)
    assert {p.dtype for p in engine.network.parameters()} == {torch.float32}
    losses = train_all(engine)
    exact = train_all(Engine(tiny(method=MultiMix(tuples=20)), splits))
    assert losses[:3] == pytest.approx(exact[1:4], rel=0.05)
    assert losses[:3] != exact[1:4]


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
    ("method", "inner"),
    [
        (Learning(), lambda method: method),
        (SelfDistilled(Learning()), lambda method: method.method),
        (Alternate((Learning(),)), lambda method: method.methods[0]),
        (SelfDistilled(Until(Alternate((Learning(),)))), lambda method: method.method.method.methods[0]),
    ],
    ids=["alone", "distilled", "alternate", "deep inside"],
)
@pytest.mark.parametrize("optimizer", [SGD(learning_rate=0.05), AdamW()])
def test_what_a_method_learns_is_optimised_once_and_clipped(method, inner, optimizer, splits):
    engine = Engine(tiny(method=method, optimizer=optimizer, clip=1e-3), splits)
    scale = inner(engine.method).scale
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


def test_the_learning_rate_of_every_step_is_the_schedules(splits):
    config = tiny(schedule=Cosine(warmup_epochs=1), accumulate=2, optimizer=AdamW(learning_rate=0.2))
    engine = Engine(config, splits)
    used: list[set[float]] = []
    handle = engine.optimizer.optimizer.register_step_pre_hook(
        lambda optimizer, *_: used.append({group["lr"] for group in optimizer.param_groups})
    )
    train_all(engine)
    handle.remove()
    cosine = [0.1 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    assert all(len(rates) == 1 for rates in used)
    assert [rates.pop() for rates in used] == pytest.approx([cosine[0] / 2, cosine[1], cosine[2], cosine[3]])


def test_an_engine_that_loads_the_state_of_another_goes_on_as_it(splits):
    config = tiny(method=SelfDistilled(MultiMix(tuples=5)), ema=0.9, optimizer=AdamW())
    first = Engine(config, splits)
    for _, (inputs, labels) in zip(range(3), first.epoch(), strict=False):
        first.step(inputs, labels)
    state = copy.deepcopy(first.state())
    losses = train_all(first)
    second = Engine(config, splits)
    second.load(state)
    assert (second.at.epoch, second.at.batch, second.at.step, second.rate) == (
        0,
        3,
        3,
        pytest.approx(6.91e-4, rel=1e-3),
    )
    assert train_all(second) == losses
    assert_equal(parameters(second.network), parameters(first.network))
    assert_equal(parameters(second.ema), parameters(first.ema))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "other",
    [
        {"width": 3},
        {"strides": (1, 1, 2, 2), "model": "wide_resnet16_8", "width": 1},
        {"method": SelfDistilled(ERM())},
        {"optimizer": AdamW()},
        {"ema": 0.9},
    ],
    ids=lambda changes: ", ".join(changes),
)
def test_the_state_of_another_run_is_refused(other, splits):
    other = {"strides": (1, 2, 2, 2), **other}
    if other.get("model"):
        other["strides"] = (1, 2, 2)
    with pytest.raises(ValueError, match="the checkpoint belongs to another run: "):
        Engine(tiny(**other), splits).load(Engine(tiny(), splits).state())


def test_32_images_are_learned_by_heart():
    config = tiny(train_size=32, width=8, epochs=25, batch_size=16, crop_padding=0)
    engine = Engine(config, splits_of(config))
    losses = train_all(engine)
    assert losses[0] > 2.0
    assert sum(losses[-2:]) / 2 < 0.05


def test_a_last_mini_batch_of_one_image_is_left_out():
    """Batch normalisation cannot train on it; of a set of one image there is no other choice."""
    config = tiny(train_size=65)
    assert [len(labels) for _, labels in Engine(config, splits_of(config)).epoch()] == [32, 32]
    config = tiny(train_size=66)
    assert [len(labels) for _, labels in Engine(config, splits_of(config)).epoch()] == [32, 32, 2]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "tpu"}, "device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        ({"device": "cpu:1"}, "device must be auto, cpu, cuda or cuda:N, got 'cpu:1'"),
        ({"device": "cuda:one"}, "device must be auto, cpu, cuda or cuda:N, got 'cuda:one'"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not there: torch sees"),
        ({"precision": "16-mixed"}, "precision '16-mixed' needs a CUDA device"),
    ],
)
def test_devices_that_are_not_there_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_fabric(tiny(**changes))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": "preact_resnet19"},
            "name must be a known model, got 'preact_resnet19'; did you mean 'preact_resnet18'",
        ),
        ({"strides": (1, 2)}, "strides must hold 4 numbers"),
        ({"model": "timm:test_resnet"}, "width does not apply to 'timm:test_resnet'"),
        ({"batch_size": 100, "train_size": 3}, "train_size=3 does not fit"),
    ],
)
def test_models_and_data_that_do_not_fit_are_refused(changes, message):
    config = tiny(**changes)
    with pytest.raises(ValueError, match=message):
        Engine(config, splits_of(config))


@pytest.mark.parametrize("model", ["timm:test_resnet", "timm:test_vit"])
def test_models_of_any_size_and_of_one_size_are_built_for_the_images(model):
    """timm's small transformer is made for 160 pixels unless told; its small ResNet refuses to be told."""
    config = tiny(model=model, width=None, strides=None, image_size=32, train_size=20, batch_size=10, epochs=1)
    splits = splits_of(config)
    assert build_network(config, splits)(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    assert all(math.isfinite(loss) for loss in train_all(Engine(config, splits)))


def test_batches_of_the_tiny_run():
    """What the other tests count with."""
    assert len(Engine(tiny(), splits_of(tiny())).batches) == BATCHES
