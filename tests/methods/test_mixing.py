"""Methods that mix linearly or paste: what becomes of images and targets, in loops, given what was drawn; the draws."""

import collections
import itertools
import math

import pytest
import torch
from scipy import stats

import references
import toy
from methods.shared import same_gradients
from multimix.methods import (
    AlignMix,
    CutMix,
    FMix,
    ManifoldMixup,
    Mixup,
    OptTransMix,
    ResizeMix,
    SaliencyMix,
    ZetaMixup,
)
from multimix.ops import Boxes, draw_mask, zeta_weights
from toy import seeded

MODES = ("batch", "pair", "elem")


def box_of(drawn, i):
    """Return example i's box as numbers."""
    (box,) = drawn.given.values()
    return tuple(box.of(i) if isinstance(box, Boxes) else box)


def blended(images, drawn):
    """Each example with its own lambda."""
    lams = torch.as_tensor(drawn.lam).double().expand(len(images)).tolist()
    pairs = zip(lams, enumerate(drawn.partners.tolist()), strict=True)
    return torch.stack([lam * images[i] + (1 - lam) * images[j] for lam, (i, j) in pairs]), lams


def pasted(images, drawn):
    mixed, kept = images.clone(), []
    for i, j in enumerate(drawn.partners.tolist()):
        top, bottom, left, right = box_of(drawn, i)
        mixed[i, :, top:bottom, left:right] = images[j, :, top:bottom, left:right]
        kept.append(1 - (bottom - top) * (right - left) / images[0, 0].numel())
    return mixed, kept


def masked(images, drawn):
    mask = drawn.given["kept"]
    return torch.where(mask == 0, images[drawn.partners], images), [float(mask.double().mean())] * len(images)


def shrunk(images, drawn):
    """Put the partner's nearest pixels where the small image lies."""
    (height, width), (h, w) = images.shape[2:], drawn.given["size"]
    mixed, rows, columns = images.clone(), torch.arange(h) * height // max(h, 1), torch.arange(w) * width // max(w, 1)
    places = zip(drawn.partners.tolist(), *drawn.given["corners"].tolist(), strict=True)
    for i, (j, top, left) in enumerate(places):
        mixed[i, :, top : top + h, left : left + w] = images[j][:, rows][:, :, columns]
    return mixed, [1 - h * w / (height * width)] * len(images)


LOOPS = {
    **{f"mixup-{mode}": (Mixup(0.4, mode), blended) for mode in MODES},
    **{f"cutmix-{mode}": (CutMix(mode=mode), pasted) for mode in MODES},
    "fmix": (FMix(), masked),
    "alignmix": (AlignMix(prob=0.0), blended),  # the steps that align nothing
    "resizemix": (ResizeMix(), shrunk),
    "saliencymix": (SaliencyMix(), pasted),
}


@pytest.mark.parametrize("shape", [(6, 6), (5, 9), (7, 20), (1, 1)])
@pytest.mark.parametrize("b", [1, 2, 7])
@pytest.mark.parametrize("name", LOOPS)
def test_images_and_targets_are_those_of_the_loop(name, b, shape):
    method, loop = LOOPS[name]
    images, rows = toy.batch(b, 3, *shape, dtype=torch.float64)[0], toy.soft_targets(b, 5, dtype=torch.float64)
    for seed in range(4):
        drawn = method.draw(None, images, rows, seeded(seed))
        mixed, kept = loop(images, drawn)
        ours = drawn.mix(images)
        torch.testing.assert_close(ours, mixed, rtol=1e-7, atol=1e-7)
        assert ours.data_ptr() != images.data_ptr()
        pairs = zip(kept, enumerate(drawn.partners.tolist()), strict=True)
        wanted = torch.stack([share * rows[i] + (1 - share) * rows[j] for share, (i, j) in pairs])
        torch.testing.assert_close(drawn.mix_targets(rows), wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("method", "alpha"),
    [
        *(
            (Mixup(0.4), 0.4),
            (Mixup(), 1.0),
            (ManifoldMixup(), 2.0),
            (AlignMix(prob=1.0), 2.0),
            (OptTransMix(0.5), 0.5),
        ),
        *((FMix(0.3), 0.3), (FMix(), 1.0)),
    ],
)
def test_lambda_is_beta_and_one_a_step(method, alpha):
    network, (inputs, _), generator = toy.vectors(), toy.batch(4, 1, 40, 40), seeded(1)
    drawn = [method.draw(network, inputs, None, generator) for _ in range(600)]
    lams = [torch.as_tensor(each.lam) for each in drawn]
    assert all(lam.shape == () for lam in lams)
    assert stats.kstest([float(lam) for lam in lams], stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    first = torch.bincount(torch.stack([each.partners[0] for each in drawn]), minlength=4)
    assert stats.chisquare(first.numpy()).pvalue > 1e-3


# ---------------------------------------------------------------------------------------------- who shares a draw


@pytest.mark.parametrize("cls", [Mixup, CutMix])
@pytest.mark.parametrize("b", [1, 2, 7, 8])
def test_partners_of_a_pair_are_each_others_and_share_the_draw(cls, b):
    images, targets = toy.batch(b, 3, 12, 12)
    for seed in range(5):
        drawn = cls(mode="pair").draw(None, images, targets, seeded(seed))
        assert drawn.partners[drawn.partners].tolist() == list(range(b))
        assert (drawn.partners == torch.arange(b)).sum() == b % 2
        assert torch.equal(drawn.lam, drawn.lam[drawn.partners])
        if cls is CutMix:
            assert [box_of(drawn, i) for i in range(b)] == [box_of(drawn, j) for j in drawn.partners.tolist()]
        elif b > 2:
            assert len(set(drawn.lam.tolist())) == (b + 1) // 2


def test_every_division_into_pairs_is_as_likely():
    images, generator = torch.zeros(4, 3), seeded(1)
    counts = collections.Counter(
        tuple(Mixup(mode="pair").draw(None, images, None, generator).partners.tolist()) for _ in range(900)
    )
    assert set(counts) == {(1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)}
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.02, 0.4, 1.0, 3.0])
@pytest.mark.parametrize("mode", MODES)
def test_lambdas_are_beta_and_independent(mode, alpha):
    """At 0.02 most lambdas are 0 or 1 as far as float32 can tell."""
    n, generator = 2000, seeded(2)
    if mode == "batch":
        draws = [Mixup(alpha, mode).draw(None, torch.zeros(3, 2), None, generator) for _ in range(n // 2)]
        lam = torch.tensor([float(drawn.lam) for drawn in draws], dtype=torch.float64)
    else:
        drawn = Mixup(alpha, mode).draw(None, torch.zeros(n, 2), None, generator)
        first = torch.arange(n) < drawn.partners if mode == "pair" else torch.ones(n, dtype=torch.bool)
        lam = drawn.lam.flatten()[first].double()
    assert ((lam >= 0) & (lam <= 1)).all()
    for edge in (0.1, 0.5, 0.9):
        share = stats.beta(alpha, alpha).cdf(edge)
        assert stats.binomtest(int((lam < edge).sum()), len(lam), share).pvalue > 1e-3 / 40  # for so many looks
    assert stats.spearmanr(lam[::2], lam[1::2]).pvalue > 1e-3 / 40


# ---------------------------------------------------------------------------------------------------------- CutMix


def test_boxes_of_examples_are_distributed_as_boxes_of_steps():
    images, generator = torch.zeros(400, 1, 7, 5), seeded(4)
    boxes = CutMix(mode="elem").draw(None, images, None, generator).given["boxes"]
    ours = [boxes.of(i) for i in range(400)]
    theirs = [CutMix().draw(None, images[:1], None, generator).given["box"] for _ in range(400)]
    assert [box.area for box in ours] == boxes.area.tolist()
    for name in ("top", "bottom", "left", "right", "area"):
        first, second = ([getattr(box, name) for box in boxes] for boxes in (ours, theirs))
        assert stats.ks_2samp(first, second).pvalue > 1e-3, name


def test_cutmix_area_is_that_of_uniform_lambda_and_centre():
    """The mean over lambda ~ U(0, 1), by quadrature, of the mean area over every centre."""
    generator, images = seeded(2), torch.zeros(1, 3, 8, 8)
    drawn = torch.tensor([1 - CutMix().draw(None, images, None, generator).lam for _ in range(3000)])
    boxes = [references.cut(8, 8, (i + 0.5) / 200, y, x) for i in range(200) for y in range(8) for x in range(8)]
    mean = sum((bottom - top) * (right - left) / 64 for top, bottom, left, right in boxes) / len(boxes)
    assert abs(float(drawn.mean()) - mean) < 4 * float(drawn.std()) / math.sqrt(3000)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_other_draws_of_cutmix_are_plain(probability, mode):
    images, generator, steps = torch.zeros(400, 1, 40, 40), seeded(5), 400 if mode == "batch" else 1

    def mixed(method):
        drawn = [torch.as_tensor(method.draw(None, images, None, generator).lam) for _ in range(steps)]
        return float((torch.stack(drawn) < 1).double().mean())

    expected = probability * mixed(CutMix(mode=mode))
    assert mixed(CutMix(prob=probability, mode=mode)) == pytest.approx(expected, abs=0.11 if probability else 0)


# ------------------------------------------------------------------------------------------------- FMix, ResizeMix


def noise(height, width, decay, generator):
    """The image by its defining sum over frequencies, of which the real part is taken."""
    normal = torch.view_as_complex(torch.randn(height, width, 2, generator=generator).double())
    image = torch.zeros(height, width, dtype=torch.float64)
    for v, u in itertools.product(range(height), range(width)):
        frequency = math.hypot(min(v, height - v) / height, min(u, width - u) / width)
        coefficient = normal[v, u] / max(frequency, 1 / max(height, width)) ** decay
        turns = v * torch.arange(height).view(-1, 1) / height + u * torch.arange(width) / width
        image += (coefficient * (2j * math.pi * turns.double()).exp()).real
    return image


@pytest.mark.parametrize("decay", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("shape", [(6, 6), (5, 7), (8, 3), (1, 4), (1, 1)])
def test_the_mask_is_the_top_of_the_sum_over_frequencies(shape, decay):
    image = noise(*shape, decay, seeded())
    for lam in (0.0, 0.3, 0.5, 1.0):
        mask = draw_mask(*shape, lam, decay, generator=seeded())
        n = round(lam * math.prod(shape))
        assert mask.sum() == n
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        if 0 < n < math.prod(shape):
            assert image[mask == 1].min() > image[mask == 0].max()


def test_bilinear_averages_what_a_pixel_covers():
    """A chessboard made half as large is grey, by the filter's weights at the edge and in the middle alike."""
    board = (torch.arange(8).view(-1, 1) + torch.arange(8)).remainder(2).double().expand(2, 1, 8, 8)
    drawn = ResizeMix(scales=(0.5, 0.5), interpolation="bilinear").draw(None, board, None, seeded())
    drawn.given["corners"] = torch.tensor([[0, 4], [0, 4]])
    mixed = drawn.mix(board)
    torch.testing.assert_close(mixed[0, 0, :4, :4], torch.full((4, 4), 0.5, dtype=torch.float64), rtol=0, atol=0.05)
    assert set(mixed[0, 0, 4:].flatten().tolist()) == {0.0, 1.0}


def test_scales_are_uniform_and_one_a_step_and_places_are_uniform_and_one_an_image():
    images, generator = torch.zeros(1, 1, 1000, 500), seeded(1)
    sizes = [ResizeMix().draw(None, images, None, generator).given["size"] for _ in range(500)]
    assert stats.kstest([h / 1000 for h, _ in sizes], stats.uniform(0.1, 0.7).cdf).pvalue > 1e-3
    assert all(h // 2 == w for h, w in sizes)
    drawn = ResizeMix(scales=(0.5, 0.5)).draw(None, torch.zeros(900, 1, 8, 5), None, seeded(2))
    assert drawn.given["size"] == (4, 2)
    top, left = drawn.given["corners"]
    counts = torch.bincount(top * 4 + left, minlength=20)
    assert len(counts) == 20
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


# ------------------------------------------------------------------------------------------------------ zeta-mixup


def test_every_order_of_the_others_is_as_likely_in_every_row():
    generator = seeded(1)
    draws = torch.stack([zeta_weights(4, 2.8, generator=generator) for _ in range(600)])
    orders = draws.argsort(-1, descending=True)
    for i in range(4):
        counts = collections.Counter(tuple(order) for order in orders[:, i].tolist())
        assert len(counts) == 6
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    together = collections.Counter((tuple(a), tuple(b)) for a, b in orders[:, :2].tolist())
    assert len(together) == 36


@pytest.mark.parametrize("shape", [(8,), (3, 5, 4)])
def test_zeta_mixup_equals_the_sums(shape):
    inputs, rows = toy.batch(7, *shape)[0], toy.soft_targets(7, 5)
    weights = references.rows(ZetaMixup().draw(None, inputs, rows, seeded()).weights)
    for ours, values in zip(ZetaMixup().mix(inputs, rows, generator=seeded()), (inputs, rows), strict=True):
        truth = torch.tensor(references.mix(weights, references.rows(values.flatten(1)))).view_as(values)
        torch.testing.assert_close(ours, truth.float(), rtol=1e-5, atol=1e-5)


# -------------------------------------------------------------------------------------------------- manifold mixup


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_manifold_mixup_equals_the_loop(stage):
    network = toy.images().double().eval()
    inputs, targets = toy.batch(7, 3, 6, 6, dtype=torch.float64)
    method = ManifoldMixup(stages=(stage,))
    drawn = method.draw(network, inputs, targets, seeded())
    hidden, partners, lam = inputs, drawn.partners, float(drawn.lam)
    assert drawn.stage == stage
    for i, block in enumerate(network.blocks):
        hidden = block(hidden)
        if i == stage:
            hidden = references.pairs(hidden, partners, lam)
    logits = network.classifier(hidden.flatten(2).mean(2))
    wanted = references.pairs(toy.one_hot(targets, dtype=torch.float64), partners, lam)
    ours = method(network, inputs, targets, generator=seeded()).total
    same_gradients(ours, references.soft_cross_entropy(logits, wanted), network.parameters())


@pytest.mark.parametrize(
    ("stages", "available", "dtype"),
    [((0, 1, 2), {0, 1, 2}, None), ((0, 2), {0, 2}, None), ((1, 2, 7), {1, 2}, None), ((0, 1, 2), {1, 2}, torch.long)],
)
def test_manifold_mixup_chooses_each_stage_alike(stages, available, dtype):
    network, inputs, generator = toy.images(), toy.batch(2, 3, 6, 6)[0].to(dtype or torch.float32), seeded(4)
    drawn = [ManifoldMixup(stages=stages).draw(network, inputs, None, generator).stage for _ in range(900)]
    counts = [drawn.count(stage) for stage in sorted(available)]
    assert sum(counts) == 900
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.bad_input
def test_a_network_without_any_of_the_stages_is_named():
    with pytest.raises(ValueError, match=r"stages must name a stage of the network, \[0, 1, 2\], got \(7, 8\)"):
        ManifoldMixup(stages=(7, 8))(toy.vectors(), *toy.batch(7, 8))
