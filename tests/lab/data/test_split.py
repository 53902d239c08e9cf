"""Stratified choices."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimix.lab.data._split import shares, stratified


@pytest.mark.parametrize(
    ("counts", "size", "expected"),
    [
        ([50, 30, 20], 10, [5, 3, 2]),
        ([5, 5, 5], 7, [3, 2, 2]),  # 7/3 each: the odd one goes to the first class
        ([97, 2, 1], 10, [8, 1, 1]),  # 9.7, 0.2, 0.1, but none without
        ([97, 2, 1], 3, [1, 1, 1]),
        ([4, 4], 8, [4, 4]),
        ([1, 9], 9, [1, 8]),  # 0.9, 8.1
    ],
)
def test_shares_by_hand(counts: list[int], size: int, expected: list[int]) -> None:
    assert shares(counts, size) == expected


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.data())
def test_shares_hold_their_limits_and_stay_near_proportion(counts: list[int], data: st.DataObject) -> None:
    size = data.draw(st.integers(len(counts), sum(counts)))
    taken = shares(counts, size)
    assert sum(taken) == size
    assert all(1 <= t <= c for t, c in zip(taken, counts, strict=True))
    if all(c * size / sum(counts) >= 1 for c in counts):
        assert all(abs(t - c * size / sum(counts)) < 1 for t, c in zip(taken, counts, strict=True))


def test_stratified_is_a_partition_that_keeps_proportions() -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100)]
    chosen, rest = stratified(labels, 20, 5)
    assert torch.equal(torch.cat([chosen, rest]).sort().values, torch.arange(100))
    assert torch.bincount(labels[chosen]).tolist() == [12, 6, 2]


def test_stratified_is_fixed_by_its_seed_and_by_no_other() -> None:
    labels = torch.arange(200) % 4
    first = stratified(labels, 50, 1)[0]
    torch.manual_seed(99)
    assert torch.equal(stratified(labels, 50, 1)[0], first)
    assert not torch.equal(stratified(labels, 50, 2)[0], first)


def test_every_image_of_a_class_is_as_likely() -> None:
    labels = torch.tensor([0] * 10 + [1] * 10)
    hits = sum(torch.bincount(stratified(labels, 10, seed)[0], minlength=20) for seed in range(400))
    assert torch.as_tensor(hits).min() > 200 - 5 * 10  # binomial(400, 1/2), sd 10
    assert torch.as_tensor(hits).max() < 200 + 5 * 10


def test_a_larger_choice_contains_a_smaller_one() -> None:
    labels = torch.arange(90) % 3
    small, large = (set(stratified(labels, size, 7)[0].tolist()) for size in (9, 30))
    assert small < large


@pytest.mark.bad_input
@pytest.mark.parametrize("size", [2, 10])
def test_stratified_refuses_sizes_that_cannot_be(size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} of 9 images cannot hold each of the 3 classes"):
        stratified(torch.arange(9) % 3, size, 0)
