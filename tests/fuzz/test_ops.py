"""Attention, losses, objectives and what they take, against loops in float64, on arguments that nobody would choose."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

import references
from fuzz.strategies import (
    COVERED,
    chance,
    close,
    full_dtypes,
    generator,
    gradient,
    labels,
    laid,
    largest,
    law,
    normals,
    on_simplex,
    simplices,
    sizes,
    tensors,
)
from multimix import ops
from ops.samples import Sample, true_gradient, truth


def test_every_op_has_a_law():
    for name in ("fuzz.test_ops_draws", "fuzz.test_ops_images", "ops.test_blocks", "ops.test_sinkhorn"):
        import_module(name)
    assert set(ops.__all__) == COVERED


@law("interpolate")
def test_interpolation_is_a_sum(n, m, rest, dtype, data):
    values, weights = data.draw(tensors(m, *rest, dtype=dtype)), data.draw(simplices(n, m, dtype=dtype))
    found = ops.interpolate(weights, values)
    assert found.dtype == dtype
    close(found, references.interpolate(weights, values), scale=largest(values))
    order = torch.randperm(m, generator=generator(n))
    close(ops.interpolate(weights[:, order], values[order]), found.double(), dtype, scale=largest(values))


@law(
    "attention",
    examples=40,
    query=st.sampled_from(["gap", "cam", "uniform"]),
    activation=st.sampled_from(["relu", "softmax"]),
)
def test_attention_sums_to_1_whatever_the_features(b, r, d, query, activation, dtype, data):
    features = data.draw(tensors(b, r, d, dtype=dtype))
    weights = data.draw(tensors(b, d, dtype=dtype, kind="normal"))
    options = {"query": query, "activation": activation, "class_weights": weights if query == "cam" else None}
    found = ops.attention(features, **options)
    on_simplex(found)
    assert found.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    mask = chance(0.6, b, r, seed=b)
    among = ops.attention(torch.where(mask.unsqueeze(-1), features, torch.nan), **options, mask=mask)
    if dtype == torch.float64 and largest(features) < 1e3:
        close(found, references.attention(features, query, activation, weights), torch.float32)
        for i in mask.any(1).nonzero()[:, 0].tolist():
            alone = references.attention(features[i : i + 1, mask[i]], query, activation, weights[i : i + 1])
            close(among[i : i + 1, mask[i]], alone, torch.float32)
    assert not bool(among[~mask].any())
    close(among.sum(1), mask.any(1), torch.float32)


@law("reweight")
def test_reweighting_normalises_and_knows_no_order(n, b, r, own, data):
    weights = data.draw(simplices(r, n, b) if own else simplices(n, b))
    confidence = data.draw(tensors(b, r, dtype=torch.float64)).abs()
    confidence = torch.where(chance(0.3, b, r, seed=n), 0, confidence)
    found = ops.reweight(weights, confidence)
    on_simplex(found)
    close(found, references.reweight(weights, confidence))
    order = torch.randperm(b, generator=generator(r))
    close(ops.reweight(weights[..., order], confidence[order]), found[..., order])
    counting = chance(0.5, b, r, seed=b).double()
    among = ops.reweight(weights, confidence, counting=counting)
    assert not bool((among * (1 - counting).T.unsqueeze(1)).any())
    part, sums = weights * (confidence * counting).T.unsqueeze(1), among.sum(-1)
    close(among * part.sum(-1, keepdim=True), part * sums.unsqueeze(-1), scale=largest(part))
    assert bool(((sums - 1).abs().lt(1e-9) | sums.eq(0)).all())


@law("balance_gain", "balance_gradient", "shares_of")
def test_balancing_is_that_of_the_loops(b, n, d, share, data):
    weights, values = data.draw(simplices(n, b)), data.draw(normals(b, d))
    assert ops.shares_of(None) is None
    shares_there = ops.shares_of(data.draw(tensors(b, 1, dtype=torch.float64)).abs())
    on_simplex(shares_there)
    gain = ops.balance_gain(weights)
    close(ops.balance_gain(weights, share), gain**share, scale=float(gain) + 1)
    for centre in (None, shares_there[0]):
        upstream = torch.randn(b, d, generator=generator(d), dtype=torch.float64)
        leaf = values.clone().requires_grad_()
        gain = ops.balance_gain(weights, centre=centre)
        out = ops.balance_gradient(leaf, gain, centre)
        assert torch.equal(out, leaf)
        out.backward(upstream)
        where = None if centre is None else centre.tolist()
        expected = references.balance(upstream.tolist(), weights.tolist(), where)
        close(leaf.grad, expected, torch.float32, scale=largest(upstream) * (1 + float(gain)))


@law(
    *("mixed_cross_entropy", "dense_mixed_cross_entropy", "mixed_losses", "LossKeywords", "Impl", "LazyWeights"),
    examples=90,
    r=st.integers(0, 4),
    chunk=st.sampled_from([None, 1, 2, 5]),
)
def test_mixed_losses_are_those_of_the_loops(b, n, r, k, own, dtype, taught, balanced, share, impl, chunk, data):
    shape = (b, r, k) if r else (b, k)
    logits = data.draw(tensors(*shape, dtype=dtype, kind=st.sampled_from(["normal", "zero", "constant", "wide"])))
    teacher = data.draw(tensors(*shape, dtype=dtype, kind="normal")) if taught else None
    weights = data.draw(simplices(r, n, b) if r and own else simplices(n, b))
    attention = data.draw(tensors(b, r, dtype=torch.float64)).abs() if r else None
    s = Sample(logits, data.draw(labels(b, k)), weights, attention, teacher, share)
    options = {"balanced": balanced, "impl": impl, "chunk": chunk}
    rough, scale = torch.float64 if dtype == torch.float64 else torch.float32, 1 + largest(logits)
    close(s.loss(**options), truth(s), rough, scale=scale)
    rows = weights if attention is None else ops.reweight(weights, attention)
    gain = float(ops.balance_gain(rows, centre=ops.shares_of(attention)).max()) if balanced else 1.0
    close(s.gradient(**options), true_gradient(s, balanced=balanced), dtype, scale=1 + gain)
    if chunk is None and not (r and own):
        lazy = ops.LazyWeights(n, lambda rows: weights[:rows])
        close(replace(s, weights=lazy).loss(**options), s.loss(**options), rough, scale=scale)


OBJECTIVES = [
    ops.CROSS_ENTROPY,
    ops.CrossEntropy(label_smoothing=0.2),
    ops.CrossEntropy(ignore_index=-7),
    ops.BinaryCrossEntropy(),
    ops.BinaryCrossEntropy(label_smoothing=0.1),
    ops.SquaredError(),
]


def row_loss(objective: ops.Objective, outputs: list[float], target: list[float]) -> float:
    pairs = list(zip(target, outputs, strict=True))
    if isinstance(objective, ops.CrossEntropy):
        return -sum(t * p for t, p in zip(target, references.log_softmax(outputs), strict=True))
    if isinstance(objective, ops.BinaryCrossEntropy):
        logs = [(t, references.log_softmax([x, 0.0])) for t, x in pairs]
        return sum(-t * yes - (1 - t) * no for t, (yes, no) in logs) / len(logs)
    return sum((x - t) ** 2 for t, x in pairs) / len(pairs)


def draw_targets(data, objective: ops.Objective, b: int, k: int) -> Tensor:
    if isinstance(objective, ops.CrossEntropy):
        return data.draw(labels(b, k, soft=False))
    values = data.draw(tensors(b, k, dtype=full_dtypes, kind="normal"))
    return values.sigmoid() if isinstance(objective, ops.BinaryCrossEntropy) else values


@law(
    *("Objective", "LossOptions", "CROSS_ENTROPY", "CrossEntropy", "BinaryCrossEntropy"),
    *("SquaredError", "check_fit", "objective_of"),
    examples=40,
    objective=st.sampled_from(OBJECTIVES),
)
def test_mixed_objectives_are_those_of_the_loops(b, n, k, objective, data):
    outputs = data.draw(normals(b, k, kind=st.sampled_from(["normal", "zero", "wide"])))
    targets, weights = draw_targets(data, objective, b, k), data.draw(simplices(n, b))
    wanted = objective.settled(objective.targets(targets, k, dtype=torch.float64), k)[..., -k:]
    assert ops.objective_of(object()) is ops.CROSS_ENTROPY
    assert ops.objective_of(type("Host", (), {"objective": objective})()) is objective
    ops.check_fit(targets, wanted, outputs)
    with pytest.raises(ValueError, match="targets for outputs"):
        ops.check_fit(targets, wanted, torch.cat([outputs, outputs]))
    mixed, inherited = (references.mix(weights.tolist(), values.tolist()) for values in (outputs, wanted))
    rows = [row_loss(objective, *row) for row in zip(mixed, inherited, strict=True)]
    found = ops.mixed_losses(outputs, targets, weights, ops.LossOptions(objective=objective))
    scale = 1 + max(abs(row) for row in rows)
    close(found.total, sum(rows) / n, torch.float32, scale=scale)
    options = ops.LossOptions(objective=objective, teacher_logits=outputs, gamma=0.25, balanced=True)
    taught = ops.mixed_losses(outputs, targets, weights, options)
    blend = 0.25 * taught.terms["labels"] + 0.75 * taught.terms["teacher"]
    close(taught.total, blend, torch.float32, scale=scale + largest(objective.predictions(outputs)))


@law("SampleWeighted", "Rows", objective=st.sampled_from(OBJECTIVES))
def test_examples_count_as_much_as_their_weights(b, k, objective, data):
    outputs, targets = data.draw(normals(b, k)), draw_targets(data, objective, b, k)
    counts, weighted = chance(0.7, b, seed=k) * torch.arange(1.0, b + 1), ops.SampleWeighted(objective)
    counts[0] = 0.5
    joined = weighted.join(targets, counts, k, dtype=torch.float64)
    wanted = objective.settled(joined[:, 1:], k)
    assert torch.equal(objective.targets(wanted.as_subclass(ops.Rows), k, dtype=torch.float64), wanted)
    losses = [row_loss(objective, *row) for row in zip(outputs.tolist(), wanted[:, -k:].tolist(), strict=True)]
    expected = sum(w * loss for w, loss in zip(counts.tolist(), losses, strict=True)) / float(counts.sum())
    close(weighted(outputs, joined), expected, torch.float32, scale=1 + max(map(abs, losses)))


@law("mixed_losses", objective=st.sampled_from(OBJECTIVES))
def test_what_a_mask_hides_has_no_part(b, n, r, k, objective, data):
    outputs = data.draw(normals(b, r, k))
    targets, weights = draw_targets(data, objective, b, k), data.draw(simplices(r, n, b))
    mask = chance(0.6, b, r, seed=k)
    losses = []
    for noise in (0.0, 5.0):
        leaf = (outputs + noise * ~mask.unsqueeze(-1)).requires_grad_()
        options = ops.LossOptions(objective=objective, mask=mask, balanced=True)
        loss = ops.mixed_losses(leaf, targets, weights, options).total
        assert not bool(gradient(loss, leaf)[~mask].any())
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-9, abs=1e-12)


@law("soft_cross_entropy", lead=st.lists(sizes, min_size=1, max_size=3))
def test_soft_cross_entropy_is_that_of_the_loops(lead, k, dtype, data):
    logits, targets = data.draw(tensors(*lead, k, dtype=dtype)), data.draw(simplices(*lead, k)).to(dtype)
    rows = (references.rows(values.reshape(-1, k)) for values in (logits, targets))
    close(ops.soft_cross_entropy(logits, targets), references.cross_entropy(*rows), scale=1 + largest(logits))


@law("as_probabilities", "rows_of")
def test_probabilities_are_rows_of_the_simplex(b, k, dtype, layout, data):
    targets = data.draw(labels(b, k))
    found = ops.as_probabilities(targets, k, dtype=dtype)
    assert found.dtype == dtype
    close(found, references.one_hot(targets, k), dtype)
    for wrong in (torch.full((b,), k), torch.full((b, k), 2.0), torch.full((b, k), torch.nan)):
        with pytest.raises(ValueError, match="targets"):
            ops.as_probabilities(laid(wrong, layout), k)
    classes = data.draw(labels(b, k + 1, soft=False)).long()
    one_hot = torch.eye(k + 1, dtype=torch.uint8)[classes]
    assert torch.equal(ops.rows_of(one_hot, k + 1), one_hot.float())
    assert torch.equal(ops.as_probabilities(one_hot, k + 1, dtype=dtype), one_hot.to(dtype))
    for other in (classes, one_hot.float(), 2 * one_hot, torch.ones_like(one_hot)):
        assert ops.rows_of(other, k + 1) is other


@law("accurate", "no_autocast")
def test_half_precision_is_worked_on_in_full(b, k, dtype, data):
    values = data.draw(tensors(b, k, dtype=dtype))
    found = ops.accurate(values)
    assert found.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    assert torch.equal(found, values.to(found.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16), ops.no_autocast("cpu"):
        assert (found.float() @ found.float().mT).dtype == torch.float32


@law("check_generator", "check_batch", "check_examples", "batch_size", more=st.integers(1, 3))
def test_examples_are_counted_and_looked_at(b, more, rest, data):
    inputs = data.draw(tensors(b, *rest))
    targets = torch.zeros(b, dtype=torch.long)
    ops.check_generator(generator(b))
    ops.check_batch(inputs, targets)
    ops.check_examples({"words": torch.zeros(b, 3, dtype=torch.long), "name": "x"}, targets)
    ops.check_examples(torch.nested.nested_tensor([torch.zeros(2).long()] * b, layout=torch.jagged), targets)
    packed = torch.nn.utils.rnn.pack_sequence([torch.zeros(2)] * b)
    assert ops.batch_size(inputs) == ops.batch_size({"a": inputs}) == ops.batch_size(packed) == b
    for wrong in ({"a": inputs, "b": torch.zeros(b + more)}, {}):
        with pytest.raises(ValueError, match="inputs"):
            ops.batch_size(wrong)
    for check in (ops.check_batch, ops.check_examples):
        with pytest.raises(ValueError, match="targets"):
            check(inputs, torch.zeros(b + more))
        with pytest.raises(ValueError, match="inputs must hold at least one"):
            check(inputs[:0], targets[:0])
        with pytest.raises(TypeError, match="inputs"):
            check([inputs], targets)
        with pytest.raises(TypeError, match="targets"):
            check(inputs, [0] * b)
    spoilt = inputs.clone()
    spoilt[(-1,) * spoilt.ndim] = data.draw(st.sampled_from([torch.nan, torch.inf, -torch.inf]))
    for check in (ops.check_batch, ops.check_examples):
        with pytest.raises(ValueError, match="inputs must be finite"):
            check(spoilt, targets)


@law("Gather", "gathered", "processes", "widest")
def test_one_process_gathers_its_own_examples(b, d, own, data):
    values = data.draw(tensors(b, d))
    host = type("Host", (), {"gather": ops.Gather(even=own)})()
    assert ops.processes() == 1
    assert ops.gathered(host, values) is values
    assert ops.gathered(object(), values) is values
    assert host.gather.size(b, torch.device("cpu")) == b
    assert [ops.widest(torch.device(kind)) for kind in ("mps", "cpu")] == [torch.float32, torch.float64]


WRONG = st.sampled_from([None, 1.0, "mse", torch.nn.CrossEntropyLoss()])


@law("check_objective", objective=st.sampled_from(OBJECTIVES), wrong=WRONG)
def test_what_is_no_objective_is_named(objective, wrong):
    assert ops.check_objective(objective) is objective
    with pytest.raises(TypeError, match=r"^mine must be an Objective such as CrossEntropy\(\), got"):
        ops.check_objective(wrong, "mine")
