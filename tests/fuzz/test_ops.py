"""Interpolation, attention, losses and objectives against loops in float64, on arguments that nobody would choose."""

from importlib import import_module

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

import references
from fuzz.strategies import (
    COVERED,
    close,
    dtypes,
    full_dtypes,
    generator,
    labels,
    law,
    on_simplex,
    shares,
    simplices,
    sizes,
    tensors,
)
from multimix import ops

FORMS = ["auto", "plain", "commuted", "fused"]
data = st.data()


def test_every_op_has_a_law():
    for name in ("test_ops_draws", "test_ops_inputs", "test_ops_pictures"):
        import_module(f"fuzz.{name}")
    assert set(ops.__all__) == COVERED


@law("interpolate", n=sizes, m=sizes, rest=st.lists(sizes, max_size=3), dtype=dtypes, data=data)
def test_interpolation_is_a_sum(n, m, rest, dtype, data):
    values, weights = data.draw(tensors(m, *rest, dtype=dtype)), data.draw(simplices(n, m, dtype=dtype))
    found = ops.interpolate(weights, values)
    assert found.dtype == dtype
    scale = max(float(values.double().abs().max()), 1e-30)
    close(found, references.interpolate(weights, values), scale=scale)
    order = torch.randperm(m, generator=generator(n))
    close(ops.interpolate(weights[:, order], values[order]), found.double(), dtype, scale=scale)


@law(
    "attention",
    examples=40,
    b=sizes,
    r=sizes,
    d=sizes,
    query=st.sampled_from(["gap", "cam", "uniform"]),
    activation=st.sampled_from(["relu", "softmax"]),
    dtype=dtypes,
    data=data,
)
def test_attention_sums_to_1_whatever_the_features(b, r, d, query, activation, dtype, data):
    features = data.draw(tensors(b, r, d, dtype=dtype))
    weights = data.draw(tensors(b, d, dtype=dtype, kind="normal"))
    found = ops.attention(features, query=query, activation=activation, class_weights=weights)
    on_simplex(found)
    assert found.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    if dtype == torch.float64 and float(features.abs().max()) < 1e3:
        close(found, references.attention(features, query, activation, weights), torch.float32)
    mask = torch.rand(b, r, generator=generator(b)) < 0.6
    hidden = torch.where(mask.unsqueeze(-1), features, torch.nan)
    among = ops.attention(hidden, query=query, activation=activation, class_weights=weights, mask=mask)
    assert not bool(among[~mask].any())
    close(among.sum(1), mask.any(1).to(among.dtype), torch.float32)


@law("reweight", n=sizes, b=sizes, r=sizes, own=st.booleans(), data=data)
def test_reweighting_normalises_and_knows_no_order(n, b, r, own, data):
    weights = data.draw(simplices(r, n, b)) if own else data.draw(simplices(n, b))
    confidence = data.draw(tensors(b, r, dtype=torch.float64)).abs()
    confidence = torch.where(torch.rand(b, r, generator=generator(n)) < 0.3, 0, confidence)
    found = ops.reweight(weights, confidence)
    on_simplex(found)
    close(found, references.reweight(weights, confidence))
    order = torch.randperm(b, generator=generator(r))
    close(ops.reweight(weights[..., order], confidence[order]), found[..., order])
    counting = (torch.rand(b, r, generator=generator(b)) < 0.5).double()
    among = ops.reweight(weights, confidence, counting=counting)
    assert not bool((among * (1 - counting).T.unsqueeze(1)).any())
    sums = among.sum(-1)
    assert bool(((sums - 1).abs().lt(1e-9) | sums.eq(0)).all())


@law("balance_gain", "balance_gradient", "shares_of", b=sizes, n=sizes, d=sizes, power=shares, data=data)
def test_balancing_is_that_of_the_loops(b, n, d, power, data):
    weights, values = data.draw(simplices(n, b)), data.draw(tensors(b, d, dtype=torch.float64, kind="normal"))
    confidence = data.draw(tensors(b, 1, dtype=torch.float64)).abs()
    shares_there = ops.shares_of(confidence)
    assert ops.shares_of(None) is None
    assert shares_there is not None
    on_simplex(shares_there)
    gain = ops.balance_gain(weights)
    close(ops.balance_gain(weights, power), gain**power, scale=float(gain) + 1)
    for centre in (None, shares_there[0]):
        upstream = torch.randn(b, d, generator=generator(d), dtype=torch.float64)
        leaf = values.detach().clone().requires_grad_()
        out = ops.balance_gradient(leaf, ops.balance_gain(weights, centre=centre), centre)
        assert torch.equal(out, leaf)
        out.backward(upstream)
        where = None if centre is None else centre.tolist()
        expected = references.balance(upstream.tolist(), weights.tolist(), where)
        assert leaf.grad is not None
        size = float(upstream.abs().max() * (1 + float(ops.balance_gain(weights, centre=centre))))
        close(leaf.grad, torch.tensor(expected, dtype=torch.float64), torch.float32, scale=size)


@law(
    "mixed_cross_entropy",
    "mixed_losses",
    "LossKeywords",
    "LossOptions",
    "Impl",
    "LazyWeights",
    examples=50,
    b=sizes,
    n=sizes,
    k=sizes,
    dtype=dtypes,
    taught=st.booleans(),
    balanced=st.booleans(),
    gamma=shares,
    impl=st.sampled_from(FORMS),
    chunk=st.sampled_from([None, 1, 2, 5]),
    data=data,
)
def test_mixed_losses_are_those_of_the_loops(b, n, k, dtype, taught, balanced, gamma, impl, chunk, data):
    logits = data.draw(tensors(b, k, dtype=dtype, kind=st.sampled_from(["normal", "zero", "constant", "wide"])))
    targets, weights = data.draw(labels(b, k)), data.draw(simplices(n, b))
    teacher = data.draw(tensors(b, k, dtype=dtype, kind="normal")) if taught else None
    leaf = logits.detach().clone().requires_grad_()
    options = {"teacher_logits": teacher, "gamma": gamma, "balanced": balanced, "impl": impl, "chunk": chunk}
    found = ops.mixed_losses(leaf, targets, weights, ops.LossOptions(**options))
    exact = dtype == torch.float64
    rough = torch.float64 if exact else torch.float32
    expected = references.mixed_cross_entropy(logits, targets, weights, teacher, gamma)
    close(
        found.total.detach(),
        torch.tensor(expected, dtype=torch.float64),
        rough,
        scale=1 + float(logits.double().abs().max()),
    )
    same = ops.mixed_cross_entropy(logits, targets, weights, **options)
    assert float(same) == pytest.approx(float(found.total.detach()))
    found.total.backward()
    assert leaf.grad is not None
    truth = references.mixed_gradient(logits, targets, weights, teacher, gamma, balanced=balanced)
    gain = float(ops.balance_gain(weights)) if balanced else 1.0
    close(leaf.grad, truth, dtype, scale=1 + gain)
    lazy = ops.LazyWeights(n, lambda rows: weights[:rows])
    if chunk is None:
        again = ops.mixed_losses(logits, targets, lazy, ops.LossOptions(**options)).total
        close(again, found.total.detach().double(), rough, scale=1 + float(logits.double().abs().max()))


@law("mixed_cross_entropy", b=sizes, n=sizes, k=sizes, impl=st.sampled_from(FORMS), dtype=dtypes, data=data)
def test_mixed_losses_of_extreme_logits_are_finite(b, n, k, impl, dtype, data):
    leaf = data.draw(tensors(b, k, dtype=dtype)).detach().clone() * 1e4
    leaf.requires_grad_()
    targets, weights = data.draw(labels(b, k)), data.draw(simplices(n, b))
    loss = ops.mixed_cross_entropy(leaf, targets, weights, impl=impl)
    loss.backward()
    assert bool(loss.isfinite())
    assert leaf.grad is not None
    assert bool(leaf.grad.isfinite().all())
    assert float(leaf.grad.abs().max()) <= 1.01


@law(
    "dense_mixed_cross_entropy",
    examples=40,
    b=sizes,
    n=sizes,
    r=st.integers(1, 4),
    k=sizes,
    own=st.booleans(),
    taught=st.booleans(),
    balanced=st.booleans(),
    impl=st.sampled_from(FORMS),
    data=data,
)
def test_dense_mixed_losses_are_those_of_the_loops(b, n, r, k, own, taught, balanced, impl, data):
    logits = data.draw(tensors(b, r, k, dtype=torch.float64, kind="normal"))
    teacher = data.draw(tensors(b, r, k, dtype=torch.float64, kind="normal")) if taught else None
    targets = data.draw(labels(b, k))
    weights = data.draw(simplices(r, n, b)) if own else data.draw(simplices(n, b))
    confidence = data.draw(tensors(b, r, dtype=torch.float64)).abs()
    leaf = logits.detach().clone().requires_grad_()
    options = {"teacher_logits": teacher, "gamma": 0.3, "balanced": balanced, "impl": impl}
    loss = ops.dense_mixed_cross_entropy(leaf, targets, weights, confidence, **options)
    value = float(loss.detach())
    given = (logits, targets, weights, confidence, teacher, 0.3 if taught else 1.0)
    expected = references.dense_mixed_cross_entropy(*given)
    assert value == pytest.approx(expected, rel=1e-9, abs=1e-9)
    loss.backward()
    truth = references.dense_mixed_gradient(*given, balanced=balanced)
    assert leaf.grad is not None
    close(leaf.grad, truth, torch.float32, scale=max(1.0, float(truth.abs().max())))


OBJECTIVES = [
    ops.CROSS_ENTROPY,
    ops.CrossEntropy(label_smoothing=0.2),
    ops.CrossEntropy(ignore_index=-7),
    ops.BinaryCrossEntropy(),
    ops.BinaryCrossEntropy(label_smoothing=0.1),
    ops.SquaredError(),
]


def row_loss(objective: ops.Objective, outputs: list[float], target: list[float]) -> float:
    """The loss of one row, in Python."""
    if isinstance(objective, ops.CrossEntropy):
        return -sum(t * p for t, p in zip(target, references.log_softmax(outputs), strict=True))
    if isinstance(objective, ops.BinaryCrossEntropy):
        pairs = zip(target, outputs, strict=True)
        losses = [
            -t * references.log_softmax([x, 0.0])[0] - (1 - t) * references.log_softmax([x, 0.0])[1] for t, x in pairs
        ]
        return sum(losses) / len(losses)
    return sum((x - t) ** 2 for t, x in zip(target, outputs, strict=True)) / len(target)


def draw_targets(data, objective: ops.Objective, b: int, k: int) -> Tensor:
    if isinstance(objective, ops.CrossEntropy):
        return data.draw(labels(b, k, soft=False))
    values = data.draw(tensors(b, k, dtype=full_dtypes, kind="normal"))
    return values.sigmoid() if isinstance(objective, ops.BinaryCrossEntropy) else values


@law(
    "mixed_losses",
    "Objective",
    "CROSS_ENTROPY",
    "CrossEntropy",
    "BinaryCrossEntropy",
    "SquaredError",
    "check_fit",
    "objective_of",
    examples=40,
    b=sizes,
    n=sizes,
    k=sizes,
    objective=st.sampled_from(OBJECTIVES),
    data=data,
)
def test_mixed_objectives_are_those_of_the_loops(b, n, k, objective, data):
    outputs = data.draw(tensors(b, k, dtype=torch.float64, kind=st.sampled_from(["normal", "zero", "wide"])))
    targets, weights = draw_targets(data, objective, b, k), data.draw(simplices(n, b))
    wanted = objective.targets(targets, k, dtype=torch.float64)
    ops.check_fit(targets, wanted, outputs)
    with pytest.raises(ValueError, match="targets for outputs"):
        ops.check_fit(targets, wanted, torch.cat([outputs, outputs]))
    mixed, inherited = (references.mix(weights.tolist(), values.tolist()) for values in (outputs, wanted))
    rows = [row_loss(objective, *row) for row in zip(mixed, inherited, strict=True)]
    found = ops.mixed_losses(outputs, targets, weights, ops.LossOptions(objective=objective))
    scale = 1 + max(abs(row) for row in rows)
    close(found.total, torch.tensor(sum(rows) / n, dtype=torch.float64), torch.float32, scale=scale)
    told = objective.predictions(outputs)
    options = ops.LossOptions(objective=objective, teacher_logits=outputs, gamma=0.25, balanced=True)
    taught = ops.mixed_losses(outputs, targets, weights, options)
    blend = 0.25 * taught.terms["labels"] + 0.75 * taught.terms["teacher"]
    close(taught.total, blend, torch.float32, scale=scale + float(told.abs().max()))

    class Host:
        pass

    host = Host()
    assert ops.objective_of(host) is ops.CROSS_ENTROPY
    host.objective = objective  # type: ignore[attr-defined]
    assert ops.objective_of(host) is objective
    host.objective = "cross-entropy"  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="objective"):
        ops.objective_of(host)


@law("mixed_losses", b=sizes, n=sizes, r=st.integers(1, 4), k=sizes, objective=st.sampled_from(OBJECTIVES), data=data)
def test_what_a_mask_hides_has_no_part(b, n, r, k, objective, data):
    outputs = data.draw(tensors(b, r, k, dtype=torch.float64, kind="normal"))
    targets, weights = draw_targets(data, objective, b, k), data.draw(simplices(r, n, b))
    mask = torch.rand(b, r, generator=generator(k)) < 0.6
    losses = []
    for noise in (0.0, 5.0):
        leaf = (outputs + noise * ~mask.unsqueeze(-1)).requires_grad_()
        options = ops.LossOptions(objective=objective, mask=mask, balanced=True)
        loss = ops.mixed_losses(leaf, targets, weights, options).total
        loss.backward()
        assert leaf.grad is not None
        assert bool(leaf.grad.isfinite().all())
        assert not bool(leaf.grad[~mask].any())
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-9, abs=1e-12)
