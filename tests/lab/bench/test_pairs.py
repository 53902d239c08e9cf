"""The comparisons of pairwise mixing do the same work on both sides."""

import pytest
import torch

from multimix.lab.bench.pairs import against_timm, others_against_timm, pair_comparisons
from multimix.methods.cutmix import CutMix
from multimix.methods.fmix import FMix
from multimix.methods.mixup import Mixup
from multimix.methods.resizemix import ResizeMix
from multimix.methods.zetamixup import ZetaMixup

CPU = torch.device("cpu")


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("cls", [Mixup, CutMix])
def test_every_case_returns_images_and_soft_targets(cls, mode):
    comparison = against_timm(cls, mode, 4, 6, 5, 3, CPU)
    assert comparison.rounds == 3
    assert [case.most for case in comparison.cases if case.most] == [1.0 if mode == "batch" else 1.5]
    for case in (comparison.baseline, *comparison.cases):
        images, targets = case.call()
        assert images.shape == (4, 3, 6, 6)
        assert targets.shape == (4, 5)
        torch.testing.assert_close(targets.sum(1), torch.ones(4))


@pytest.mark.parametrize("cls", [FMix, ResizeMix, ZetaMixup])
def test_the_others_too(cls):
    comparison = others_against_timm(cls, 4, 6, 5, 3, CPU)
    for case in (comparison.baseline, *comparison.cases):
        images, targets = case.call()
        assert (images.shape, targets.shape) == ((4, 3, 6, 6), (4, 5))


def test_both_sizes_and_all_modes_have_their_turn():
    names = [make().name for make in pair_comparisons(CPU)[:9]]
    assert len(pair_comparisons(CPU)) == 18
    assert len(set(names)) == 9
