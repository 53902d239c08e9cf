"""The adversarial suite: its metrics are those of the public attacks, whatever the batches; and AutoAttack."""

import logging
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import toy
from evaluate.made import MEAN, STD, batches, source
from listening import Kept
from multimix.lab.evaluate import Normalised
from multimix.lab.evaluate.adversarial import Adversarial, AdversarialSettings, autoattack, fgsm, pgd
from multimix.lab.evaluate.adversarial.suite import ATTACKS, _undisturbed

QUICK = AdversarialSettings(
    fgsm_epsilon=0.06, pgd_epsilon=0.06, pgd_step=0.03, steps=3, curve=(0.0, 0.03, 0.06, 0.2), curve_examples=30
)
ATTACKED = ("clean", "fgsm/linf", "fgsm/l2", "pgd/linf", "pgd/l2")
METRICS = [f"{attack}/{metric}" for attack in ATTACKED for metric in ("accuracy", "loss")]
METRICS += ["pgd/linf/more_steps/accuracy", "pgd/linf/unbounded/accuracy"]


def unnormalising(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """What takes normalised inputs to a network of pixels."""
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    return lambda inputs: network(inputs * std + mean)


def suite(trained, size: int = 60, settings: AdversarialSettings = QUICK) -> Adversarial:
    return Adversarial(batches(trained.pixels, trained.labels, size), MEAN, STD, settings)


def test_metrics_are_those_of_the_attacks_and_the_curve_passes_the_suites_own_epsilon(trained):
    network, monitor = unnormalising(trained.network), Kept()
    found = dict(suite(trained)(network, monitor))
    assert list(found) == METRICS
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
    curve = monitor.figures["epsilon_curve"]
    accuracies = curve.pop("accuracy")
    about = {"norm": "linf", "attack": "pgd", "epsilon": [0.0, 0.03, 0.06, 0.2], "examples": 60}
    assert monitor.figures == {"epsilon_curve": about}
    assert accuracies == [found["clean/accuracy"], accuracies[1], found["pgd/linf/accuracy"], 0]
    assert accuracies[0] >= accuracies[1] >= accuracies[2]
    assert monitor.passes == [
        *dict.fromkeys(name.rpartition("/")[0] for name in METRICS),
        *(f"pgd/linf, epsilon {value * 255:.3g}/255" for value in (0.0, 0.03, 0.06, 0.2)),
    ]


def test_it_is_made_of_a_runs_test_set():
    run, settings = source(), AdversarialSettings(steps=1, curve_examples=10)
    made = Adversarial.of(run, settings)
    torch.testing.assert_close(torch.cat([pixels for pixels, _ in made.batches]), run.splits.test.images / 255)
    assert (made.mean, made.std, made.settings) == (MEAN, STD, settings)
    assert torch.cat([labels for _, labels in made.few]).bincount().tolist() == [2] * 5
    # There are not five hundred images, and fewer still are wanted.
    few = Adversarial.of(run, AdversarialSettings(examples=15))
    assert [sum(len(labels) for _, labels in batches) for batches in (few.batches, few.few)] == [15, 15]
    with pytest.raises(ValueError, match="curve_examples=3 must be at least 5, one for each class"):
        Adversarial.of(run, AdversarialSettings(curve_examples=3))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_norm_alone_is_what_it_is_beside_the_other(trained, norm):
    both, notes = dict(suite(trained)(trained.network)), Kept()
    alone = dict(suite(trained, settings=replace(QUICK, norms=(norm,)))(trained.network, notes))
    wanted = [name for name in METRICS if name.split("/")[1] == norm or name.startswith("clean/")]
    assert alone == {name: both[name] for name in wanted}
    assert list(notes.figures) == ["epsilon_curve"] * (norm == "linf")


@pytest.fixture
def quick(monkeypatch) -> None:
    """A few steps of each attack instead of hundreds."""
    tool = pytest.importorskip("pyautoattack").AutoAttack
    original = tool.__init__

    def shorter(self, *args, **options):
        original(self, *args, **options)
        self.apgd.n_iter = self.apgd_targeted.n_iter = 10
        self.fab.n_iter = 5
        self.square.n_queries = 30

    monkeypatch.setattr(tool, "__init__", shorter)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.04), ("l2", 0.4)])
def test_it_is_at_least_as_strong_as_pgd_and_stays_inside(trained, norm, epsilon):
    network, pixels, labels = trained
    served = batches(pixels, labels, 17)
    found, fooled = autoattack(network, served, epsilon=epsilon, norm=norm, batch_size=13)
    weaker = pgd(network, pixels, labels, epsilon=epsilon, step=epsilon / 4, steps=10, norm=norm)
    with torch.no_grad():
        assert torch.equal(network(found).argmax(1) != labels, fooled)
        by_pgd = int((network(weaker).argmax(1) != labels).sum())
    assert 5 < by_pgd <= int(fooled.sum()) + 1
    assert int(fooled.sum()) < 60
    reach = (found - pixels).flatten(1).norm(float("inf") if norm == "linf" else 2, dim=1)
    assert reach.max() <= epsilon * (1 + 1e-5)
    assert 0 <= found.min() <= found.max() <= 1
    assert torch.equal(found[~fooled], pixels[~fooled])  # what resists is given back as it was


@pytest.mark.usefixtures("quick")
def test_the_loaders_batches_do_not_matter_and_nothing_is_left_behind(trained):
    network, pixels, labels = trained
    few, kinds = pixels[:8], labels[:8]
    network.train()
    network.classifier.bias.requires_grad_(False)
    state = torch.get_rng_state()
    layout = few.contiguous(memory_format=torch.channels_last)
    found = [autoattack(network, batches(layout, kinds, size), epsilon=0.04, batch_size=5)[1] for size in (1, 5, 8)]
    assert all(torch.equal(fooled, found[0]) for fooled in found)
    assert torch.equal(torch.get_rng_state(), state)
    assert not logging.getLogger("auto-attack").disabled
    assert all(p.grad is None for p in network.parameters())
    assert all(module.training for module in network.modules())
    assert [p for p in network.parameters() if not p.requires_grad] == [network.classifier.bias]
    network.eval()
    network.requires_grad_(True)


def test_a_trace_function_comes_back():
    """The package takes debuggers' and coverage's away."""
    before = sys.gettrace()
    sys.settrace(trace := lambda *_: None)
    with _undisturbed(toy.images(), torch.device("cpu")):
        sys.settrace(None)
    found = sys.gettrace()
    sys.settrace(before)
    assert found is trace


@pytest.mark.usefixtures("quick")
def test_a_single_image_and_four_classes_work():
    network = toy.images(classes=4).eval()
    pixels = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        labels = network(pixels).argmax(1)
    found, fooled = autoattack(network, [(pixels, labels)], epsilon=1.0)
    assert (found.shape, fooled.shape) == (pixels.shape, labels.shape)


@pytest.mark.usefixtures("quick")
def test_the_suite_says_its_accuracy(trained):
    served = batches(trained.pixels[:30], trained.labels[:30], 10)
    settings = AdversarialSettings(pgd_epsilon=0.04, pgd_step=0.01, steps=5, curve=(), autoattack=True)
    monitor = Kept()
    found = dict(Adversarial(served, (0.0,) * 3, (1.0,) * 3, settings)(trained.network, monitor))
    assert list(found)[-1] == "autoattack/linf/accuracy"
    assert monitor.figures == {}  # no curve on request
    assert found["autoattack/linf/accuracy"] <= found["pgd/linf/accuracy"] + 1 / 30
    assert monitor.passes[-5:] == ["AutoAttack, clean", *(f"AutoAttack, {name}" for name in ATTACKS)]


@pytest.mark.usefixtures("quick")
@pytest.mark.bad_input
def test_too_few_classes_are_refused():
    with pytest.raises(ValueError, match="at least 4 classes"):
        autoattack(toy.images(classes=3), [(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))], epsilon=0.1)


@pytest.mark.bad_input
def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install pyautoattack"):
        Adversarial.of(source(), AdversarialSettings(autoattack=True))
    with pytest.raises(ValueError, match=r"pip install pyautoattack"):
        autoattack(toy.images(), [(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))], epsilon=0.1)
