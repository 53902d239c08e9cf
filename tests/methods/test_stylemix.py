"""StyleMix and StyleCutMix against float64 loops, what they draw, and the styles of classes."""

import math

import pytest
import torch
from scipy import stats
from torch.nn import functional

import references
import toy
from methods.shared import problem, seeded
from methods.stylemix_reference import (
    BOTH,
    always,
    channel,
    slow_adain,
    slow_cut,
    slow_four_way,
    with_nothing,
)
from multimix.methods._adain import ClassStyles
from multimix.methods._predict import InputMixing
from multimix.methods.stylemix import StyleCutMix, StyleMix
from multimix.ops import Box, exchange_styles, mix_styles, paste_styles


@pytest.mark.parametrize(("rc", "rs", "t"), [(0.3, 0.6, 0.2), (0.9, 0.8, 0.75), (1, 1, 1), (0, 0, 0), (1, 0, 0)])
def test_four_terms_are_the_loop(rc, rs, t):
    features, partners = toy.batch(4, 3, 3, 5, dtype=torch.float64)[0] * 2 + 1, torch.tensor([2, 1, 3, 0])
    features[0, 1] = -1.0
    ours = mix_styles(features, partners, *(torch.tensor(v, dtype=torch.float64) for v in (rc, rs, t)))
    torch.testing.assert_close(ours, slow_four_way(features, partners, rc, rs, t), rtol=1e-9, atol=1e-9)


def test_exchanged_styles_are_the_loop():
    features, partners = toy.batch(3, 2, 4, 3, dtype=torch.float64)[0], torch.tensor([1, 2, 0])
    expected = [slow_adain(features, features[partners]), slow_adain(features[partners], features)]
    torch.testing.assert_close(exchange_styles(features, partners), torch.cat(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gamma", [torch.tensor(0.3), torch.tensor([0.0, 1.0, 0.6])])
@pytest.mark.parametrize("box", [Box(1, 3, 0, 4), Box(0, 4, 0, 5), Box(2, 2, 1, 1)])
def test_pasted_styles_are_the_four_shares_of_each_pixel(box, gamma):
    images, partners = toy.batch(3, 3, 4, 5, dtype=torch.float64)[0], torch.tensor([1, 2, 0])
    gamma = gamma.double()
    ours = paste_styles(images, exchange_styles(images, partners), partners, box, torch.tensor(0.35).double(), gamma)
    expected = slow_cut(images, partners, lambda x: x, box, float(torch.tensor(0.35)), gamma)
    torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("b", [1, 2, 5])
def test_stylemix_equals_the_loop(b, soft):
    network, inputs, given, probabilities = problem(b, 4, 5, soft=soft)
    method = with_nothing(StyleMix)
    drawn = method.draw(network, inputs, given, seeded())
    rc, rs, t = (float(drawn.given[name]) for name in ("content", "style", "both"))
    mixed = slow_four_way(inputs, drawn.partners, rc, rs, t)
    wanted = references.pairs(probabilities, drawn.partners, 0.7 * rc + 0.3 * rs)
    truth = references.soft_cross_entropy(network(mixed), wanted)
    ours = method(network, inputs, given, generator=seeded()).total
    torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("gamma", ["beta", "auto", 0.25])
def test_stylecutmix_equals_the_loop(gamma, soft):
    network, inputs, given, probabilities = problem(5, 4, 5, soft=soft)
    method = with_nothing(StyleCutMix, gamma=gamma).eval()
    if gamma == "auto":
        method.styles.see([inputs.float()], given)
    drawn = method.draw(network, inputs, given, seeded(2))
    rs, blend = float(drawn.given["style"]), drawn.given["gamma"].double().expand(5)
    mixed = slow_cut(inputs, drawn.partners, lambda x: x, drawn.given["box"], rs, blend)
    top, bottom, left, right = drawn.given["box"]
    area = (bottom - top) * (right - left) / 20
    rows = []
    for i, p in enumerate(drawn.partners.tolist()):
        lam = 0.7 * area + 0.3 * (float(blend[i]) * area + (1 - float(blend[i])) * rs)
        rows.append(lam * probabilities[i] + (1 - lam) * probabilities[p])
    truth = references.soft_cross_entropy(network(mixed), torch.stack(rows))
    ours = method(network, inputs, given, generator=seeded(2)).total
    torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-6)


def test_shares_are_drawn_as_the_paper_says():
    method, generator, inputs = always(StyleMix), seeded(1), torch.zeros(4, 3, 2, 2)
    drawn = [method.draw(None, inputs, None, generator) for _ in range(500)]
    rc, rs, t = (torch.stack([d.given[name] for d in drawn]).double() for name in ("content", "style", "both"))
    for share in (rc, rs):
        assert stats.kstest(share.numpy(), stats.beta(0.5, 0.5).cdf).pvalue > 1e-3
    assert abs(stats.spearmanr(rc, rs).statistic) < 0.15
    low, high = (rc + rs - 1).clamp(min=0), torch.minimum(rc, rs)
    assert bool(((t >= low - 1e-6) & (t <= high + 1e-6)).all())
    wide = high - low > 1e-3
    assert stats.kstest(((t - low) / (high - low))[wide].numpy(), "uniform").pvalue > 1e-3
    first = torch.bincount(torch.stack([d.partners[0] for d in drawn]), minlength=4)
    assert stats.chisquare(first.numpy()).pvalue > 1e-3


def test_box_style_and_gamma_are_drawn_as_the_code_does():
    method, generator, inputs = always(StyleCutMix), seeded(1), torch.zeros(2, 3, 64, 64)
    drawn = [method.draw(None, inputs, None, generator) for _ in range(500)]
    assert stats.kstest([float(d.given["style"]) for d in drawn], stats.beta(1, 1).cdf).pvalue > 1e-3
    assert stats.kstest([float(d.given["gamma"]) for d in drawn], stats.beta(0.8, 0.8).cdf).pvalue > 1e-3
    boxes = [d.given["box"] for d in drawn]
    unclipped = [box for box in boxes if min(box.top, box.left) > 0 and max(box.bottom, box.right) < 64]
    assert len(unclipped) > 50
    assert all(abs((b.bottom - b.top) - (b.right - b.left)) == 0 for b in unclipped)


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("probability", [0.0, None, 1.0])
def test_the_other_steps_are_plain(cls, probability):
    method = cls(learning_rate=0.0) if probability is None else cls(learning_rate=0.0, prob=probability)
    expected = {StyleMix: 0.2, StyleCutMix: 0.5}[cls] if probability is None else probability
    generator, inputs = seeded(3), torch.zeros(2, 3, 2, 2)
    plain = sum(type(method.draw(None, inputs, None, generator)) is InputMixing for _ in range(600))
    assert plain / 600 == pytest.approx(1 - expected, abs=4 * math.sqrt(expected * (1 - expected) / 600))
    if probability == 0.0:
        network, (inputs, targets) = toy.images().eval(), toy.batch(5, 3, 6, 6)
        total = method(network, inputs, targets, generator=seeded()).total
        torch.testing.assert_close(total, functional.cross_entropy(network(inputs), targets))


def test_class_styles_are_means_of_statistics():
    first, targets = toy.batch(6, 2, 3, 3, dtype=torch.float32)
    second, more = toy.batch(5, 2, 3, 3, seed=1)
    styles = ClassStyles()
    styles.see([first, 2 * first], targets)
    styles.see([second, 2 * second], more)
    rows = {k: [] for k in range(5)}
    for images, labels in ((first, targets), (second, more)):
        for image, label in zip(images, labels.tolist(), strict=True):
            maps = [channel(image[c].flatten().tolist()) for c in range(2)]
            twice = [channel((2 * image[c]).flatten().tolist()) for c in range(2)]
            rows[label].append(
                [m for m, _ in maps] + [s for _, s in maps] + [m for m, _ in twice] + [s for _, s in twice]
            )
    for label, seen in rows.items():
        if seen:
            torch.testing.assert_close(styles.means[label], torch.tensor(seen).mean(0), rtol=1e-4, atol=1e-5)
    partners = torch.tensor([1, 2, 3, 4, 5, 0])
    for i, distance in enumerate(styles.distances(targets, partners).tolist()):
        a, b = int(targets[i]), int(targets[partners[i]])
        difference = torch.tensor(rows[a]).mean(0) - torch.tensor(rows[b]).mean(0)
        assert distance == pytest.approx(2.0 if a == b else float((difference**2).mean()), rel=1e-3, abs=1e-5)
    torch.testing.assert_close(styles.distances(toy.one_hot(targets), partners), styles.distances(targets, partners))


def test_distances_of_the_small_autoencoder_are_brought_to_scale():
    """The mean over all pairs of classes that were seen is that of the official matrix; class 2 is missing."""
    inputs, targets = toy.batch(12, 3, 6, 6)[0], torch.tensor([0, 1, 3, 4] * 3)
    method, raw = always(StyleCutMix, gamma="auto"), ClassStyles()
    method.draw(None, inputs, targets, seeded())
    raw.see(method.autoencoder.encode(inputs), targets)
    pairs = torch.combinations(torch.tensor([0, 1, 3, 4])).flatten()
    partners = torch.arange(12).view(-1, 2).flip(1).flatten()
    scaled, plain = (styles.distances(pairs, partners) for styles in (method.styles, raw))
    torch.testing.assert_close(scaled, plain * 1.37 / plain.mean())


def test_auto_gamma_is_tanh_of_the_distance():
    inputs, targets = torch.zeros(2, 3, 4, 4), torch.tensor([0, 1])
    inputs[1] = 6.0  # constant images: the means differ by 6, the deviations by nothing
    method = with_nothing(StyleCutMix, gamma="auto")
    for seed in range(8):
        drawn = method.draw(None, inputs, targets, seeded(seed))
        distance = 2.0 if int(drawn.partners[0]) == 0 else (3 * 36) / 6
        torch.testing.assert_close(drawn.given["gamma"], torch.full((2,), math.tanh(distance / 3)))


def test_a_checkpoint_holds_decoder_and_styles():
    inputs, targets = toy.batch(5, 3, 6, 6)
    network = toy.images().eval()
    method = StyleCutMix(prob=1.0, gamma="auto", warmup=3)
    method(network, inputs, targets, generator=seeded())
    twin = StyleCutMix(prob=1.0, gamma="auto", warmup=3)
    twin.prepare(network)
    twin.load_state_dict(method.state_dict())
    for _ in range(2):
        ours, theirs = (m(network, inputs, targets, generator=seeded(1)).total for m in (method, twin))
        assert torch.equal(ours, theirs)
    assert float(twin.autoencoder.steps) == 6
