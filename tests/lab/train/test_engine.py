"""The engine against a training loop written by hand, step by step."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

import toy
from multimix.distill import SelfDistilled
from multimix.lab.data import Augment, Batches, Splits, identity
from multimix.lab.train import SGD, AdamW, Cosine, Engine, Step, TrainConfig, load_network, train
from multimix.lab.train.engine import build_network
from multimix.lab.train.parallel import make_fabric
from multimix.methods import ERM, MultiMix
from multimix.models import build
from multimix.protocols import Network
from train.tiny import Doubled, assert_equal, events, in_double, parameters, splits_of, tiny, train_all


@pytest.fixture(scope="module")
def splits():
    return splits_of(tiny())


@pytest.fixture
def plain_network(monkeypatch) -> None:
    """Let the engine train a perceptron in float64, without batch normalisation: mini-batches simply add up."""

    def make(*_: Any) -> nn.Module:
        hidden = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh())
        return toy.Toy(Doubled(), hidden, width=12, classes=10).double()

    monkeypatch.setattr("multimix.lab.train.engine.build_network", make)


def by_hand(config: TrainConfig, splits, losses_of: Callable[..., Tensor]) -> tuple[nn.Module, list[float]]:
    """Train in plain PyTorch with SGD and a cosine from the first step to the last."""
    torch.manual_seed(config.seed)
    network = build("preact_resnet18", num_classes=10, in_channels=1, width=2, strides=(1, 2, 2, 2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True)
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
        ({"device": "cuda:one"}, "device must be auto, cpu, cuda or cuda:N, got 'cuda:one'"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not there: torch sees"),
        ({"precision": "16-mixed"}, "precision '16-mixed' needs a CUDA device"),
    ],
)
def test_devices_that_are_not_there_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_fabric(tiny(**changes))


@pytest.mark.parametrize("model", ["timm:test_resnet", "timm:test_vit"])
def test_models_of_any_size_and_of_one_size_are_built_for_the_images(model):
    """timm's small transformer is made for 160 pixels unless told; its small ResNet refuses to be told."""
    config = tiny(model=model, width=None, strides=None, image_size=32)
    assert build_network(config, splits_of(config))(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(("every", "seen"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])])
def test_validation_is_looked_at_every_so_often_and_in_the_end(tmp_path, every, seen):
    train(tiny(epochs=5, validate_every=every), tmp_path / "run", quiet=True)
    found = events(tmp_path / "run", "epoch")
    assert [record["epoch"] for record in found if "validation_accuracy" in record] == seen
    assert len(found) == 5


class Guarded:
    """A test set of which nobody may look at more than how large it is, and its digest."""

    def __init__(self, test):
        self.size, self.origin = len(test), identity(Splits("", test, None, test, (), ()))["test"]["digest"]

    def __len__(self):
        return self.size

    def __getattr__(self, name: str):
        raise AssertionError(f"the test set was asked for its {name}")


def test_a_trial_leaves_the_test_set_alone(tmp_path):
    config = tiny(test=False)
    splits = splits_of(config)
    train(config, tmp_path / "run", quiet=True, splits=replace(splits, test=Guarded(splits.test)))
    assert events(tmp_path / "run", "test") == []
    assert events(tmp_path / "run")[-1]["event"] == "end"
    assert load_network(tmp_path / "run")


def test_channels_last_changes_the_layout_and_nothing_else():
    splits = splits_of(tiny())
    with in_double():
        plain, last = (Engine(tiny(width=8, channels_last=value), splits) for value in (False, True))
    filters = dict(last.network.named_parameters())["group2.0.conv2.weight"]
    assert filters.is_contiguous(memory_format=torch.channels_last)
    assert train_all(last) == pytest.approx(train_all(plain), rel=1e-10)


@pytest.mark.bad_input
def test_channels_last_is_refused_where_torch_would_write_outside_its_memory():
    with pytest.raises(ValueError, match=r"needs at least 8 channels .* got 2 into group2\.0\.shortcut"):
        Engine(tiny(channels_last=True), splits_of(tiny()))
