"""Mixup with targets of the heavier example, and with weights by distance, against loops from their equations."""

import math

import pytest
import torch
from scipy import stats

import references
import toy
from methods.shared import same, state
from multimix.methods import KernelWarpingMixup, Mixup, MixupIO
from toy import seeded


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_only_inputs_are_mixed_and_the_heavier_gives_the_target(mode):
    inputs, targets = toy.batch(7, 3, 4, 4)
    heavier = set()
    for seed in range(6):
        pairs = Mixup(alpha=0.2, mode=mode).draw(None, inputs, targets, seeded(seed))
        mixed, rows = MixupIO(mode=mode).mix(inputs, targets, num_classes=5, generator=seeded(seed))
        assert torch.equal(mixed, pairs.mix(inputs))
        lams = pairs.lam.expand(7).tolist()
        wanted = [i if lam > 0.5 else j for i, (j, lam) in enumerate(zip(pairs.partners.tolist(), lams, strict=True))]
        assert torch.equal(rows, toy.one_hot(targets[wanted]))
        heavier |= {lam > 0.5 for lam in lams}
    assert heavier == {False, True}


@pytest.mark.parametrize("distance", ["embedding", "input"])
def test_concentrations_are_those_of_the_kernel(distance):
    network, (inputs, targets) = toy.images().double(), toy.batch(6, 3, 6, 6, dtype=torch.float64)
    method = KernelWarpingMixup(tau_max=0.7, tau_std=0.8, distance=distance)
    drawn = method.draw(network, inputs, targets, seeded())
    rows = references.rows(
        (network.eval().pool(network.embed(inputs)) if distance == "embedding" else inputs).flatten(1)
    )
    partners = drawn.partners.tolist()
    apart = [sum((a - b) ** 2 for a, b in zip(rows[i], rows[j], strict=True)) for i, j in enumerate(partners)]
    taus = [0.7 * math.exp(-(d / (sum(apart) / 6) - 1) / (2 * 0.8**2)) for d in apart]
    found = method.concentrations(method._compared(network, inputs), drawn.partners)
    torch.testing.assert_close(found, torch.tensor(taus, dtype=torch.float64))
    assert len(set(drawn.lam.tolist())) == 6


def test_lambda_has_the_distribution_of_its_pair():
    """Of half of the pairs the two are close, of the others far apart."""
    n = 4000
    inputs = torch.stack([torch.arange(2 * n) // 2 % 2 * 0.5, torch.arange(2 * n) % 2 * 1.0], 1)
    method = KernelWarpingMixup(tau_std=1.0, distance="input")
    drawn = method.draw(None, inputs, torch.zeros(2 * n, dtype=torch.long), seeded())
    taus = method.concentrations(inputs, drawn.partners)
    for tau in taus.unique():
        lam = drawn.lam[taus == tau].double().numpy()
        assert stats.kstest(lam, stats.beta(float(tau), float(tau)).cdf).pvalue > 1e-3
    assert len(taus.unique()) == 4


def test_the_look_at_the_network_leaves_it_as_it_was():
    network, (inputs, targets) = toy.images(norm=True).train(), toy.batch(7, 3, 6, 6)
    before = state(network)
    KernelWarpingMixup().mix(inputs, targets, num_classes=5, network=network, generator=seeded())
    assert same(state(network), before)


def test_pairs_that_are_all_alike_or_far_apart_are_mixed_all_the_same():
    alike, (apart, targets) = torch.ones(5, 8), toy.batch(5, 8)
    apart[0] *= 1e4
    for inputs in (alike, apart):
        method = KernelWarpingMixup(tau_std=0.01, distance="input")
        mixed, rows = method.mix(inputs, targets, num_classes=5, generator=seeded(1))
        assert mixed.isfinite().all()
        torch.testing.assert_close(rows.sum(1), torch.ones(5))


@pytest.mark.bad_input
def test_embeddings_need_a_network():
    data = toy.batch(7, 8)
    with pytest.raises(ValueError, match=r"^network must be given: KernelWarpingMixup mixes by what it makes"):
        KernelWarpingMixup().mix(*data, num_classes=5)
    with pytest.raises(TypeError, match=r"^network must be an adapted network"):
        KernelWarpingMixup().mix(*data, num_classes=5, network=torch.nn.Linear(8, 5))
    KernelWarpingMixup(distance="input").mix(*data, num_classes=5)
