"""Whether a mini-batch is finite is told by its sum, which must not overflow."""

import pytest
import torch

from multimix.ops import check_batch


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_large_values_are_finite_though_their_sum_is_not(dtype):
    inputs = torch.full((4, 3), torch.finfo(dtype).max, dtype=dtype)
    assert not inputs.sum().isfinite()
    check_batch(inputs, torch.zeros(4, dtype=torch.long))


@pytest.mark.bad_input
@pytest.mark.parametrize("bad", [[float("nan")], [float("inf")], [float("inf"), -float("inf")], [-float("inf")]])
def test_what_is_not_finite_is_refused(bad):
    inputs = torch.zeros(4, 3)
    inputs[1, : len(bad)] = torch.tensor(bad)
    with pytest.raises(ValueError, match="inputs must be finite, got NaN or infinity"):
        check_batch(inputs, torch.zeros(4, dtype=torch.long))
