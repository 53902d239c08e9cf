"""What is drawn at random: on the simplex, in range, in the image, and the same from the same generator."""

import math

import pytest
import torch
from hypothesis import strategies as st

import references
from fuzz.strategies import close, generator, gradient, largest, law, on_simplex, tensors
from multimix import ops

concentrations = st.one_of(st.sampled_from([1e-30, 1e-6, 0.2499, 0.25, 1.0, 2.0, 1e6, 1e30]), st.floats(1e-3, 50))
pixels = st.integers(1, 40)


@law(
    *("dirichlet", "check_concentration", "beta"),
    examples=60,
    m=pixels,
    alpha=concentrations,
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
def test_weights_lie_on_the_simplex_and_lambdas_between_0_and_1(n, m, alpha, seed, dtype):
    ops.check_concentration("alpha", alpha)
    found = ops.dirichlet(n, m, alpha, generator=generator(seed), dtype=dtype)
    assert (found.shape, found.dtype) == ((n, m), dtype)
    on_simplex(found)
    assert torch.equal(found, ops.dirichlet(n, m, alpha, generator=generator(seed), dtype=dtype))
    on_simplex(ops.dirichlet(n, m, (alpha, 2 * alpha), generator=generator(seed)))
    each = torch.full((n,), alpha, dtype=torch.float64)
    on_simplex(ops.dirichlet(n, m, each, generator=generator(seed), dtype=torch.float64))
    lam = ops.beta(n, alpha, generator=generator(seed))
    assert lam.shape == (n,)
    assert bool(((lam >= 0) & (lam <= 1)).all())
    assert torch.equal(lam, ops.beta(n, alpha, generator=generator(seed)))


@law("draw_between", low=st.floats(-1e6, 1e6), span=st.floats(0, 1e6))
def test_numbers_lie_between_their_bounds(n, low, span, seed):
    found = ops.draw_between((low, low + span), n, generator=generator(seed)).double()
    slack = 1e-6 * (abs(low) + span) + 1e-12
    assert found.shape == (n,)
    assert float(found.min()) >= low - slack
    assert float(found.max()) <= low + span + slack
    draw = generator(seed)
    assert torch.equal(ops.draw_between(low, n, generator=draw), torch.full((n,), low))
    assert torch.equal(draw.get_state(), generator(seed).get_state())


@law("alpha_for", m=st.integers(2, 10_000), share=st.floats(1e-3, 1 - 1e-3))
def test_the_concentration_of_an_effective_number(m, share):
    effective = 1 + share * (m - 1)
    alpha = ops.alpha_for(effective, m)
    assert alpha > 0
    assert (1 + m * alpha) / (1 + alpha) == pytest.approx(effective, rel=1e-9)
    for wrong in (1, m, 0, -1, m + 1, math.nan, math.inf):
        with pytest.raises(ValueError, match="effective"):
            ops.alpha_for(wrong, m)


@law("scatter_tuples", more=st.integers(0, 9))
def test_scattered_tuples_keep_their_weights(n, m, more, seed):
    weights = ops.dirichlet(n, m, 1.0, generator=generator(seed))
    found = ops.scatter_tuples(weights, m + more, generator=generator(seed))
    assert found.shape == (n, m + more)
    assert torch.equal(found.sort(1).values[:, more:], weights.sort(1).values)


@law("zeta_weights", gamma=st.one_of(st.floats(1e-3, 20), st.sampled_from([1e-9, 60.0])))
def test_zeta_weights_are_a_power_of_a_rank(b, gamma, seed):
    found = ops.zeta_weights(b, gamma, generator=generator(seed))
    on_simplex(found)
    assert bool((found.diagonal() >= found.amax(1)).all())
    series = torch.arange(1, b + 1, dtype=torch.float64) ** -gamma
    close(found.sort(1, descending=True).values, (series / series.sum()).expand(b, b))


@law("draw_partners", "draw_couples", "Mode", b=pixels)
def test_partners_are_a_permutation_and_couples_each_other_s(b, seed):
    assert sorted(ops.draw_partners(b, generator=generator(seed)).tolist()) == list(range(b))
    partners, couples = (t.tolist() for t in ops.draw_couples(b, generator=generator(seed)))
    assert [partners[partner] for partner in partners] == list(range(b))
    assert sum(partner == i for i, partner in enumerate(partners)) == b % 2
    assert sorted(set(couples)) == list(range((b + 1) // 2))
    assert [couples[partner] for partner in partners] == couples


@law("mix_pairs", grad=st.booleans())
def test_pairs_are_mixed_by_lambda(b, rest, own, grad, data):
    values = data.draw(tensors(b, *rest))
    before, partners = values.clone(), ops.draw_partners(b, generator=generator(b))
    lam = torch.rand([b] if own else [], generator=generator(b), dtype=torch.float64).requires_grad_(grad)
    found = ops.mix_pairs(values, partners, lam)
    first, second = values.double(), values.double()[partners]
    weight = lam.detach().expand(b).view(b, *[1] * len(rest))
    close(found, weight * first + (1 - weight) * second, scale=largest(values))
    assert torch.equal(values, before)
    if grad:
        slope = (first - second).reshape(b, -1).sum(1)
        slope = slope if own else slope.sum()
        close(gradient(found.double().sum(), lam), slope, torch.float32, scale=float(values.abs().sum()) + 1e-30)


@law("draw_box", "Box", "draw_boxes", "Boxes", h=pixels, w=pixels)
def test_boxes_are_cut_around_their_centres(h, w, b, share, seed):
    found = ops.draw_box(h, w, share, generator=generator(seed))
    across, along = torch.rand(2, generator=generator(seed)).tolist()
    assert tuple(found) == references.cut(h, w, share, int(across * h), int(along * w))
    assert 0 <= found.area <= h * w
    lam = ops.beta(b, 1.0, generator=generator(seed))
    boxes = ops.draw_boxes(h, w, lam, generator=generator(seed))
    size = torch.tensor([[h], [w]])
    assert bool(((boxes.start >= 0) & (boxes.start <= boxes.end) & (boxes.end <= size)).all())
    assert torch.equal(boxes.start, boxes.start.round())
    assert boxes.area.tolist() == [boxes.of(i).area for i in range(b)]
    assert bool((boxes.area <= (1 - lam + 1e-5) * h * w).all())


@law("draw_mask", h=st.integers(1, 20), w=st.integers(1, 20), decay=st.floats(0, 8))
def test_a_mask_has_the_pixels_it_should(h, w, share, decay, seed):
    found = ops.draw_mask(h, w, share, decay, generator=generator(seed))
    assert found.shape == (h, w)
    assert set(found.unique().tolist()) <= {0.0, 1.0}
    assert int(found.sum()) == round(share * h * w)
    with pytest.raises(ValueError, match="lam"):
        ops.draw_mask(h, w, math.nan, decay)
