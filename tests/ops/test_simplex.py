"""Dirichlet weights: on the simplex, of the right distribution, from the generator alone."""

import math

import pytest
import torch
from scipy import stats

from multimix import ops
from multimix.ops import _simplex


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rows_are_the_rounded_rows_of_float32(dtype):
    halves = ops.dirichlet(50, 9, 0.7, generator=seeded(), dtype=dtype)
    assert halves.dtype == dtype
    assert torch.equal(halves, ops.dirichlet(50, 9, 0.7, generator=seeded()).to(dtype))


@pytest.mark.parametrize(
    ("n", "m", "alphas"),
    [
        (100_000, 2, (0.26, 0.5, 0.999, 1.0, 1.01, 1.5, 3.0)),  # where the sampler changes its way, or refuses most
        (4000, 5, (0.05, 1.0, 20.0)),
        (4000, 16, (1 / 16, 0.5, 2.0)),
    ],
)
def test_marginals_are_beta(n, m, alphas):
    for alpha in alphas:
        weights = ops.dirichlet(n, m, alpha, generator=seeded(1), dtype=torch.float64)
        for column in {0, m // 2, m - 1}:
            marginal = stats.beta(alpha, (m - 1) * alpha)
            assert stats.kstest(weights[:, column].numpy(), marginal.cdf).pvalue > 1e-3, alpha


@pytest.mark.parametrize("effective", [1.02, 1.5, 2.0, (1.5, 3.0)])
def test_sticks_draw_what_gamma_variates_do(effective, monkeypatch):
    n, m = 40_000, 128
    ends = effective if isinstance(effective, tuple) else (effective, effective)
    alpha = torch.linspace(*(ops.alpha_for(end, m) for end in ends), n, dtype=torch.float64)
    few = ops.dirichlet(n, m, alpha, generator=seeded(20), dtype=torch.float64)
    assert _simplex._pieces(m * float(alpha.amax()), few.dtype) < m
    monkeypatch.setattr(_simplex, "_pieces", lambda *_: m)
    many = ops.dirichlet(n, m, alpha, generator=seeded(21), dtype=torch.float64)
    torch.testing.assert_close(few.sum(1), torch.ones(n, dtype=torch.float64))
    for of in (
        lambda w: w.amax(1),
        lambda w: w.square().sum(1),
        lambda w: (w > 0.01).double().sum(1) + w[:, 3],
        lambda w: (w[:, 5] + w[:, 77]).clamp_min(1e-9),
        lambda w: (w.topk(3).values[:, 2] + 1e-6).log(),
    ):
        assert stats.ks_2samp(of(few).numpy(), of(many).numpy()).pvalue > 1e-3
    halves = few[: n // 2], many[: n // 2]  # each row keeps to its own concentration
    assert stats.ks_2samp(*(w.square().sum(1).numpy() for w in halves)).pvalue > 1e-3


@pytest.mark.parametrize(("dtype", "theta"), [(torch.float32, 0.02), (torch.float32, 3.0), (torch.float64, 2.0)])
def test_what_a_broken_stick_leaves_is_less_than_rounding(dtype, theta):
    pieces = _simplex._pieces(theta, dtype)
    left = (theta / (1 + theta)) ** (pieces - 1)  # mean of a product of Beta(theta, 1)
    assert left < torch.finfo(dtype).eps


def test_a_range_across_all_ways_of_the_sampler_keeps_every_row_to_its_own():
    alpha = torch.tensor([0.1, 0.5, 1.0, 2.5]).repeat(10_000)
    for few in (alpha, alpha.clamp_min(0.3)):  # in logarithms, and not
        weights = ops.dirichlet(len(few), 3, few, generator=seeded(14), dtype=torch.float64)
        for row, own in enumerate(few[:4].double().tolist()):
            assert stats.kstest(weights[row::4, 1].numpy(), stats.beta(own, 2 * own).cdf).pvalue > 1e-3


@pytest.mark.parametrize("m", [2, 8])
@pytest.mark.parametrize("alpha", [1e-2, 1 / 128, 0.5, 2.0])
def test_float32_draws_follow_the_same_distribution(alpha, m):
    """At points of the distribution function, since at low concentrations many draws round to 0 or 1."""
    weights = ops.dirichlet(4000, m, alpha, generator=seeded(2)).double()
    expected = stats.beta(alpha, (m - 1) * alpha)
    grid = torch.tensor([1e-6, 1e-3, 0.05, 0.2, 0.5, 0.9, 1 - 1e-3], dtype=torch.float64)
    below = (weights[:, m // 2].unsqueeze(1) < grid).double().mean(0)
    truth = torch.from_numpy(expected.cdf(grid.numpy()))
    assert ((below - truth).abs() < 4 * (truth * (1 - truth) / 4000).sqrt() + 1e-3).all()


@pytest.mark.parametrize("alpha", [0.1, 1.0, 3.0])
def test_covariance_is_that_of_a_symmetric_dirichlet(alpha):
    m, n = 5, 40_000
    weights = ops.dirichlet(n, m, alpha, generator=seeded(3), dtype=torch.float64)
    truth = (torch.eye(m, dtype=torch.float64) / m - 1 / m**2) / (m * alpha + 1)
    torch.testing.assert_close(torch.cov(weights.T), truth, rtol=0, atol=5 * 0.25 / math.sqrt(n))
    torch.testing.assert_close(weights.mean(0), torch.full((m,), 1 / m, dtype=torch.float64), rtol=0, atol=0.01)


def test_a_range_draws_one_concentration_a_row():
    together, apart = seeded(5), seeded(5)
    weights = ops.dirichlet(200, 6, (0.5, 2.0), generator=together)
    own = ops.draw_between((0.5, 2.0), 200, generator=apart)
    assert torch.equal(weights, ops.dirichlet(200, 6, own, generator=apart))


def test_without_a_generator_the_global_one_draws():
    torch.manual_seed(3)
    first = ops.dirichlet(5, 4, (0.5, 2.0))
    torch.manual_seed(3)
    assert torch.equal(first, ops.dirichlet(5, 4, (0.5, 2.0)))


def test_the_result_goes_where_it_is_asked_to(device):
    for alpha in (0.5, (0.5, 1.0), torch.full((6,), 0.5, device=device)):
        drawn = ops.dirichlet(6, 5, alpha, generator=seeded(), device=device)
        assert drawn.device.type == device.type
        here = alpha.cpu() if isinstance(alpha, torch.Tensor) else alpha
        assert torch.equal(drawn.cpu(), ops.dirichlet(6, 5, here, generator=seeded()))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_beta_is_symmetric_beta(alpha):
    mixed = torch.tensor([alpha, 9.0]).repeat(4000)  # one number each
    for drawn in (ops.beta(4000, alpha, generator=seeded(10)), ops.beta(8000, mixed, generator=seeded(10))[::2]):
        assert stats.kstest(drawn.double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_every_example_enters_tuples_alike_and_at_every_place():
    n, m, b = 6000, 3, 11
    heaviest_first = torch.tensor([0.7, 0.2, 0.1]).expand(n, m).contiguous()
    scattered = ops.scatter_tuples(heaviest_first, b, generator=seeded(11))
    for weight in (0.7, 0.2, 0.1):
        counts = torch.isclose(scattered, torch.tensor(weight)).sum(0)
        assert int(counts.sum()) == n
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    pairs = (scattered[:, 0] > 0) & (scattered[:, 1] > 0)
    expected = m * (m - 1) / (b * (b - 1))
    assert abs(float(pairs.double().mean()) - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def log_acceptance(y: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Marsaglia and Tsang, step 4, in float64: x^2 / 2 + d - d v + d log v with v = (1 + c x)^3, c = 1 / sqrt(9 d)."""
    d = alpha - 1 / 3
    x, v = y * (9 * d).sqrt(), (1 + y) ** 3
    return torch.where(v > 0, x.square() / 2 + d - d * v + d * v.clamp_min(1e-300).log(), -torch.inf)


GRID_Y = torch.cat([torch.linspace(-1.5, 3, 4001, dtype=torch.float64), torch.tensor([-1.0, 0.0], dtype=torch.float64)])
GRID_ALPHA = torch.tensor([1.0, 1.001, 1.05, 1.2, 1.5, 2.0, 3.0, 10.0, 100.0, 1001.0], dtype=torch.float64).unsqueeze(1)


def test_what_the_squeeze_accepts_the_exact_test_accepts():
    y, alpha = torch.broadcast_tensors(GRID_Y, GRID_ALPHA)
    for bits in range(-128, 128):
        at_once = _simplex._doubt(y, alpha - 1 / 3, torch.tensor(bits, dtype=torch.int8)) < _simplex._DOUBTFUL
        assert ((bits + 129) / 256 <= log_acceptance(y, alpha).exp() + 1e-12)[at_once].all()
        if bits == -128:  # and it is worth having: nearly all of what is accepted near the mode is accepted at once
            assert at_once[(y.abs() < 0.5 / (9 * alpha).sqrt())].all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_exact_test_is_that_of_the_paper(dtype):
    y, alpha = (t.to(dtype) for t in torch.broadcast_tensors(GRID_Y, GRID_ALPHA))
    exact = log_acceptance(y.double(), alpha.double())
    for u in (1e-6, 0.1, 0.5, 0.9, 0.999):
        ours = _simplex._refused(y, alpha - 1 / 3, torch.full_like(y, u))
        clear = (exact - math.log(u)).abs() > 1e-3  # where rounding cannot decide
        assert torch.equal(ours[clear], (math.log(u) >= exact)[clear])
