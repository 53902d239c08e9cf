"""What ops take: targets, examples and settings of every form, and what they refuse by name."""

import pytest
import torch
from hypothesis import strategies as st

import references
from fuzz.strategies import (
    close,
    dtypes,
    labels,
    laid,
    law,
    layouts,
    simplices,
    sizes,
    tensors,
    tolerance,
)
from multimix import ops

data = st.data()


@law("soft_cross_entropy", lead=st.lists(sizes, min_size=1, max_size=3), k=sizes, dtype=dtypes, data=data)
def test_soft_cross_entropy_is_that_of_the_loops(lead, k, dtype, data):
    logits, targets = data.draw(tensors(*lead, k, dtype=dtype)), data.draw(simplices(*lead, k))
    rows = (references.rows(values.reshape(-1, k)) for values in (logits, targets.to(dtype)))
    expected = torch.tensor(references.cross_entropy(*rows), dtype=torch.float64)
    found = ops.soft_cross_entropy(logits, targets.to(dtype))
    close(found, expected, scale=1 + float(logits.double().abs().max()))


@law("as_probabilities", b=sizes, k=sizes, dtype=dtypes, layout=layouts, data=data)
def test_probabilities_are_rows_of_the_simplex(b, k, dtype, layout, data):
    targets = data.draw(labels(b, k))
    found = ops.as_probabilities(targets, k, dtype=dtype)
    assert found.dtype == dtype
    close(found, torch.tensor(references.one_hot(targets, k), dtype=torch.float64), dtype)
    with pytest.raises(ValueError, match="targets"):
        ops.as_probabilities(laid(torch.full((b,), k), layout), k)
    with pytest.raises(ValueError, match="targets"):
        ops.as_probabilities(laid(torch.full((b, k), 2.0), layout), k)
    with pytest.raises(ValueError, match="targets"):
        ops.as_probabilities(torch.full((b, k), torch.nan), k)


@law("accurate", "no_autocast", b=sizes, k=sizes, dtype=dtypes, data=data)
def test_half_precision_is_worked_on_in_full(b, k, dtype, data):
    values = data.draw(tensors(b, k, dtype=dtype))
    found = ops.accurate(values)
    assert found.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    assert torch.equal(found, values.to(found.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16), ops.no_autocast("cpu"):
        product = found.float() @ found.float().mT
    assert product.dtype == torch.float32
    assert tolerance(dtype) > 0


@law("rows_of", b=sizes, k=st.integers(2, 6), dtype=st.sampled_from([torch.uint8, torch.int64]), data=data)
def test_one_hot_integers_are_rows_and_nothing_else_is_touched(b, k, dtype, data):
    classes = torch.tensor(data.draw(st.lists(st.integers(0, k - 1), min_size=b, max_size=b)))
    one_hot = torch.eye(k)[classes].to(dtype)
    assert torch.equal(ops.rows_of(one_hot, k), torch.eye(k)[classes])
    for other in (classes, one_hot.float(), 2 * one_hot, torch.ones(b, k, dtype=dtype)):
        assert ops.rows_of(other, k) is other
    with pytest.raises(TypeError, match="targets must be a tensor"):
        ops.rows_of(classes.tolist(), k)


@law("check_generator", "widest", seed=st.integers(0, 2**63 - 1))
def test_a_seed_is_no_generator(seed):
    ops.check_generator(torch.Generator().manual_seed(seed))
    ops.check_generator(None)
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator or None, got .*manual_seed"):
        ops.check_generator(seed)
    assert ops.widest(torch.device("mps")) == torch.float32
    assert {ops.widest(torch.device(kind)) for kind in ("cpu", "cuda")} == {torch.float64}


@law(
    "check_batch",
    "check_examples",
    "batch_size",
    b=sizes,
    more=st.integers(1, 3),
    rest=st.lists(sizes, max_size=3),
    data=data,
)
def test_examples_are_counted_and_looked_at(b, more, rest, data):
    inputs = data.draw(tensors(b, *rest))
    targets = torch.zeros(b, dtype=torch.long)
    ops.check_batch(inputs, targets)
    ops.check_examples(inputs, targets)
    ops.check_examples({"words": torch.zeros(b, 3, dtype=torch.long), "name": "x"}, targets)
    packed = torch.nn.utils.rnn.pack_sequence([torch.zeros(2)] * b)
    assert ops.batch_size(inputs) == ops.batch_size({"a": inputs}) == ops.batch_size(packed) == b
    for bad in (torch.nan, torch.inf, -torch.inf):
        spoilt = inputs.clone()
        spoilt[(-1,) * spoilt.ndim] = bad
        with pytest.raises(ValueError, match="inputs must be finite"):
            ops.check_batch(spoilt, targets)
    for check in (ops.check_batch, ops.check_examples):
        with pytest.raises(ValueError, match="targets"):
            check(inputs, torch.zeros(b + more))
        with pytest.raises(ValueError, match="inputs must hold at least one"):
            check(inputs[:0], targets[:0])
        with pytest.raises(TypeError, match="inputs"):
            check([inputs], targets)
        with pytest.raises(TypeError, match="targets"):
            check(inputs, [0] * b)
    with pytest.raises(ValueError, match="inputs"):
        ops.batch_size({"a": inputs, "b": torch.zeros(b + more)})
    with pytest.raises(ValueError, match="inputs"):
        ops.batch_size({})


@law("Gather", "gathered", "processes", b=sizes, d=sizes, even=st.booleans(), data=data)
def test_one_process_gathers_its_own_examples(b, d, even, data):
    values = data.draw(tensors(b, d))

    class Host:
        gather = ops.Gather(even=even)

    assert ops.processes() == 1
    assert ops.gathered(Host(), values) is values
    assert ops.gathered(object(), values) is values
    assert Host.gather.size(b, torch.device("cpu")) == b
