"""Targets as probabilities."""

import pytest
import torch

from multimix import ops


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_indices_become_one_hot_rows(dtype, device):
    rows = ops.as_probabilities(torch.tensor([2, 0, 1, 2], dtype=dtype, device=device), 3)
    assert rows.dtype == torch.float32
    assert rows.device.type == device.type
    assert rows.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_probabilities_stay_as_they_are_but_for_the_dtype():
    targets = torch.tensor([[0.25, 0.75], [1.0, 0.0]], dtype=torch.float64)
    assert torch.equal(ops.as_probabilities(targets, 2, dtype=torch.float64), targets)
    assert torch.equal(ops.as_probabilities(targets, 2), targets.float())
