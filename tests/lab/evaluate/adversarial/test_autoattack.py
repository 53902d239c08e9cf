"""AutoAttack, the package's own code, through our batches: no weaker than PGD, inside its ball, without traces."""

import logging
import sys

import pytest
import torch

import toy
from multimix.lab.evaluate.adversarial import Adversarial, AdversarialSettings, pgd
from multimix.lab.evaluate.adversarial.autoattack import ATTACKS, _undisturbed, autoattack

pytest.importorskip("pyautoattack")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A few steps of each attack instead of hundreds."""
    from pyautoattack import AutoAttack

    original = AutoAttack.__init__

    def shorter(self, *args, **options):
        original(self, *args, **options)
        self.apgd.n_iter = self.apgd_targeted.n_iter = 10
        self.fab.n_iter = 5
        self.square.n_queries = 30

    monkeypatch.setattr(AutoAttack, "__init__", shorter)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.04), ("l2", 0.4)])
def test_it_is_at_least_as_strong_as_pgd_and_stays_inside(trained, norm, epsilon):
    network, pixels, labels = trained
    batches = list(zip(pixels.split(17), labels.split(17), strict=True))
    found, fooled = autoattack(network, batches, epsilon=epsilon, norm=norm, batch_size=13)
    weaker = pgd(network, pixels, labels, epsilon=epsilon, step=epsilon / 4, steps=10, norm=norm)
    with torch.no_grad():
        assert torch.equal(network(found).argmax(1) != labels, fooled)
        by_pgd = int((network(weaker).argmax(1) != labels).sum())
    assert 5 < by_pgd <= int(fooled.sum()) + 1
    assert int(fooled.sum()) < 60
    change = (found - pixels).flatten(1)
    reach = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert reach.max() <= epsilon * (1 + 1e-5)
    assert found.min() >= 0
    assert found.max() <= 1
    # What resists is given back as it was.
    assert torch.equal(found[~fooled], pixels[~fooled])


def test_the_loaders_batches_do_not_matter_and_nothing_is_left_behind(trained):
    network, pixels, labels = trained
    few, kinds = pixels[:8], labels[:8]
    network.train()
    network.classifier.bias.requires_grad_(False)
    state = torch.get_rng_state()
    results = []
    for size in (1, 5, 8):
        layout = few.contiguous(memory_format=torch.channels_last)
        batches = list(zip(layout.split(size), kinds.split(size), strict=True))
        results.append(autoattack(network, batches, epsilon=0.04, batch_size=5))
    assert all(torch.equal(fooled, results[0][1]) for _, fooled in results)
    assert torch.equal(torch.get_rng_state(), state)
    assert not logging.getLogger("auto-attack").disabled
    assert all(p.grad is None for p in network.parameters())
    assert all(module.training for module in network.modules())
    assert [p for p in network.parameters() if not p.requires_grad] == [network.classifier.bias]
    network.eval()
    network.requires_grad_(True)


def test_a_trace_function_comes_back():
    """The package takes debuggers' and coverage's away."""

    def trace(*_):
        return None

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        with _undisturbed(torch.device("cpu")):
            sys.settrace(None)
        found = sys.gettrace()
    finally:
        sys.settrace(before)
    assert found is trace


def test_a_single_image_and_four_classes_work():
    network = toy.images(classes=4).eval()
    pixels, labels = torch.rand(1, 3, 8, 8), torch.tensor([0])
    with torch.no_grad():
        labels = network(pixels).argmax(1)
    found, fooled = autoattack(network, [(pixels, labels)], epsilon=1.0)
    assert (found.shape, fooled.shape) == (pixels.shape, labels.shape)


def test_the_suite_says_its_accuracy(trained):
    batches = list(zip(trained.pixels[:30].split(10), trained.labels[:30].split(10), strict=True))
    settings = AdversarialSettings(pgd_epsilon=0.04, pgd_step=0.01, steps=5, curve=(), autoattack=True)
    passes = []

    class Notes:
        def track(self, what, items):
            passes.append(what)
            return iter(items)

    found = dict(Adversarial(batches, (0.0,) * 3, (1.0,) * 3, settings)(trained.network, Notes()))
    assert list(found)[-1] == "autoattack/linf/accuracy"
    assert found["autoattack/linf/accuracy"] <= found["pgd/linf/accuracy"] + 1 / 30
    assert passes[-5:] == ["AutoAttack, clean", *(f"AutoAttack, {name}" for name in ATTACKS)]


@pytest.mark.bad_input
def test_too_few_classes_or_images_are_refused():
    network = toy.images(classes=3)
    with pytest.raises(ValueError, match="at least 4 classes"):
        autoattack(network, [(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))], epsilon=0.1)
    with pytest.raises(ValueError, match="at least one batch"):
        autoattack(network, [], epsilon=0.1)
