import copy
import pickle

import pytest
import timm
import torch
from timm.data.mixup import Mixup as TimmOwn
from timm.data.mixup import mixup_target
from timm.loss import SoftTargetCrossEntropy
from torch import nn

import multimix as mm
from multimix.integrations.timm import MultiMixLoss, TimmMixup

MIXES = {
    "mixup": mm.Mixup,
    "cutmix": mm.CutMix,
    "alternate": lambda: mm.Alternate((mm.Mixup(), mm.CutMix(), mm.ERM())),
    "nested": lambda: mm.Alternate((mm.methods.FMix(), mm.Alternate((mm.methods.ResizeMix(), mm.Mixup(mode="elem"))))),
}


def train_one_epoch(model, batches, optimizer, loss_fn, mixup_fn=None):
    """What timm's train.py does with a mini-batch where the loader does not prefetch."""
    found = []
    for images, targets in batches:
        if mixup_fn is not None:
            images, targets = mixup_fn(images, targets)
        loss = loss_fn(model(images), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("method", [MIXES["mixup"], MIXES["cutmix"], MIXES["nested"]])
def test_mixing_function_equals_the_own_loop(toy, method):
    mixup_fn = TimmMixup(method(), label_smoothing=0.0, num_classes=4, seed=3)
    mine = torch.optim.SGD(toy.model.parameters(), lr=0.05)
    losses = train_one_epoch(toy.model, toy.batches * 2, mine, SoftTargetCrossEntropy(), mixup_fn)
    theirs = torch.optim.SGD(toy.twin.parameters(), lr=0.05)
    expected = toy.own_loop(toy.adapt(toy.twin), method(), toy.batches * 2, theirs, seed=3)
    assert losses == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(toy.model.state_dict(), toy.twin.state_dict(), atol=1e-6, rtol=0)


def test_loss_function_is_the_packages_own():
    assert MultiMixLoss is mm.MultiMixLoss is mm.integrations.MultiMixLoss


@pytest.mark.parametrize(
    "way",
    [
        lambda: {"loss_fn": MultiMixLoss(tuples=64, label_smoothing=0.1)},
        lambda: {"loss_fn": SoftTargetCrossEntropy(), "mixup_fn": TimmMixup(mm.CutMix(), num_classes=4)},
    ],
    ids=["multimix", "cutmix"],
)
def test_loss_falls_on_a_model_of_timm(toy, way):
    model = timm.create_model("test_vit", num_classes=4, img_size=12, patch_size=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    before = nn.functional.cross_entropy(model(toy.images), toy.labels).item()
    train_one_epoch(model, toy.batches * 8, optimizer, **way())
    assert nn.functional.cross_entropy(model(toy.images), toy.labels).item() < 0.8 * before


@pytest.mark.parametrize("method", MIXES.values(), ids=MIXES)
@pytest.mark.parametrize("b", [1, 2, 7])
def test_any_batch_size_soft_targets_and_nothing_changed(toy, method, b):
    images, labels = toy.images[:b], toy.labels[:b]
    kept = images.clone(), labels.clone()
    mixed, soft = TimmMixup(method(), num_classes=4)(images, labels)
    assert mixed.shape == images.shape
    assert soft.shape == (b, 4)
    torch.testing.assert_close(soft.sum(1), torch.ones(b))
    assert torch.equal(images, kept[0])
    assert torch.equal(labels, kept[1])


def test_smooths_labels_as_timm_does_once_disabled(toy):
    ours = TimmMixup(mm.Mixup(), num_classes=4, label_smoothing=0.1)
    ours.mixup_enabled = False
    images, soft = ours(toy.images, toy.labels)
    assert torch.equal(images, toy.images)
    torch.testing.assert_close(soft, mixup_target(toy.labels, 4, 1.0, 0.1))


def test_lambda_weighs_the_first_example():
    # Inputs that are their own labels: what the inputs hold of the first, the labels hold, too.
    labels = torch.arange(5)
    images = nn.functional.one_hot(labels, 5).float().view(5, 5, 1, 1)
    mixed, soft = TimmMixup(mm.Mixup(), num_classes=5, label_smoothing=0.0)(images, labels)
    torch.testing.assert_close(mixed.flatten(1), soft)


def test_has_what_the_script_reads(toy):
    ours, timms = TimmMixup(num_classes=4), TimmOwn(num_classes=4)
    for name in ("mixup_enabled", "mix_prob", "label_smoothing", "num_classes"):
        assert getattr(ours, name) == getattr(timms, name)
    ours.mix_prob = 0.0
    assert ours.mixup_prob == 0.0
    assert torch.equal(ours(toy.images, toy.labels)[0], toy.images)


def test_probability_is_that_of_mixing(toy):
    mixup_fn = TimmMixup(mm.Mixup(), prob=0.3, num_classes=4)
    mixed = sum(not torch.equal(mixup_fn(*toy.batches[0])[0], toy.batches[0][0]) for _ in range(400))
    assert 0.22 * 400 < mixed < 0.38 * 400


def test_generator_follows_torchs_seed_without_drawing_from_it(toy):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = TimmMixup(mm.Mixup(), num_classes=4)(toy.images, toy.labels)
    assert torch.equal(torch.get_rng_state(), state)
    again = TimmMixup(mm.Mixup(), num_classes=4, seed=7)(toy.images, toy.labels)
    torch.testing.assert_close(first, again)


def test_network_reaches_methods_that_ask_for_it(toy):
    mixup_fn = TimmMixup(mm.methods.PuzzleMix(grids=(2, 4)), num_classes=4, network=toy.adapt(toy.model))
    mixed, soft = mixup_fn(*toy.batches[0])
    assert mixed.shape == toy.batches[0][0].shape
    assert soft.shape == (9, 4)


def test_copies_and_pickles(toy):
    made = TimmMixup(mm.Mixup(), num_classes=4, seed=1)
    made(toy.images, toy.labels)  # has a generator now
    one, other = pickle.loads(pickle.dumps(made)), copy.deepcopy(made)  # noqa: S301
    torch.testing.assert_close(one(toy.images, toy.labels), other(toy.images, toy.labels))


@pytest.mark.bad_input
def test_bad_arguments_are_named(toy):
    with pytest.raises(TypeError, match=r"method must mix inputs, such as Mixup\(\) or CutMix\(\), got MultiMix"):
        TimmMixup(mm.MultiMix())
    with pytest.raises(TypeError, match="got ManifoldMixup"):
        TimmMixup(mm.Alternate((mm.Mixup(), mm.ManifoldMixup())))
    with pytest.raises(ValueError, match="network must be given: PuzzleMix"):
        TimmMixup("puzzlemix")
    with pytest.raises(TypeError, match=r"num_classes must be an integer, got 4\.0"):
        TimmMixup(num_classes=4.0)
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        TimmMixup(num_classes=0)
    with pytest.raises(ValueError, match=r"prob must lie in \[0, 1\], got 1.5"):
        TimmMixup(prob=1.5)
    with pytest.raises(ValueError, match=r"targets must lie in 0\.\.1"):
        TimmMixup(num_classes=2)(toy.images, toy.labels)
