"""The comparisons of pairwise mixing do the same work on both sides."""

import pytest
import torch

from multimix.lab.bench import pairs
from multimix.methods import METHODS, CutMix, FMix, MixesInputs, Mixup

CPU = torch.device("cpu")


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("cls", [Mixup, CutMix])
def test_every_case_returns_images_and_soft_targets(cls, mode):
    comparison = pairs.against_timm(cls, mode, 4, 6, 5, 3, CPU)
    assert comparison.rounds == 3
    assert [case.most for case in comparison.cases if case.most] == [1.0 if mode == "batch" else 1.5]
    for case in (comparison.baseline, *comparison.cases):
        images, targets = case.call()
        assert images.shape == (4, 3, 6, 6)
        assert targets.shape == (4, 5)
        torch.testing.assert_close(targets.sum(1), torch.ones(4))


def test_every_method_that_mixes_inputs_alone_has_its_turn_at_both_sizes(monkeypatch):
    monkeypatch.setattr(pairs, "SIZES", ((4, 6, 5, 3), (4, 7, 5, 3)))
    made = [make() for make in pairs.pair_comparisons(CPU)]
    names = [comparison.name for comparison in made]
    assert names[: len(names) // 2] == names[len(names) // 2 :]
    modes = {f"{name} and soft targets, {mode}" for name in ("mixup", "cutmix") for mode in ("batch", "pair", "elem")}
    alone = [
        cls
        for cls in METHODS
        if issubclass(cls, MixesInputs) and cls.mixes and not cls.needs_network and not hasattr(cls, "prepare")
    ]
    assert set(names) == modes | {f"{cls.name} and soft targets" for cls in alone if cls not in (Mixup, CutMix)}
    assert FMix in alone
    for comparison in made[len(modes) : len(names) // 2]:
        for case in (comparison.baseline, *comparison.cases):
            images, targets = case.call()
            assert (images.shape, targets.shape) == ((4, 3, 6, 6), (4, 5))
