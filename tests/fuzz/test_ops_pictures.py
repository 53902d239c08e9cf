"""Boxes, styles, transport, barycentres, saliency and cuts: against loops, brute force, or what must not change."""

import itertools
import math

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

import references
from fuzz.strategies import (
    close,
    generator,
    kinds,
    laid,
    law,
    layouts,
    on_simplex,
    seeds,
    shares,
    simplices,
    sizes,
    tensors,
)
from multimix import ops

data = st.data()
sides = st.integers(1, 6)
number = torch.tensor


@law("paste_box", "paste_boxes", "paste_where", b=sizes, c=st.integers(1, 4), h=sides, w=sides, seed=seeds, data=data)
def test_boxes_are_pasted_pixel_by_pixel(b, c, h, w, seed, data):
    images = data.draw(tensors(b, c, h, w))
    before = images.clone()
    partners = ops.draw_partners(b, generator=generator(seed))
    box = ops.draw_box(h, w, 0.4, generator=generator(seed))
    assert torch.equal(ops.paste_box(images, partners, box), references.cutmix(images, partners, tuple(box)))
    lam = ops.beta(b, 1.0, generator=generator(seed))
    boxes = ops.draw_boxes(h, w, lam, generator=generator(seed))
    found = ops.paste_boxes(images, partners, boxes)
    for i in range(b):
        each = references.cutmix(images, partners, tuple(boxes.of(i)))
        assert torch.equal(found[i], each[i])
    kept = ops.draw_mask(h, w, 0.5, 2.0, generator=generator(seed))
    where = ops.paste_where(images, partners, kept)
    assert torch.equal(where, torch.where(kept.bool(), images, images[partners]))
    assert torch.equal(images, before)


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, one after the other."""
    b, c = images.shape[:2]
    mean, std = torch.zeros(b, c, 1, 1, dtype=torch.float64), torch.zeros(b, c, 1, 1, dtype=torch.float64)
    for i, j in itertools.product(range(b), range(c)):
        values = images[i, j].double().flatten().tolist()
        mean[i, j] = m = sum(values) / len(values)
        std[i, j] = math.sqrt(sum((v - m) ** 2 for v in values) / max(len(values) - 1, 1) + 1e-5)
    return mean, std


def adain(content: Tensor, style: Tensor) -> Tensor:
    mean, std = statistics(content)
    new_mean, new_std = statistics(style)
    return (content.double() - mean) / std * new_std + new_mean


@law(
    "channel_statistics",
    "mix_styles",
    "exchange_styles",
    "paste_styles",
    b=sizes,
    c=st.integers(1, 3),
    h=sides,
    w=sides,
    rc=shares,
    rs=shares,
    at=shares,
    data=data,
)
def test_styles_are_mixed_as_the_equations_say(b, c, h, w, rc, rs, at, data):
    images = data.draw(tensors(b, c, h, w, dtype=torch.float64, kind=st.sampled_from(["normal", "zero", "constant"])))
    for found, expected in zip(ops.channel_statistics(images), statistics(images), strict=True):
        close(found, expected, scale=10)
    partners = ops.draw_partners(b, generator=generator(b))
    first, second = images, images[partners]
    one, other = adain(first, second), adain(second, first)
    low, high = max(0.0, rc + rs - 1), min(rc, rs)
    t = low + at * (high - low)
    expected = t * first + (1 - rc - rs + t) * second + (rc - t) * one + (rs - t) * other
    found = ops.mix_styles(images, partners, *(number(share, dtype=torch.float64) for share in (rc, rs, t)))
    scale = 1 + max(float(values.abs().max()) for values in (first, one, other))
    close(found, expected, torch.float32, scale=scale)
    exchanged = ops.exchange_styles(images, partners)
    close(exchanged, torch.cat([one, other]), torch.float32, scale=scale)
    box = ops.draw_box(h, w, 0.5, generator=generator(c))
    pasted = ops.paste_styles(images, exchanged, partners, box, number(rs), number(at))
    theirs = (1 - rs) * second + rs * (at * second + (1 - at) * other)
    ours = rs * first + (1 - rs) * (at * first + (1 - at) * one)
    inside = torch.zeros(h, w, dtype=torch.bool)
    inside[box.top : box.bottom, box.left : box.right] = True
    close(pasted, torch.where(inside, ours, theirs), torch.float32, scale=scale)


def plain_sinkhorn(cost: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The iteration in logarithms, of one pair."""
    logs = -cost.double() / epsilon
    r, s = logs.shape
    g = torch.zeros(s, dtype=torch.float64)
    for _ in range(iterations):
        f = -torch.logsumexp(logs + g, 1) - math.log(r)
        g = -torch.logsumexp(logs + f[:, None], 0) - math.log(s)
    return (logs + f[:, None] + g).exp()


@law(
    "sinkhorn",
    examples=40,
    r=sides,
    s=sides,
    lead=st.lists(st.integers(1, 3), max_size=2),
    epsilon=st.sampled_from([1e-3, 0.1, 10.0]),
    iterations=st.integers(1, 30),
    kind=kinds,
    data=data,
)
def test_transport_plans_are_those_of_the_plain_iteration(r, s, lead, epsilon, iterations, kind, data):
    cost = data.draw(tensors(*lead, r, s, dtype=torch.float64, kind=kind)).abs()
    found = ops.sinkhorn(cost, epsilon, iterations=iterations)
    expected = torch.stack([plain_sinkhorn(pair, epsilon, iterations) for pair in cost.reshape(-1, r, s)])
    close(found, expected.view(cost.shape), torch.float32, scale=1.0)
    assert float(found.min()) >= 0
    close(found.sum(-2), torch.full((*lead, s), 1 / s, dtype=torch.float64), torch.float32)
    for name, wrong in {
        "epsilon": {"epsilon": 0.0},
        "iterations": {"iterations": 0},
        "tolerance": {"tolerance": math.nan},
    }.items():
        with pytest.raises(ValueError, match=name):
            ops.sinkhorn(cost, **wrong)


@law(
    "barycentre",
    h=sides,
    w=sides,
    n=st.integers(1, 3),
    m=st.integers(1, 3),
    epsilon=st.sampled_from([1e-5, 2e-3, 0.02, 1.0]),
    data=data,
)
def test_barycentres_have_mass_1_and_know_no_order(h, w, n, m, epsilon, data):
    masses = data.draw(tensors(m, h, w, dtype=torch.float64, kind="normal")).abs() + 1e-6
    weights = data.draw(simplices(n, m))
    many = masses.expand(n, m, h, w)
    found = ops.barycentre(many, weights, epsilon=epsilon, iterations=15)
    assert found.shape == (n, h, w)
    on_simplex(found.flatten(1), torch.float32)
    order = torch.randperm(m, generator=generator(n))
    again = ops.barycentre(many[:, order], weights[:, order], epsilon=epsilon, iterations=15)
    close(again, found, torch.float32, scale=1.0)
    mirrored = ops.barycentre(many.flip(-1), weights, epsilon=epsilon, iterations=15)
    close(mirrored.flip(-1), found, torch.float32, scale=1.0)
    turned = ops.barycentre(many.mT, weights, epsilon=epsilon, iterations=15)
    close(turned.mT, found, torch.float32, scale=1.0)


@law(
    "static_saliency",
    "saliency_peaks",
    b=st.integers(1, 3),
    c=st.integers(1, 4),
    h=st.integers(1, 12),
    w=st.integers(1, 12),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    kind=kinds,
    data=data,
)
def test_saliency_is_that_of_each_image_alone(b, c, h, w, dtype, kind, data):
    images = data.draw(tensors(b, c, h, w, dtype=dtype, kind=kind))
    found = ops.static_saliency(images)
    assert found.shape == (b, h, w)
    assert bool(((found >= 0) & (found <= 2)).all())
    alone = torch.cat([ops.static_saliency(images[i : i + 1]) for i in range(b)])
    assert torch.equal(found, alone)
    flat = images[:, :1, :1, :1].expand(b, c, h, w)
    assert not bool(ops.static_saliency(flat).any())
    doubled = ops.static_saliency(images * 2)  # exact in binary
    assert torch.equal(found, doubled)
    for i, (row, column) in enumerate(ops.saliency_peaks(found).tolist()):
        values = found[i].flatten().tolist()
        assert row * w + column == values.index(max(values))


@law(
    "transport_blocks",
    b=st.integers(1, 3),
    h=sides,
    w=sides,
    eps=st.sampled_from([0.0, 0.1, 0.8, 5.0, 1e9]),
    kind=kinds,
    data=data,
)
def test_blocks_move_only_where_it_pays(b, h, w, eps, kind, data):
    saliency = data.draw(tensors(b, h, w, dtype=torch.float32, kind=kind)).abs()
    seen = torch.rand(b, h, w, generator=generator(h)) < data.draw(shares)
    found = ops.transport_blocks(saliency, seen, eps)
    places = torch.arange(h * w).view(h, w).expand(b, h, w)
    assert torch.equal(found[~seen], places[~seen])
    price = eps / max(h - 1, w - 1, 1) ** 2
    for i in range(b):
        shown = found[i][seen[i]].tolist()
        assert len(set(shown)) == len(shown)
        for here, block in zip(places[i][seen[i]].tolist(), shown, strict=True):
            distance = (here // w - block // w) ** 2 + (here % w - block % w) ** 2
            gain = float(saliency[i].flatten()[block]) - price * distance
            assert gain >= -1e-5 * (1 + price * distance)
            assert gain >= float(saliency[i].flatten()[here]) - 1e-5 * (1 + float(saliency.max()))
    with pytest.raises(ValueError, match="eps"):
        ops.transport_blocks(saliency, seen, math.nan)


def energy(masks: Tensor, costs: Tensor, beta: float) -> float:
    """What Co-Mixup minimises where nothing is crowded."""
    n, h, w, b = masks.shape
    total = 0.0
    for i, y, x in itertools.product(range(n), range(h), range(w)):
        total += sum(float(masks[i, y, x, k] * costs[k, y, x]) for k in range(b))
        for there in ((y + 1, x), (y, x + 1)):
            if there[0] < h and there[1] < w:
                total += beta / (2 * h * w) * float((masks[i, y, x] - masks[i][there]).square().sum())
    return total


@law(
    "comix_masks",
    examples=15,
    b=st.integers(1, 4),
    n=st.integers(1, 3),
    h=st.integers(1, 4),
    w=st.integers(1, 4),
    beta=st.sampled_from([0.0, 0.3, 5.0]),
    gamma=st.sampled_from([0.0, 1.0]),
    settle=st.booleans(),
    kind=kinds,
    data=data,
)
def test_cells_take_one_input_or_two_and_cost_no_more(b, n, h, w, beta, gamma, settle, kind, data):
    costs = data.draw(tensors(b, h, w, dtype=torch.float64, kind=kind))
    affinity = torch.rand(b, b, generator=generator(b), dtype=torch.float64)
    affinity = (affinity + affinity.T) / 2
    start = torch.randint(b, (n, h, w), generator=generator(n))
    found = ops.comix_masks(costs, affinity, start, beta=beta, gamma=gamma, tau=0.5, settle=settle)
    assert found.shape == (n, h, w, b)
    assert set(found.unique().tolist()) <= {0.0, 0.5, 1.0}
    on_simplex(found)
    if gamma == 0:
        before = torch.nn.functional.one_hot(start, b).double()
        bonus = 5e-4 * n * h * w  # for blends, which may cost so much more
        assert energy(found, costs, beta) <= energy(before, costs, beta) * (1 + 1e-9) + bonus + 1e-6 * float(
            costs.abs().max()
        )


@law(
    "solve_ordered_labels",
    examples=25,
    h=st.integers(1, 3),
    w=st.integers(1, 2),
    count=st.integers(1, 3),
    weight=st.sampled_from([0.0, 0.2, 3.0]),
    seed=seeds,
    layout=layouts,
)
def test_labels_are_the_best_there_are(h, w, count, weight, seed, layout):
    draw = generator(seed)
    steps = torch.randn(2, count, h, w, generator=draw, dtype=torch.float64).sort(1).values  # so that costs are convex
    unary = laid(steps.cumsum(1), layout)
    vertical = weight * torch.rand(2, h - 1, w, generator=draw, dtype=torch.float64)
    horizontal = weight * torch.rand(2, h, w - 1, generator=draw, dtype=torch.float64)
    found = ops.solve_ordered_labels(unary, vertical, horizontal)

    def cost(grid: int, chosen: tuple[int, ...]) -> float:
        cells = torch.tensor(chosen, dtype=torch.float64).view(h, w)
        own = unary[grid].gather(0, cells.long().unsqueeze(0)).sum()
        down, right = cells.diff(dim=0).square() * vertical[grid], cells.diff(dim=1).square() * horizontal[grid]
        return float(own + down.sum() + right.sum())

    for grid in range(2):
        best = min(cost(grid, chosen) for chosen in itertools.product(range(count), repeat=h * w))
        assert cost(grid, tuple(found[grid].flatten().tolist())) == pytest.approx(best, abs=1e-6)
    with pytest.raises(ValueError, match="unary must be finite"):
        ops.solve_ordered_labels(unary * math.nan, vertical, horizontal)
