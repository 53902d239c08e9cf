"""How interpolation vectors are drawn: concentration, effective number, length of a tuple."""

import math

import pytest
import torch
from scipy import stats

from multimix.methods import DenseMultiMix, MultiMix
from toy import seeded

LIKE = torch.zeros(1)


def draw(b: int, *, seed: int = 0, sets: int | None = None, **settings) -> torch.Tensor:
    return MultiMix(**settings).weights(b, like=LIKE, generator=seeded(seed), sets=sets).all()


def effective(weights: torch.Tensor) -> float:
    """One over the mean sum of squares."""
    return 1 / float(weights.double().square().sum(1).mean())


@pytest.mark.parametrize("b", [1, 2, 7, 128])
@pytest.mark.parametrize("settings", [{}, {"alpha": 0.1}, {"effective": (1.2, 90.0)}, {"tuple_length": 5}], ids=str)
def test_weights_lie_on_the_simplex(settings, b):
    weights = draw(b, tuples=50, sets=3, **settings)
    assert weights.shape == (3, 50, b)
    assert weights.dtype == torch.float32
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(2), torch.ones(3, 50))


@pytest.mark.parametrize("b", [3, 16, 128])
@pytest.mark.parametrize("wanted", [1.5, 2.0, 2.9])
def test_effective_means_the_same_at_every_size(wanted, b):
    weights = draw(b, tuples=6000, effective=wanted)
    assert effective(weights) == pytest.approx(wanted, rel=0.03)


def test_two_images_enter_a_tuple_by_default():
    assert effective(draw(64, tuples=6000)) == pytest.approx(2.0, rel=0.03)


@pytest.mark.parametrize(("b", "alpha"), [(128, 0.5), (16, 2.0), (2, 0.5)])
def test_alpha_is_the_concentration_itself(b, alpha):
    weights = draw(b, tuples=4000, alpha=alpha)
    assert effective(weights) == pytest.approx((1 + b * alpha) / (1 + alpha), rel=0.03)
    distribution = stats.beta(alpha, (b - 1) * alpha)
    assert stats.kstest(weights[:, b // 2].double().numpy(), distribution.cdf).pvalue > 1e-3


def test_alpha_and_effective_are_two_names_of_one_thing():
    m = 16
    alpha = (4.0 - 1) / (m - 4.0)
    torch.testing.assert_close(draw(m, tuples=50, alpha=alpha), draw(m, tuples=50, effective=4.0))


def test_a_range_is_drawn_anew_for_every_tuple():
    """From tuples of one image to tuples of almost all of them."""
    squares = draw(64, tuples=4000, effective=(1.1, 60.0)).square().sum(1)
    assert float((squares > 0.5).float().mean()) > 0.005
    assert float((squares < 0.025).float().mean()) > 0.05
    uniform = torch.linspace(1.1, 60.0, 10_001, dtype=torch.float64).reciprocal().mean()
    standard_error = float(squares.std()) / math.sqrt(4000)
    assert abs(float(squares.mean()) - float(uniform)) < 4 * standard_error


@pytest.mark.parametrize(("b", "wanted"), [(1, 2.0), (2, 2.0), (2, 5.0), (4, 4.0)])
def test_mini_batches_too_small_for_it_are_mixed_flatly(b, wanted):
    weights = draw(b, tuples=4000, effective=wanted)
    assert effective(weights) == pytest.approx((1 + b) / 2, rel=0.03)
    if b == 2:
        assert stats.kstest(weights[:, 0].numpy(), stats.uniform.cdf).pvalue > 1e-3


def test_only_the_tuples_that_ask_too_much_are_mixed_flatly():
    """Of a range from 2 to 6 over 4 images, half the tuples lie above; all of them are finite."""
    weights = draw(4, tuples=6000, effective=(2.0, 6.0))
    below = torch.linspace(2.0, 4.0, 10_001, dtype=torch.float64).reciprocal().mean()
    flat = 2 / 5
    assert float(weights.square().sum(1).mean()) == pytest.approx((float(below) + flat) / 2, rel=0.03)


@pytest.mark.parametrize(("length", "b", "m"), [(3, 11, 3), (1, 11, 1), (11, 11, 11), (50, 11, 11), (3, 2, 2)])
def test_tuple_length_limits_who_enters(length, b, m):
    weights = draw(b, tuples=3000, tuple_length=length, alpha=2.0)
    assert ((weights > 0).sum(1) == m).all()
    assert effective(weights) == pytest.approx((1 + 2 * m) / 3, rel=0.05)
    counts = (weights > 0).sum(0)
    if m < b:
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_effective_counts_the_tuple_not_the_mini_batch():
    assert effective(draw(64, tuples=6000, tuple_length=8, effective=3.0)) == pytest.approx(3.0, rel=0.03)


def test_dense_draws_a_set_for_every_position_unless_shared():
    drawn = []

    class Counting(DenseMultiMix):
        def draw_weights(self, *args, **kwargs):
            drawn.append(super().draw_weights(*args, **kwargs))
            return drawn[-1]

    maps, targets = torch.randn(5, 4, 3), torch.tensor([0, 1, 2, 0, 1])
    network = _Maps()
    for shared in (False, True):
        Counting(7, shared=shared)(network, maps, targets, generator=seeded())
    assert [len(weights) for weights in drawn] == [28, 7]
    sets = drawn[0].view(4, 7, 5)
    assert not any(torch.equal(sets[0], other) for other in sets[1:])


class _Maps(torch.nn.Module):
    """A network that is its head."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3, 3)
        self.stages = range(1)

    def embed(self, inputs):
        return inputs

    def pool(self, features):
        return features.mean(1)

    def classify(self, embeddings):
        return self.head(embeddings)


def test_weights_lie_where_the_embeddings_do(device):
    for settings in ({}, {"alpha": (0.5, 2.0)}, {"tuple_length": 2}):
        method = MultiMix(20, **settings)
        here = method.draw_weights(5, like=torch.zeros(1, device=device), generator=seeded())
        assert here.device.type == device.type
        assert torch.equal(here.cpu(), method.draw_weights(5, like=LIKE, generator=seeded()))
