"""Mixup and CutMix with one lambda or box a step, a pair or an example, against loops over the mini-batch."""

import collections
import math

import pytest
import torch
from scipy import stats

import references
import toy
from multimix.methods import CutMix, Mixup
from multimix.ops import Boxes
from multimix.protocols import Teacher
from toy import seeded

MODES = ("batch", "pair", "elem")


def box_of(drawn, i):
    """Return example i's box as numbers."""
    (box,) = drawn.given.values()
    return tuple(box.of(i) if isinstance(box, Boxes) else box)


def loop(values, drawn):
    """Mix example after example, each with its own lambda."""
    lam = drawn.lam.tolist() if isinstance(drawn.lam, torch.Tensor) else drawn.lam
    lams = lam if isinstance(lam, list) else [lam] * len(values)
    return torch.stack([lams[i] * values[i] + (1 - lams[i]) * values[j] for i, j in enumerate(drawn.partners.tolist())])


def pasted(images, drawn):
    """Paste example after example."""
    one = [references.cutmix(images, drawn.partners, box_of(drawn, i))[i] for i in range(len(images))]
    return torch.stack(one)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("b", [1, 2, 7, 8])
@pytest.mark.parametrize("mode", MODES)
def test_mixup_equals_the_loop(mode, b, soft):
    inputs, targets = toy.batch(b, 3, 6, 5, dtype=torch.float64)
    soft_targets = toy.soft_targets(b, 5, dtype=torch.float64)
    method = Mixup(0.4, mode)
    drawn = method.draw(None, inputs, targets, seeded())
    mixed, wanted = method.mix(inputs, soft_targets if soft else targets, num_classes=5, generator=seeded())
    truth = soft_targets if soft else toy.one_hot(targets, dtype=torch.float64)
    torch.testing.assert_close(mixed, loop(inputs, drawn), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(wanted.double(), loop(truth, drawn), rtol=1e-5, atol=1e-6)
    assert drawn.lam.shape == (() if mode == "batch" else (b,))


@pytest.mark.parametrize("shape", [(6, 6), (5, 9), (1, 1)])
@pytest.mark.parametrize("b", [1, 2, 7])
@pytest.mark.parametrize("mode", MODES)
def test_cutmix_equals_the_loop(mode, b, shape):
    images, targets = toy.batch(b, 3, *shape)
    for seed in range(5):
        drawn = CutMix(mode=mode).draw(None, images, targets, seeded(seed))
        mixed, wanted = CutMix(mode=mode).mix(images, targets, num_classes=5, generator=seeded(seed))
        assert torch.equal(mixed, pasted(images, drawn))
        torch.testing.assert_close(wanted, loop(toy.one_hot(targets), drawn), rtol=1e-5, atol=1e-6)
        for i in range(b):
            top, bottom, left, right = box_of(drawn, i)
            kept = 1 - (bottom - top) * (right - left) / math.prod(shape)
            assert float(torch.as_tensor(drawn.lam).expand(b)[i]) == pytest.approx(kept)


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
    """Of two examples that share no draw; at 0.02 most lambdas are 0 or 1 as far as float32 can tell.

    With 40 looks at the draws in all, each may err once in 40 000 times.
    """
    n, inputs, generator = 2000, torch.zeros(3, 2), seeded(2)
    drawn = [Mixup(alpha, mode).draw(None, inputs, None, generator).lam.expand(3) for _ in range(n)]
    lam = torch.stack(drawn).double()
    assert lam.isfinite().all()
    assert ((lam >= 0) & (lam <= 1)).all()
    for edge in (0.1, 0.5, 0.9):
        share = stats.beta(alpha, alpha).cdf(edge)
        assert stats.binomtest(int((lam[:, 0] < edge).sum()), n, share).pvalue > 1e-3 / 40
    if mode == "elem":
        assert stats.spearmanr(lam[:, 0], lam[:, 1]).pvalue > 1e-3 / 40


def test_boxes_of_examples_are_distributed_as_boxes_of_steps():
    images, generator = torch.zeros(400, 1, 7, 5), seeded(4)
    many = CutMix(mode="elem").draw(None, images, None, generator)
    boxes = many.given["boxes"]
    ours = [boxes.of(i) for i in range(400)]
    theirs = [CutMix().draw(None, images[:1], None, generator).given["box"] for _ in range(400)]
    assert [box.area for box in ours] == boxes.area.tolist()
    for name in ("top", "bottom", "left", "right", "area"):
        first, second = ([getattr(box, name) for box in boxes] for boxes in (ours, theirs))
        assert stats.ks_2samp(first, second).pvalue > 1e-3, name


@pytest.mark.parametrize("mode", ["pair", "elem"])
@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_the_other_draws_are_plain(mode, probability):
    images = torch.zeros(400, 1, 40, 40)
    method = CutMix(prob=probability, mode=mode)
    lam = method.draw(None, images, None, seeded(5)).lam
    always = CutMix(mode=mode).draw(None, images, None, seeded(6)).lam
    expected = probability * float((always < 1).float().mean())
    assert float((lam < 1).float().mean()) == pytest.approx(expected, abs=0.11 if probability else 0)


@pytest.mark.parametrize("mode", ["pair", "elem"])
@pytest.mark.parametrize("cls", [Mixup, CutMix])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_and_layouts(cls, dtype, mode):
    images, targets = toy.batch(7, 3, 6, 4)
    truth, wanted = cls(mode=mode).mix(images, targets, num_classes=5, generator=seeded())
    for layout in (torch.contiguous_format, torch.channels_last):
        cast = images.to(dtype).contiguous(memory_format=layout)
        mixed, probabilities = cls(mode=mode).mix(cast, targets, num_classes=5, generator=seeded())
        assert mixed.dtype == dtype
        torch.testing.assert_close(mixed.float(), truth, rtol=2e-2, atol=2e-2)
        assert torch.equal(probabilities, wanted)


@pytest.mark.parametrize("mode", ["pair", "elem"])
@pytest.mark.parametrize("cls", [Mixup, CutMix])
def test_the_gradient_goes_where_the_data_came_from(cls, mode):
    images, targets = toy.batch(5, 3, 4, 4, dtype=torch.float64)
    images.requires_grad_()
    drawn = cls(mode=mode).draw(None, images, targets, seeded())
    scale = torch.randn(5, 3, 4, 4, generator=seeded(1), dtype=torch.float64)
    (ours,) = torch.autograd.grad((drawn.mix(images) * scale).sum(), images)
    again = pasted(images, drawn) if cls is CutMix else loop(images, drawn)
    (truth,) = torch.autograd.grad((again * scale).sum(), images)
    torch.testing.assert_close(ours, truth, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("mode", ["pair", "elem"])
@pytest.mark.parametrize("cls", [Mixup, CutMix])
def test_a_teacher_sees_its_view_mixed_alike(cls, mode):
    student, teacher = toy.images().eval(), toy.images(seed=1).eval()
    inputs, targets = toy.batch(7, 3, 6, 6)
    other = toy.batch(7, 3, 6, 6, seed=5)[0]
    method = cls(mode=mode)
    drawn = method.draw(student, inputs, targets, seeded())
    method(student, inputs, targets, generator=seeded(), teacher=Teacher(teacher, other, 0.3))
    torch.testing.assert_close(teacher.seen[-1], pasted(other, drawn) if cls is CutMix else loop(other, drawn))


@pytest.mark.bad_input
@pytest.mark.parametrize("mode", MODES)
def test_cutmix_names_itself_where_it_needs_images(mode):
    with pytest.raises(ValueError, match=r"images of shape \(b, c, h, w\) for CutMix, got \(7, 8\)"):
        CutMix(mode=mode).mix(*toy.batch(7, 8), num_classes=5)
