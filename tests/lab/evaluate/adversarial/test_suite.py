"""The suite: its metrics are those of the public attacks, whatever the batches, and its figure and checks say more."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import toy
from listening import Kept
from multimix.lab.data import Images, Splits
from multimix.lab.evaluate import Normalised, Source
from multimix.lab.evaluate.adversarial import Adversarial, AdversarialSettings, fgsm, pgd
from multimix.lab.evaluate.adversarial import autoattack as module
from multimix.methods import ERM

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
QUICK = AdversarialSettings(
    fgsm_epsilon=0.06, pgd_epsilon=0.06, pgd_step=0.03, steps=3, curve=(0.0, 0.03, 0.06, 0.2), curve_examples=30
)
METRICS = [
    f"{attack}/{metric}"
    for attack in ("clean", "fgsm/linf", "fgsm/l2", "pgd/linf", "pgd/l2")
    for metric in ("accuracy", "loss")
] + ["pgd/linf/more_steps/accuracy", "pgd/linf/unbounded/accuracy"]


class Unnormalising(nn.Module):
    """Takes normalised inputs to a network of pixels."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.mean, self.std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs * self.std + self.mean)


def parts(pixels: Tensor, labels: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(pixels.split(size), labels.split(size), strict=True))


def suite(trained, size: int = 60, settings: AdversarialSettings = QUICK) -> Adversarial:
    return Adversarial(parts(trained.pixels, trained.labels, size), MEAN, STD, settings)


def test_metrics_are_those_of_the_attacks(trained):
    network = Unnormalising(trained.network)
    found = dict(suite(trained)(network))
    assert list(found) == METRICS
    assert all(math.isfinite(value) for value in found.values())
    inside, pixels, labels = Normalised(network, MEAN, STD), trained.pixels, trained.labels
    linf = {"epsilon": 0.06, "step": 0.03}
    attacked = {
        "clean": pixels,
        "fgsm/linf": fgsm(inside, pixels, labels, epsilon=0.06),
        "fgsm/l2": fgsm(inside, pixels, labels, epsilon=0.5, norm="l2"),
        "pgd/linf": pgd(inside, pixels, labels, **linf, steps=3),
        "pgd/l2": pgd(inside, pixels, labels, epsilon=0.5, step=0.05, steps=3, norm="l2"),
        "pgd/linf/more_steps": pgd(inside, pixels, labels, **linf, steps=15),
        "pgd/linf/unbounded": pgd(inside, pixels, labels, epsilon=1, step=0.03, steps=15, random_start=False),
    }
    with torch.no_grad():
        for name, images in attacked.items():
            logits = inside(images)
            assert found[f"{name}/accuracy"] == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
            if f"{name}/loss" in found:
                assert found[f"{name}/loss"] == pytest.approx(float(cross_entropy(logits, labels)), rel=1e-4)
    assert found["pgd/linf/accuracy"] <= found["fgsm/linf/accuracy"] < found["clean/accuracy"]
    assert found["pgd/linf/unbounded/accuracy"] == 0
    assert 0 < found["pgd/linf/more_steps/accuracy"] <= found["pgd/linf/accuracy"]


def test_the_curve_falls_from_clean_and_passes_the_suites_own_epsilon(trained):
    monitor = Kept()
    found = dict(suite(trained)(trained.network, monitor))
    curve = monitor.figures["epsilon_curve"]
    assert list(monitor.figures) == ["epsilon_curve"]
    assert {key: curve[key] for key in ("norm", "attack", "epsilon", "examples")} == {
        "norm": "linf",
        "attack": "pgd",
        "epsilon": [0.0, 0.03, 0.06, 0.2],
        "examples": 60,
    }
    assert curve["accuracy"] == sorted(curve["accuracy"], reverse=True)
    assert curve["accuracy"][0] == found["clean/accuracy"]
    assert curve["accuracy"][2] == found["pgd/linf/accuracy"]
    assert curve["accuracy"][3] == 0
    assert monitor.passes == [
        *dict.fromkeys(name.rpartition("/")[0] for name in METRICS),
        *(f"pgd/linf, epsilon {value * 255:.3g}/255" for value in (0.0, 0.03, 0.06, 0.2)),
    ]


@pytest.mark.parametrize("size", [1, 7])
def test_the_batch_size_does_not_matter(trained, size):
    network = trained.network.double()  # where nothing hangs on rounding
    try:
        pixels = trained.pixels[:9].double()
        found = []
        for batch in (9, size):
            monitor = Kept()
            whole = Adversarial(parts(pixels, trained.labels[:9], batch), (0.0,) * 3, (1.0,) * 3, QUICK)
            found.append((dict(whole(network, monitor)), monitor.figures))
    finally:
        trained.network.float()
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-9)
    assert found[1][1] == found[0][1]


def test_masked_gradients_show(trained):
    """A network that rounds its pixels passes on no gradient: PGD from its image fails however far it may go."""

    class Rounding(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            rounded = (pixels * 8).round() / 8
            return trained.network(rounded + 0 * pixels)

    found = dict(Adversarial(parts(trained.pixels, trained.labels, 60), (0.0,) * 3, (1.0,) * 3, QUICK)(Rounding()))
    assert found["pgd/linf/unbounded/accuracy"] == found["clean/accuracy"] > 0.9


@pytest.fixture
def source() -> Source:
    generator = torch.Generator().manual_seed(0)

    def part(size: int) -> Images:
        pixels = torch.randint(256, (size, 3, 8, 8), generator=generator, dtype=torch.uint8)
        return Images(pixels, torch.arange(size) % 5, tuple("abcde"))

    return Source(Splits("made", part(20), None, part(40), MEAN, STD), ERM(), torch.device("cpu"), batch_size=16)


def test_it_is_made_of_a_runs_test_set(source):
    settings = AdversarialSettings(steps=1, curve_examples=10)
    made = Adversarial.of(source, settings)
    pixels = torch.cat([batch for batch, _ in made.batches])
    assert torch.equal((pixels * 255).round(), source.splits.test.images.float())
    assert (made.mean, made.std, made.settings) == (MEAN, STD, settings)
    assert torch.cat([labels for _, labels in made.few]).bincount().tolist() == [2] * 5
    monitor = Kept()
    dict(made(toy.images(), monitor))
    assert monitor.figures["epsilon_curve"]["examples"] == 10
    assert monitor.figures["epsilon_curve"]["epsilon"] == [0, 1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255]
    # There are not a thousand images, and fewer still are wanted.
    few = Adversarial.of(source, AdversarialSettings(examples=15))
    assert [sum(len(labels) for _, labels in batches) for batches in (few.batches, few.few)] == [15, 15]


def test_no_curve_on_request(trained):
    monitor = Kept()
    settings = AdversarialSettings(steps=1, curve=())
    dict(suite(trained, settings=settings)(trained.network, monitor))
    assert monitor.figures == {}


def test_the_paper_is_the_default():
    of = AdversarialSettings()
    assert (of.fgsm_epsilon, of.pgd_epsilon, of.pgd_step) == (8 / 255, 4 / 255, 2 / 255)
    assert (of.steps, of.restarts, of.random_start, of.autoattack) == (20, 1, True, False)
    assert {type(getattr(of, f.name)) for f in fields(of)} <= {int, float, bool, tuple, type(None)}


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_norm_alone_is_what_it_is_beside_the_other(trained, norm):
    both, notes = dict(suite(trained)(trained.network)), Kept()
    alone = dict(suite(trained, settings=replace(QUICK, norms=(norm,)))(trained.network, notes))
    wanted = [name for name in METRICS if name.split("/")[1] == norm or name.startswith("clean/")]
    assert alone == {name: both[name] for name in wanted}
    assert list(notes.figures) == ["epsilon_curve"] * (norm == "linf")


BAD = {
    "norms must hold values that each must be one of linf, l2": {"norms": ("linf", "l1")},
    "norms must be at least one, each once, got none": {"norms": ()},
    "autoattack needs linf among norms": {"norms": ("l2",), "autoattack": True},
    "fgsm_epsilon must be above 0 and finite, got 0": {"fgsm_epsilon": 0},
    "pgd_epsilon must be": {"pgd_epsilon": -1},
    "pgd_step must be": {"pgd_step": float("inf")},
    "l2_epsilon must be": {"l2_epsilon": float("nan")},
    "l2_step must be": {"l2_step": 0.0},
    "steps must be at least 1, got 0": {"steps": 0},
    "restarts must be at least 1": {"restarts": 0},
    "restarts must be 1 where no start is random, got 2": {"restarts": 2, "random_start": False},
    "curve must hold values that each must be at least 0 and finite": {"curve": (0.0, -0.1)},
    "curve_examples must be at least 1": {"curve_examples": 0},
    "autoattack_examples must be at least 1": {"autoattack_examples": 0},
    "autoattack_batch_size must be at least 1": {"autoattack_batch_size": 0},
    "examples must be at least 1": {"examples": 0},
}


@pytest.mark.bad_input
@pytest.mark.parametrize("message", BAD)
def test_impossible_settings_are_refused(message):
    with pytest.raises(ValueError, match=message):
        AdversarialSettings(**BAD[message])


@pytest.mark.bad_input
def test_what_does_not_fit_the_data_is_refused(source, trained, monkeypatch):
    with pytest.raises(ValueError, match="curve_examples=3 does not fit"):
        Adversarial.of(source, AdversarialSettings(curve_examples=3))
    with pytest.raises(ValueError, match="batches must hold at least one batch, got none"):
        dict(Adversarial([], MEAN, STD)(trained.network))
    with pytest.raises(ValueError, match="autoattack needs at least 4 classes, as its losses do, got 3"):
        module.require_classes(3)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install pyautoattack"):
        Adversarial.of(source, AdversarialSettings(autoattack=True))
