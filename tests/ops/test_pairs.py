"""Pairs and boxes."""

import collections

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import references
from multimix import ops


@pytest.mark.parametrize("b", [1, 2, 31])
def test_partners_are_a_permutation_from_the_generator(b, device):
    first, second = (ops.draw_partners(b, generator=torch.Generator().manual_seed(1), device=device) for _ in range(2))
    assert torch.equal(first, second)
    assert first.device.type == device.type
    assert first.sort().values.tolist() == list(range(b))


def test_every_permutation_is_as_likely(generator):
    counts = collections.Counter(tuple(ops.draw_partners(3, generator=generator).tolist()) for _ in range(1800))
    assert len(counts) == 6
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(), (5,), (3, 4, 2)])
@pytest.mark.parametrize("b", [1, 7])
def test_pairs_equal_the_loop(b, shape, device, generator):
    values, partners = torch.randn(b, *shape, generator=generator), ops.draw_partners(b, generator=generator)
    truth = references.pairs(values.double(), partners, 0.3)
    ours = ops.mix_pairs(values.to(device), partners.to(device), torch.tensor(0.3, device=device))
    torch.testing.assert_close(ours.cpu().double(), truth, rtol=1e-5, atol=1e-6)


def test_lambda_weighs_the_first_and_may_differ_by_pair():
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    mixed = ops.mix_pairs(values, torch.tensor([1, 0, 0]), torch.tensor([1.0, 0.0, 0.75]))
    assert mixed.tolist() == [[1.0, 0.0], [1.0, 0.0], [4.0, 3.75]]


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (0, 7, 0, 5), (2, 5, 1, 2), (6, 7, 0, 5)])
def test_pasting_equals_the_loop(box, device, generator):
    images, partners = torch.randn(4, 3, 7, 5, generator=generator), ops.draw_partners(4, generator=generator)
    before = images.clone()
    pasted = ops.paste_box(images.to(device), partners.to(device), ops.Box(*box))
    assert torch.equal(pasted.cpu(), references.cutmix(images, partners, box))
    assert torch.equal(images, before)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**31))
def test_a_box_lies_in_the_image_and_is_no_larger_than_its_share(height, width, lam, seed):
    box = ops.draw_box(height, width, lam, generator=torch.Generator().manual_seed(seed))
    assert 0 <= box.top <= box.bottom <= height
    assert 0 <= box.left <= box.right <= width
    assert box.area == (box.bottom - box.top) * (box.right - box.left)
    assert box.area <= (1 - lam) * height * width + 1e-6


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.75, 1.0])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 12)])
def test_boxes_are_distributed_as_those_of_the_scalar_loop(height, width, lam, generator):
    """Every centre is as likely, so the loop over all centres gives the exact distribution."""
    n = 3000
    drawn = collections.Counter(tuple(ops.draw_box(height, width, lam, generator=generator)) for _ in range(n))
    exact = collections.Counter(references.cut(height, width, lam, y, x) for y in range(height) for x in range(width))
    assert set(drawn) <= set(exact)
    observed = [drawn[box] for box in exact]
    expected = [n * count / (height * width) for count in exact.values()]
    if len(exact) > 1:
        assert stats.chisquare(observed, expected).pvalue > 1e-3
    area = sum(ops.Box(*box).area * count for box, count in drawn.items()) / n
    truth = sum(ops.Box(*box).area * count for box, count in exact.items()) / (height * width)
    assert area == pytest.approx(truth, rel=0.05)


@pytest.mark.bad_input
@pytest.mark.parametrize("lam", [-0.1, 1.5, float("nan")])
def test_a_share_outside_the_unit_interval_is_refused(lam):
    with pytest.raises(ValueError, match=r"lam must lie in \[0, 1\], got"):
        ops.draw_box(8, 8, lam)
