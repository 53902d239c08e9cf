"""Boxes, styles, transport, barycentres, saliency and cuts: against loops, brute force, or what must not change."""

import math
from unittest import mock

import torch
from hypothesis import strategies as st
from torch import Tensor

import references
from fuzz.strategies import chance, close, generator, largest, law, normals, on_simplex, shares, simplices, tensors
from multimix import ops


@law("paste_box", "paste_boxes", "paste_where")
def test_boxes_are_pasted_pixel_by_pixel(b, c, h, w, seed, data):
    images = data.draw(tensors(b, c, h, w))
    before = images.clone()
    partners = ops.draw_partners(b, generator=generator(seed))
    box = ops.draw_box(h, w, 0.4, generator=generator(seed))
    assert torch.equal(ops.paste_box(images, partners, box), references.cutmix(images, partners, tuple(box)))
    lam = ops.beta(b, 1.0, generator=generator(seed))
    boxes = ops.draw_boxes(h, w, lam, generator=generator(seed))
    for large in (1, math.inf):  # box by box, and by one mask
        with mock.patch("multimix.ops._images._LARGE", large):
            found = ops.paste_boxes(images, partners, boxes)
        for i in range(b):
            assert torch.equal(found[i], references.cutmix(images, partners, tuple(boxes.of(i)))[i])
    kept = ops.draw_mask(h, w, 0.5, 2.0, generator=generator(seed))
    where = ops.paste_where(images, partners, kept)
    assert torch.equal(where, torch.where(kept.bool(), images, images[partners]))
    assert torch.equal(images, before)


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    values, count = images.double(), images.shape[2] * images.shape[3]
    mean = values.sum((2, 3), keepdim=True) / count
    variance = (values - mean).square().sum((2, 3), keepdim=True) / max(count - 1, 1)
    return mean, (variance + 1e-5).sqrt()


def adain(content: Tensor, style: Tensor) -> Tensor:
    (mean, std), (new_mean, new_std) = statistics(content), statistics(style)
    return (content.double() - mean) / std * new_std + new_mean


@law(
    *("channel_statistics", "mix_styles", "exchange_styles", "paste_styles"),
    **dict.fromkeys(("rc", "rs", "at"), shares.map(lambda share: torch.tensor(share, dtype=torch.float64))),
)
def test_styles_are_mixed_as_the_equations_say(b, c, h, w, rc, rs, at, data):
    images = data.draw(normals(b, c, h, w, kind=st.sampled_from(["normal", "zero", "constant"])))
    for found, expected in zip(ops.channel_statistics(images), statistics(images), strict=True):
        close(found, expected, scale=10)
    partners = ops.draw_partners(b, generator=generator(b))
    first, second = images, images[partners]
    one, other = adain(first, second), adain(second, first)
    low, high = (rc + rs - 1).clamp(min=0), torch.minimum(rc, rs)
    t = low + at * (high - low)
    scale = 1 + largest(first, one, other)
    mixed = t * first + (1 - rc - rs + t) * second + (rc - t) * one + (rs - t) * other
    close(ops.mix_styles(images, partners, rc, rs, t), mixed, torch.float32, scale=scale)
    exchanged = ops.exchange_styles(images, partners)
    close(exchanged, torch.cat([one, other]), torch.float32, scale=scale)
    box = ops.draw_box(h, w, 0.5, generator=generator(c))
    pasted = ops.paste_styles(images, exchanged, partners, box, rs, at)
    theirs = (1 - rs) * second + rs * (at * second + (1 - at) * other)
    ours = rs * first + (1 - rs) * (at * first + (1 - at) * one)
    inside = torch.zeros(h, w, dtype=torch.bool)
    inside[box.top : box.bottom, box.left : box.right] = True
    close(pasted, torch.where(inside, ours, theirs), torch.float32, scale=scale)


@law("barycentre", n=st.integers(1, 3), m=st.integers(1, 3), epsilon=st.sampled_from([1e-5, 2e-3, 0.02, 1.0]))
def test_barycentres_have_mass_1_and_know_no_order(h, w, n, m, epsilon, data):
    many = (data.draw(normals(m, h, w)).abs() + 1e-6).expand(n, m, h, w)
    weights = data.draw(simplices(n, m))
    found = ops.barycentre(many, weights, epsilon=epsilon, iterations=15)
    assert found.shape == (n, h, w)
    on_simplex(found.flatten(1), torch.float32)
    order = torch.randperm(m, generator=generator(n))
    for masses, shares_there, back in (
        (many[:, order], weights[:, order], lambda again: again),
        (many.flip(-1), weights, lambda again: again.flip(-1)),
        (many.mT, weights, lambda again: again.mT),
    ):
        again = ops.barycentre(masses, shares_there, epsilon=epsilon, iterations=15)
        close(back(again), found, torch.float32, scale=1.0)


@law("static_saliency", "saliency_peaks", h=st.integers(1, 12), w=st.integers(1, 12))
def test_saliency_is_that_of_each_image_alone(c, r, h, w, kind, data):
    images = data.draw(tensors(r, c, h, w, kind=kind))
    found = ops.static_saliency(images)
    assert found.shape == (r, h, w)
    assert bool(((found >= 0) & (found <= 2)).all())
    assert torch.equal(found, torch.cat([ops.static_saliency(images[i : i + 1]) for i in range(r)]))
    assert not bool(ops.static_saliency(images[:, :1, :1, :1].expand(r, c, h, w)).any())
    assert torch.equal(found, ops.static_saliency(images * 2))  # exact in binary
    for i, (row, column) in enumerate(ops.saliency_peaks(found).tolist()):
        values = found[i].flatten().tolist()
        assert row * w + column == values.index(max(values))


@law("transport_blocks", eps=st.sampled_from([0.0, 0.1, 0.8, 5.0, 1e9]))
def test_blocks_move_only_where_it_pays(r, h, w, eps, share, kind, data):
    saliency = data.draw(tensors(r, h, w, dtype=torch.float32, kind=kind)).abs()
    seen = chance(share, r, h, w, seed=h)
    found = ops.transport_blocks(saliency, seen, eps)
    places = torch.arange(h * w).view(h, w).expand(r, h, w)
    assert torch.equal(found[~seen], places[~seen])
    price = eps / max(h - 1, w - 1, 1) ** 2
    for i in range(r):
        shown = found[i][seen[i]].tolist()
        assert len(set(shown)) == len(shown)
        values = saliency[i].flatten().tolist()
        for here, block in zip(places[i][seen[i]].tolist(), shown, strict=True):
            cost = price * ((here // w - block // w) ** 2 + (here % w - block % w) ** 2)
            assert values[block] - cost >= -1e-5 * (1 + cost)
            assert values[block] - cost >= values[here] - 1e-5 * (1 + max(values))


def energy(masks: Tensor, costs: Tensor, beta: float) -> float:
    """What Co-Mixup minimises where nothing is crowded."""
    jumps = masks.diff(dim=1).square().sum() + masks.diff(dim=2).square().sum()
    return float((masks * costs.movedim(0, -1)).sum() + beta / (2 * costs[0].numel()) * jumps)


@law(
    "comix_masks",
    examples=15,
    **dict.fromkeys(("b", "n", "h", "w"), st.integers(1, 4)),
    beta=st.sampled_from([0.0, 0.3, 5.0]),
    gamma=st.sampled_from([0.0, 1.0]),
    settle=st.booleans(),
)
def test_cells_take_one_input_or_two_and_cost_no_more(b, n, h, w, beta, gamma, settle, kind, data):
    costs = data.draw(normals(b, h, w, kind=kind))
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
        most = energy(before, costs, beta) * (1 + 1e-9) + bonus + 1e-6 * largest(costs)
        assert energy(found, costs, beta) <= most
