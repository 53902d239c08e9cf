"""What inputs and targets may be: finite numbers, class indices, one-hot integers, and hints at another objective."""

from typing import get_args

import pytest
import torch
from torch.nn import functional

import toy
from multimix import ops
from multimix.ops import BinaryCrossEntropy, CrossEntropy, SquaredError


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8], ids=str)
def test_one_hot_integers_are_probabilities(dtype):
    logits, targets = toy.batch(6, 5)
    rows = functional.one_hot(targets, 5).to(dtype)
    assert torch.equal(ops.as_probabilities(rows, 5), ops.as_probabilities(targets, 5))
    weights = ops.dirichlet(9, 6, 1.0)
    expected = functional.cross_entropy(weights @ logits, weights @ toy.one_hot(targets))
    for impl in get_args(ops.Impl):
        torch.testing.assert_close(ops.mixed_cross_entropy(logits, rows, weights, impl=impl), expected)
    weighted = ops.LossOptions(objective=CrossEntropy(class_weights=(1.0, 2.0, 0.5, 1.0, 3.0)))
    ours, theirs = (ops.mixed_losses(logits, t, weights, weighted).total for t in (rows, targets))
    torch.testing.assert_close(ours, theirs)


INTEGERS = (
    r"targets holds class indices and must have shape \(b,\), got \(3, 5\); integers \(b, k\) are taken where each"
)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "rows", [[[1, 1, 0, 0, 0]] * 3, [[0, 0, 0, 0, 0]] * 3, [[2, -1, 0, 0, 0]] * 3], ids=["several", "none", "numbers"]
)
def test_other_integer_rows_are_refused_with_what_they_may_be(rows):
    rows = torch.tensor(rows)
    with pytest.raises(ValueError, match=f"{INTEGERS} .*argmax.*BinaryCrossEntropy"):
        ops.as_probabilities(rows, 5)
    with pytest.raises(ValueError, match=INTEGERS):
        ops.mixed_cross_entropy(torch.randn(3, 5), rows, ops.dirichlet(4, 3, 1.0))


@pytest.mark.bad_input
@pytest.mark.parametrize("shape", [(6,), (6, 1)], ids=str)
def test_values_are_for_the_squared_error(shape):
    for takes in (ops.as_probabilities, CrossEntropy().targets):
        with pytest.raises(
            ValueError, match=r"must have shape \(b, 5\), got .*; values to predict are for SquaredError"
        ):
            takes(torch.rand(shape), 5)


@pytest.mark.bad_input
def test_several_labels_are_for_binary_cross_entropy():
    rows = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    with pytest.raises(
        ValueError, match=r"rows that sum to 1, got a row that is off by 1; several labels .*BinaryCross"
    ):
        ops.as_probabilities(rows, 3)
    with pytest.raises(TypeError, match=r"got torch.bool; several labels an example are for BinaryCrossEntropy"):
        ops.as_probabilities(rows.bool(), 3)
    with pytest.raises(ValueError, match=r"weights must have rows that sum to 1, got a row that is off by 1$"):
        ops.mixed_cross_entropy(torch.randn(3, 3), torch.arange(3), rows)


@pytest.mark.bad_input
@pytest.mark.parametrize("label", [-100, 255, -1])
def test_a_label_that_marks_none_is_to_be_ignored(label):
    targets = torch.tensor([0, label, 2])
    for takes in (ops.as_probabilities, CrossEntropy().targets):
        with pytest.raises(
            ValueError, match=rf"got {label}; CrossEntropy\(ignore_index={label}\) leaves such labels out"
        ):
            takes(targets, 5)
    assert CrossEntropy(ignore_index=label).targets(targets, 5)[1].sum() == 0


@pytest.mark.bad_input
def test_any_other_label_has_no_hint():
    with pytest.raises(ValueError, match=r"targets must lie in 0\.\.4 for 5 classes, got 7$"):
        ops.as_probabilities(torch.tensor([0, 7]), 5)


@pytest.mark.bad_input
@pytest.mark.parametrize("objective", [BinaryCrossEntropy(), SquaredError()], ids=lambda o: type(o).__name__)
def test_classes_are_for_cross_entropy(objective):
    with pytest.raises(
        ValueError, match=r"one number an output, \(b, 5\), got \(3,\); class indices are for CrossEntropy"
    ):
        objective.targets(torch.arange(3), 5)
    with pytest.raises(ValueError, match=r"one number an output, \(b, 5\), got \(3,\)$"):
        objective.targets(torch.rand(3), 5)


@pytest.mark.parametrize("cls", [CrossEntropy, BinaryCrossEntropy])
def test_weights_of_classes_may_be_a_list(cls):
    assert cls([1.0, 2.0]) == cls((1.0, 2.0))
    hash(cls([1.0, 2.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_large_values_are_finite_though_their_sum_is_not(dtype):
    inputs = torch.full((4, 3), torch.finfo(dtype).max, dtype=dtype)
    assert not inputs.sum().isfinite()
    ops.check_batch(inputs, torch.zeros(4, dtype=torch.long))
