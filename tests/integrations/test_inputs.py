"""Mixing of inputs in the loops of timm and torchvision."""

import copy
import pickle

import pytest
import torch
from timm.data.mixup import Mixup as TimmOwn
from timm.data.mixup import mixup_target
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

import multimix as mm
from multimix.integrations.timm import MultiMixLoss, TimmMixup
from multimix.integrations.torchvision import MixCollate, MixTransform
from multimix.ops import BinaryCrossEntropy, CrossEntropy, SampleWeighted, SquaredError

MIXES = {
    "mixup": mm.Mixup,
    "cutmix": mm.CutMix,
    "alternate": lambda: mm.Alternate((mm.Mixup(), mm.CutMix(), mm.ERM())),
    "nested": lambda: mm.Alternate((mm.methods.FMix(), mm.Alternate((mm.methods.ResizeMix(), mm.Mixup(mode="elem"))))),
}


def plain_timm(method, **options):
    return TimmMixup(method, label_smoothing=0.0, **options)


def collated(method, **options):
    """A collate function as one of images and labels."""
    collate = MixCollate(method, **options)
    return lambda images, labels: collate(list(zip(images, labels, strict=True)))


class PlainMixup:
    """A method of one's own, of which only the loss is known."""

    name = "plain-mixup"

    def __call__(self, network, inputs, targets, *, generator=None, teacher=None):
        return mm.Mixup()(network, inputs, targets, generator=generator, teacher=teacher)


ways = pytest.mark.parametrize("way", [plain_timm, MixTransform, collated])
methods = pytest.mark.parametrize("method", MIXES.values(), ids=MIXES)


@ways
@methods
def test_equals_the_own_loop(toy, way, method):
    losses = toy.train(toy.model, toy.batches * 2, nn.CrossEntropyLoss(), way(method(), num_classes=4, seed=3))
    expected = toy.own_loop(toy.adapt(toy.twin), method(), toy.batches * 2)
    assert losses == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(toy.model.state_dict(), toy.twin.state_dict(), atol=1e-6, rtol=0)


@ways
@pytest.mark.parametrize("b", [1, 2, 7])
def test_several_labels_an_example(toy, way, b):
    labels = (torch.rand(b, 5) < 0.5).float()
    mixing = mm.Mixup().draw(None, toy.images[:b], labels, torch.Generator().manual_seed(3))
    for number in (5, None):
        mix = way(mm.Mixup(), num_classes=number, objective=BinaryCrossEntropy(), seed=3)
        expected = mixing.lam * labels + (1 - mixing.lam) * labels[mixing.partners]
        torch.testing.assert_close(mix(toy.images[:b], labels)[1], expected)


@pytest.mark.parametrize(
    ("objective", "targets", "smoothed"),
    [
        (BinaryCrossEntropy(), torch.tensor([[0.0, 1.0], [1.0, 1.0]]), [[0.05, 0.95], [0.95, 0.95]]),
        (CrossEntropy(ignore_index=-100), torch.tensor([1, -100]), [[0.05, 0.95], [0.0, 0.0]]),
        (None, torch.tensor([1, 0]), [[0.05, 0.95], [0.95, 0.05]]),
    ],
)
def test_smoothing_is_the_objectives(toy, objective, targets, smoothed):
    mix = TimmMixup(num_classes=2, objective=objective, prob=0.0)
    torch.testing.assert_close(mix(toy.images[:2], targets)[1], torch.tensor(smoothed))


@ways
@methods
@pytest.mark.parametrize("b", [1, 2, 7])
def test_any_batch_size_and_nothing_given_is_changed(toy, way, method, b):
    images, labels = toy.images[:b], toy.labels[:b]
    kept = images.clone(), labels.clone()
    mixed, soft = way(method(), num_classes=4)(images, labels)
    assert (mixed.shape, soft.shape) == (images.shape, (b, 4))
    torch.testing.assert_close(soft.sum(1), torch.ones(b))
    torch.testing.assert_close((images, labels), kept, atol=0, rtol=0)


@pytest.mark.parametrize("cls", [TimmMixup, MixTransform])
def test_copies_and_pickles_start_anew_from_the_seed(toy, cls):
    made = cls(num_classes=4, seed=1)  # input mixup, unless told otherwise
    first = made(toy.images, toy.labels)
    assert not torch.equal(first[0], made(toy.images, toy.labels)[0])
    for again in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), cls("mixup", num_classes=4, seed=1)):  # noqa: S301
        torch.testing.assert_close(again(toy.images, toy.labels), first)


def test_generator_follows_torchs_seed_without_drawing_from_it(toy):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = TimmMixup(mm.Mixup(), num_classes=4)(toy.images, toy.labels)
    assert torch.equal(torch.get_rng_state(), state)
    again = TimmMixup(mm.Mixup(), num_classes=4, seed=7)(toy.images, toy.labels)
    torch.testing.assert_close(first, again)


def test_smooths_labels_as_timm_does_once_disabled(toy):
    ours = TimmMixup(mm.Mixup(), num_classes=4)
    ours.mixup_enabled = False
    images, soft = ours(toy.images, toy.labels)
    assert torch.equal(images, toy.images)
    torch.testing.assert_close(soft, mixup_target(toy.labels, 4, 1.0, 0.1))


def test_has_what_timms_script_reads(toy):
    assert MultiMixLoss is mm.MultiMixLoss is mm.integrations.MultiMixLoss
    ours, timms = TimmMixup(), TimmOwn()
    for name in ("mixup_enabled", "mix_prob", "label_smoothing", "num_classes"):
        assert getattr(ours, name) == getattr(timms, name)
    with pytest.raises(AttributeError):
        ours.num_classes = 10  # which would come too late
    ours.mix_prob = 0.0
    assert ours.mixup_prob == 0.0
    assert torch.equal(ours(toy.images, toy.labels)[0], toy.images)


def test_probability_is_that_of_mixing(toy):
    mixup_fn = TimmMixup(mm.Mixup(), prob=0.3, num_classes=4)
    mixed = sum(not torch.equal(mixup_fn(*toy.batches[0])[0], toy.batches[0][0]) for _ in range(400))
    assert 0.22 * 400 < mixed < 0.38 * 400


@pytest.mark.parametrize("cls", [TimmMixup, MixTransform])
def test_network_reaches_methods_that_ask_for_it(toy, cls):
    mix = cls(mm.methods.PuzzleMix(grids=(2, 4)), num_classes=4, network=toy.adapt(toy.model))
    assert [part.shape for part in mix(*toy.batches[0])] == [(9, 3, 12, 12), (9, 4)]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("seed", [None, 5])
def test_workers_mix_differently_and_again_alike(seed, kept):
    same = TensorDataset(torch.randn(4, 3, 2, 2).repeat(4, 1, 1, 1), torch.arange(4).repeat(4))
    collate = MixCollate(mm.Mixup(), num_classes=4, seed=seed)
    collate([same[0], same[1]])  # the generator of this process must not be inherited

    def two_epochs():
        generator = torch.Generator().manual_seed(0)
        again = pickle.loads(pickle.dumps(collate))  # noqa: S301 (as workers that are spawned do)
        loader = DataLoader(
            same, batch_size=4, collate_fn=again, num_workers=2, generator=generator, persistent_workers=kept
        )
        return [soft for _ in range(2) for _, soft in loader]

    first = two_epochs()
    assert len({str(soft.tolist()) for soft in first}) == 8
    torch.testing.assert_close(two_epochs(), first)


def test_goes_with_torchvisions_transforms_pairs_and_images(toy):
    choice = v2.RandomChoice([MixTransform(mm.CutMix(), num_classes=4), v2.MixUp(num_classes=4)])
    for _ in range(4):
        images, soft = choice(tv_tensors.Image(toy.images), toy.labels)
        assert images.shape == toy.images.shape
        torch.testing.assert_close(soft.sum(1), torch.ones(36))
    mix = MixTransform(mm.Mixup(), num_classes=4, seed=0)
    assert repr(mix) == f"MixTransform({mm.Mixup()!r}, num_classes=4)"
    mixed, soft = mix((tv_tensors.Image(toy.images), toy.labels))
    assert type(mixed) is torch.Tensor
    torch.testing.assert_close((mixed, soft), plain_timm(mm.Mixup(), num_classes=4, seed=0)(toy.images, toy.labels))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"method": mm.MultiMix()}, TypeError, r"method must mix inputs, such as Mixup\(\) or .*, got MultiMix"),
        ({"method": mm.Alternate((mm.Mixup(), mm.ManifoldMixup()))}, TypeError, "got ManifoldMixup"),
        ({"method": mm.Alternate((mm.Mixup(), PlainMixup()))}, TypeError, "got PlainMixup"),
        ({"method": "puzzlemix"}, ValueError, "network must be given: PuzzleMix"),
        ({"num_classes": 4.0}, TypeError, r"num_classes must be an integer or None, got 4\.0"),
        ({"seed": "7"}, TypeError, "seed must be an integer or None, got '7'"),
        ({"method": mm.AutoMix()}, ValueError, "method must have been trained, got a new AutoMix"),
        ({"method": mm.Alternate([mm.Mixup(), mm.AutoMix()])}, ValueError, "got a new AutoMix"),
        ({"objective": nn.BCEWithLogitsLoss()}, TypeError, "objective must be an Objective such as Cross"),
        *(
            ({"objective": objective}, ValueError, f"objective must say what targets are only, .*: {name} is for the")
            for name, objective in {
                "class_weights": CrossEntropy(class_weights=(1, 2, 1, 1)),
                "positive_weights": BinaryCrossEntropy(positive_weights=(2.0,) * 4),
                "label_smoothing": SampleWeighted(BinaryCrossEntropy(label_smoothing=0.1)),
            }.items()
        ),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1, got 0"),
    ],
)
@pytest.mark.parametrize("cls", [TimmMixup, MixTransform, MixCollate])
def test_bad_settings_are_named(cls, given, error, message):
    with pytest.raises(error, match=message):
        cls(**{"num_classes": 4, **given})


@pytest.mark.bad_input
def test_bad_arguments_are_named(toy):
    for name in ("prob", "label_smoothing"):
        with pytest.raises(ValueError, match=rf"{name} must lie in \[0, 1\], got 1.5"):
            TimmMixup(**{name: 1.5})
    with pytest.raises(ValueError, match=r"targets must lie in 0\.\.1"):
        TimmMixup(num_classes=2)(toy.images, toy.labels)
    with pytest.raises(ValueError, match=r"label_smoothing must be 0 for SquaredError\(\), .*, got 0\.1"):
        TimmMixup(num_classes=4, objective=SquaredError())(toy.images, torch.randn(36, 4))
    with pytest.raises(ValueError, match="inputs must be images and labels of a mini-batch, got dict"):
        MixCollate(num_classes=4)([{"image": toy.images[0], "label": 1}])
    with pytest.raises(ValueError, match="a mini-batch, got Tensor, Tensor, Tensor"):
        MixCollate(num_classes=4)([(image, 1, 7) for image in toy.images])
    for given, got in (((toy.images,), "Tensor"), ((), "nothing")):
        with pytest.raises(ValueError, match=f"inputs must be images and labels of a mini-batch, got {got}"):
            MixTransform(num_classes=4)(*given)
    with pytest.raises(TypeError, match=r"inputs must be floating-point, got torch\.uint8"):
        MixTransform(num_classes=4)((255 * toy.images).byte(), toy.labels)
