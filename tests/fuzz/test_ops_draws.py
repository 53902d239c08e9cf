"""What is drawn at random: on the simplex, in range, in the image, and the same from the same generator."""

import math

import pytest
import torch
from hypothesis import strategies as st

import references
from fuzz.strategies import close, generator, law, on_simplex, seeds, shares, sizes, tensors
from multimix import ops

concentrations = st.one_of(st.sampled_from([1e-30, 1e-6, 0.2499, 0.25, 1.0, 2.0, 1e6, 1e30]), st.floats(1e-3, 50))
wrong_concentrations = st.sampled_from(
    [0.0, -1.0, math.nan, math.inf, -math.inf, True, "x", None, (2.0, 1.0), (1.0,) * 3]
)
data = st.data()


@law(
    "dirichlet",
    "check_concentration",
    examples=60,
    n=sizes,
    m=st.integers(1, 40),
    alpha=concentrations,
    seed=seeds,
    dtype=st.sampled_from([None, torch.float64, torch.float32, torch.bfloat16]),
)
def test_interpolation_vectors_lie_on_the_simplex(n, m, alpha, seed, dtype):
    ops.check_concentration("alpha", alpha)
    found = ops.dirichlet(n, m, alpha, generator=generator(seed), dtype=dtype)
    assert found.shape == (n, m)
    assert found.dtype == (dtype or torch.float32)
    on_simplex(found)
    assert torch.equal(found, ops.dirichlet(n, m, alpha, generator=generator(seed), dtype=dtype))
    on_simplex(ops.dirichlet(n, m, (alpha, 2 * alpha), generator=generator(seed)))
    each = torch.full((n,), alpha, dtype=torch.float64)
    on_simplex(ops.dirichlet(n, m, each, generator=generator(seed), dtype=torch.float64))


@law("check_concentration", alpha=wrong_concentrations, seed=seeds)
def test_impossible_concentrations_are_refused_by_name(alpha, seed):
    with pytest.raises((ValueError, TypeError), match="gamma"):
        ops.check_concentration("gamma", alpha)
    with pytest.raises((ValueError, TypeError), match="alpha"):
        ops.dirichlet(2, 3, alpha, generator=generator(seed))
    with pytest.raises((ValueError, TypeError), match="alpha"):
        ops.beta(2, alpha, generator=generator(seed))


@law("beta", n=sizes, alpha=concentrations, seed=seeds)
def test_lambdas_lie_between_0_and_1(n, alpha, seed):
    found = ops.beta(n, alpha, generator=generator(seed))
    assert found.shape == (n,)
    assert bool(((found >= 0) & (found <= 1)).all())
    assert torch.equal(found, ops.beta(n, alpha, generator=generator(seed)))


@law("draw_between", n=sizes, low=st.floats(-1e6, 1e6), span=st.floats(0, 1e6), seed=seeds)
def test_numbers_lie_between_their_bounds(n, low, span, seed):
    found = ops.draw_between((low, low + span), n, generator=generator(seed)).double()
    slack = 1e-6 * (abs(low) + span) + 1e-12
    assert found.shape == (n,)
    assert float(found.min()) >= low - slack
    assert float(found.max()) <= low + span + slack
    assert torch.equal(ops.draw_between(low, n, generator=generator(seed)), torch.full((n,), low))


@law("alpha_for", m=st.integers(2, 10_000), share=st.floats(1e-3, 1 - 1e-3))
def test_the_concentration_of_an_effective_number(m, share):
    effective = 1 + share * (m - 1)
    alpha = ops.alpha_for(effective, m)
    assert alpha > 0
    assert (1 + m * alpha) / (1 + alpha) == pytest.approx(effective, rel=1e-9)
    for wrong in (1, m, 0, -1, m + 1, math.nan, math.inf):
        with pytest.raises(ValueError, match="effective"):
            ops.alpha_for(wrong, m)


@law("scatter_tuples", n=sizes, m=sizes, more=st.integers(0, 9), seed=seeds)
def test_scattered_tuples_keep_their_weights(n, m, more, seed):
    weights = ops.dirichlet(n, m, 1.0, generator=generator(seed))
    found = ops.scatter_tuples(weights, m + more, generator=generator(seed))
    assert found.shape == (n, m + more)
    assert torch.equal(found.sort(1).values[:, more:], weights.sort(1).values)
    if m > 1:
        with pytest.raises(ValueError, match="tuple_length"):
            ops.scatter_tuples(weights, m - 1)


@law("zeta_weights", b=sizes, gamma=st.one_of(st.floats(1e-3, 20), st.sampled_from([1e-9, 60.0])), seed=seeds)
def test_zeta_weights_are_a_power_of_a_rank(b, gamma, seed):
    found = ops.zeta_weights(b, gamma, generator=generator(seed))
    on_simplex(found)
    assert bool((found.diagonal() >= found.amax(1)).all())
    series = torch.arange(1, b + 1, dtype=torch.float64) ** -gamma
    close(found.sort(1, descending=True).values, (series / series.sum()).expand(b, b))


@law("draw_partners", "draw_couples", "Mode", b=st.integers(1, 40), seed=seeds)
def test_partners_are_a_permutation_and_couples_each_other_s(b, seed):
    assert sorted(ops.draw_partners(b, generator=generator(seed)).tolist()) == list(range(b))
    partners, couples = (t.tolist() for t in ops.draw_couples(b, generator=generator(seed)))
    assert [partners[partner] for partner in partners] == list(range(b))
    assert sum(partner == i for i, partner in enumerate(partners)) == b % 2
    assert sorted(set(couples)) == list(range((b + 1) // 2))
    assert [couples[partner] for partner in partners] == couples


@law("mix_pairs", b=sizes, rest=st.lists(sizes, max_size=3), each=st.booleans(), grad=st.booleans(), data=data)
def test_pairs_are_mixed_by_lambda(b, rest, each, grad, data):
    values = data.draw(tensors(b, *rest))
    before = values.clone()
    partners = ops.draw_partners(b, generator=generator(b))
    lam = torch.rand([b] if each else [], generator=generator(b), dtype=torch.float64).requires_grad_(grad)
    found = ops.mix_pairs(values, partners, lam)
    shares_there = lam.detach().expand(b).tolist()
    expected = torch.stack(
        [
            share * values[i].double() + (1 - share) * values[int(partners[i])].double()
            for i, share in enumerate(shares_there)
        ]
    )
    close(found.detach(), expected, scale=float(values.abs().max()) + 1e-30)
    assert torch.equal(values, before)
    if grad:
        found.double().sum().backward()
        slope = (values.double() - values.double()[partners]).reshape(b, -1).sum(1)
        assert lam.grad is not None
        close(lam.grad, slope if each else slope.sum(), torch.float32, scale=float(values.abs().sum()) + 1e-30)


@law("draw_box", "Box", height=st.integers(1, 40), width=st.integers(1, 40), lam=shares, seed=seeds)
def test_a_box_is_cut_around_its_centre(height, width, lam, seed):
    found = ops.draw_box(height, width, lam, generator=generator(seed))
    across, along = torch.rand(2, generator=generator(seed)).tolist()
    assert tuple(found) == references.cut(height, width, lam, int(across * height), int(along * width))
    assert 0 <= found.area <= height * width
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="lam"):
            ops.draw_box(height, width, wrong)


@law("draw_boxes", "Boxes", height=st.integers(1, 40), width=st.integers(1, 40), b=sizes, seed=seeds)
def test_boxes_lie_in_the_image(height, width, b, seed):
    lam = ops.beta(b, 1.0, generator=generator(seed))
    found = ops.draw_boxes(height, width, lam, generator=generator(seed))
    size = torch.tensor([[height], [width]])
    assert bool(((found.start >= 0) & (found.start <= found.end) & (found.end <= size)).all())
    assert torch.equal(found.start, found.start.round())
    assert found.area.tolist() == [found.of(i).area for i in range(b)]
    assert bool((found.area <= (1 - lam + 1e-5) * height * width).all())


@law("draw_mask", height=st.integers(1, 20), width=st.integers(1, 20), lam=shares, decay=st.floats(0, 8), seed=seeds)
def test_a_mask_has_the_pixels_it_should(height, width, lam, decay, seed):
    found = ops.draw_mask(height, width, lam, decay, generator=generator(seed))
    assert found.shape == (height, width)
    assert set(found.unique().tolist()) <= {0.0, 1.0}
    assert int(found.sum()) == round(lam * height * width)
    with pytest.raises(ValueError, match="lam"):
        ops.draw_mask(height, width, math.nan, decay)
