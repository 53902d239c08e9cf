"""Mixing of inputs in the loops of timm and torchvision."""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from timm.data.mixup import Mixup as TimmOwn
from timm.data.mixup import mixup_target
from torch import nn
from torch.utils._pytree import tree_flatten
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
    assert type(mixed) is tv_tensors.Image
    mixed = mixed.as_subclass(torch.Tensor)
    torch.testing.assert_close((mixed, soft), plain_timm(mm.Mixup(), num_classes=4, seed=0)(toy.images, toy.labels))


def test_everything_beside_images_and_labels_comes_back_as_it_is(toy):
    plain = plain_timm(mm.Mixup(), num_classes=4, seed=0)(toy.images, toy.labels)
    image, extra, name = tv_tensors.Image(toy.images), torch.arange(36.0), ["a"]
    for given, getter in (
        ((toy.images, toy.labels, extra, name), "default"),
        ({"name": name, "pixels": toy.images, "a_label": extra, "LABELS": toy.labels}, "default"),
        ([extra, {"Label": toy.labels, "image": image}], "default"),
        ({"extra": extra, "image": image, "y": toy.labels}, "y"),
        ((toy.images, {"y": toy.labels, "extra": extra}), "y"),
        ({"image": toy.images, "more": [{"y": toy.labels}]}, lambda inputs: inputs["more"][0]["y"]),
    ):
        found = MixTransform(num_classes=4, seed=0, labels_getter=getter)(given)
        (before, structure), (after, same) = tree_flatten(given), tree_flatten(found)
        assert same == structure
        for old, new in zip(before, after, strict=True):
            assert type(old) is type(new)
            if old is toy.images or old is image:
                assert torch.equal(new, plain[0])
            elif old is toy.labels:
                assert torch.equal(new, plain[1])
            else:
                assert new is old
    rows = [{"image": x, "label": int(y), "id": i} for i, (x, y) in enumerate(zip(toy.images, toy.labels, strict=True))]
    found = MixCollate(num_classes=4, seed=0)(rows)
    assert torch.equal(found["image"], plain[0])
    assert torch.equal(found["id"], torch.arange(36))


@pytest.mark.parametrize("name", ["cutmix", "fmix", "resizemix", "saliencymix", "erm"])
def test_bytes_are_pasted_as_bytes(toy, name):
    pixels = (40 * toy.images + 128).clamp(0, 255).byte()
    found, soft = MixTransform(name, num_classes=4, seed=1)(pixels, toy.labels)
    assert found.dtype == torch.uint8
    expected = MixTransform(name, num_classes=4, seed=1)(pixels.float(), toy.labels)
    torch.testing.assert_close((found.float(), soft), expected, atol=0, rtol=0)


def test_alpha_is_that_of_the_method_by_name(toy):
    for name, method in ((None, mm.Mixup(alpha=0.3)), ("cutmix", mm.CutMix(alpha=0.3))):
        ours = MixTransform(name, num_classes=4, seed=0, alpha=0.3)(toy.images, toy.labels)
        torch.testing.assert_close(ours, MixTransform(method, num_classes=4, seed=0)(toy.images, toy.labels))


TIMMS = {
    "mixup": {"mixup_alpha": 0.4},
    "both": {"cutmix_alpha": 1.0},
    "cutmix as drawn": {"mixup_alpha": 0.0, "cutmix_alpha": 0.3, "correct_lam": False},
    "minmax": {"cutmix_minmax": (0.2, 0.8), "switch_prob": 0.7, "correct_lam": False},
    "minmax alone": {"mixup_alpha": 0.0, "cutmix_minmax": (0.35, 0.6), "prob": 0.5, "mode": "elem"},
    "all, a batch": {"mixup_alpha": 0.4, "cutmix_alpha": 2.0, "switch_prob": 0.2, "prob": 0.6},
    "all, a pair": {"mixup_alpha": 0.4, "cutmix_alpha": 2.0, "switch_prob": 0.2, "prob": 0.6, "mode": "pair"},
    "all, an example": {"mixup_alpha": 0.4, "cutmix_alpha": 2.0, "switch_prob": 0.2, "prob": 0.6, "mode": "elem"},
}


def observed(mix, draws=800):
    """Of a black image with a white partner: whether it is mixed or pasted into, its label's weight, and the box."""
    found = []
    for _ in range(draws):
        mixed, soft = mix(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).repeat(1, 1, 10, 17), torch.tensor([0, 1]))
        white = mixed[0, 0].nonzero()
        blends = bool(mixed[0].max() < 1) and len(white) > 0
        box = [0, 0, 0, 0] if blends or not len(white) else [*white.amin(0).tolist(), *white.amax(0).tolist()]
        found.append([blends, sum(box) > 0, soft[0, 0].item(), *box, box[2] - box[0], box[3] - box[1]])
    return np.array(found, dtype=float)


@pytest.mark.parametrize("settings", TIMMS.values(), ids=TIMMS)
def test_timms_arguments_mean_what_they_mean_there(settings, monkeypatch):
    monkeypatch.setattr("multimix.methods.mixup.draw_partners", lambda b, **_: torch.arange(b).flip(0))
    np.random.seed(0)  # noqa: NPY002 (what timm draws from)
    given = {**settings, "num_classes": 2, "label_smoothing": 0.0}
    for ours, theirs in zip(observed(TimmMixup(**given, seed=0)).T, observed(TimmOwn(**given)).T, strict=True):
        assert ks_2samp(ours, theirs, method="asymp").pvalue > 1e-3


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_timms_modes_say_who_shares_what(toy, mode):
    mix = TimmMixup(1.0, 1.0, None, 0.8, 0.5, mode, True, 0.0, 4, seed=2)
    images, labels = toy.images[:15], toy.labels[:15]
    mixed, soft = mix(images, labels)
    again = TimmMixup(1.0, 1.0, None, 0.8, 0.5, mode, seed=2)._mixer
    mixing = again.method.draw(None, images, labels, again.generator(images.device))
    one_hot = torch.eye(4)[labels]
    lam, cut, boxes = (mixing.given[name] for name in ("own", "cut", "boxes"))
    for i, partner in enumerate(mixing.partners.tolist()):
        expected = lam[i] * images[i] + (1 - lam[i]) * images[partner]
        if cut[i]:
            top, bottom, left, right = boxes.of(i)
            expected = images[i].clone()
            expected[:, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
            assert lam[i] == pytest.approx(1 - (bottom - top) * (right - left) / 144)
        torch.testing.assert_close(mixed[i], expected)
        torch.testing.assert_close(soft[i], lam[i] * one_hot[i] + (1 - lam[i]) * one_hot[partner])
        assert mode == "elem" or lam[partner] == lam[i]
    assert (len(cut.unique()), len(lam.unique()) > 8) == {"batch": (1, False), "pair": (2, False), "elem": (2, True)}[
        mode
    ]


def test_timms_probability_is_set_later_and_mixing_switched_off(toy):
    mix = TimmMixup(cutmix_alpha=1.0, mode="elem", num_classes=4)
    mix.mixup_enabled = False
    assert torch.equal(mix(toy.images, toy.labels)[0], toy.images)
    mix.mixup_enabled, mix.mix_prob = True, 0.0
    assert torch.equal(mix(toy.images, toy.labels)[0], toy.images)
    several = TimmMixup(0.5, num_classes=5, multi_label=True, prob=0.0)(toy.images, torch.ones(36, 5))[1]
    torch.testing.assert_close(several, torch.full((36, 5), 0.95))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"method": mm.MultiMix()}, TypeError, r"method must mix inputs, such as Mixup\(\) or .*, got MultiMix"),
        ({"method": mm.Alternate((mm.Mixup(), mm.ManifoldMixup()))}, TypeError, "got ManifoldMixup"),
        ({"method": mm.Alternate((mm.Mixup(), PlainMixup()))}, TypeError, "got PlainMixup"),
        ({"method": "ramp-mixup"}, TypeError, "without knowing how far training is, got Ramp"),
        ({"method": mm.Alternate((mm.Mixup(), mm.Until(mm.CutMix())))}, TypeError, "training is, got Until"),
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
    both, image = (toy.images, toy.labels), tv_tensors.Image(toy.images)
    boxes = tv_tensors.BoundingBoxes([[0, 0, 1, 1]], format="XYXY", canvas_size=(12, 12))
    for given, said in (
        ((toy.images,), "be images and labels of a mini-batch, got Tensor; labels_getter says where"),
        ((), "be images and labels of a mini-batch, got nothing"),
        (({"image": toy.images, "target": toy.labels},), "be images and labels of a mini-batch, got Tensor, Tensor"),
        ((image, toy.labels, image), "hold one tensor of images beside the labels, got Image, Tensor, Image"),
        (({"labels": toy.labels},), "hold one tensor of images beside the labels, got Tensor$"),
        (
            (*both, boxes),
            "hold nothing that would be left unmixed beside the images, got BoundingBoxes; boxes are mixed",
        ),
    ):
        with pytest.raises(ValueError, match=f"inputs must {said}"):
            MixTransform(num_classes=4)(*given)
    for method in (None, mm.Alternate((mm.CutMix(), mm.Mixup())), mm.methods.ResizeMix(interpolation="bilinear")):
        with pytest.raises(TypeError, match=r"inputs must be floating-point for \w+, got torch\.uint8"):
            MixTransform(method, num_classes=4)((255 * toy.images).byte(), toy.labels)
    for method in (mm.CutMix(), "resizemix"):
        with pytest.raises(ValueError, match=r"alpha must be left out beside .*Mix"):
            MixTransform(method, num_classes=4, alpha=0.2)
    with pytest.raises(TypeError, match="labels_getter must be a function, a key or 'default', got 3"):
        MixTransform(num_classes=4, labels_getter=3)
    for given, said in (
        ({"method": mm.CutMix(), "switch_prob": 0.3}, r"method must be left out beside switch_prob, got CutMix"),
        ({"method": "cutmix", "mixup_alpha": 0.3}, r"method must be left out beside mixup_alpha, got 'cutmix'"),
        ({"mixup_alpha": 0.0}, "mixup_alpha or cutmix_alpha must be above 0, or cutmix_minmax be given"),
        ({"mixup_alpha": -1.0}, "mixup_alpha must be at least 0"),
        ({"cutmix_minmax": (0.5, 0.2)}, r"cutmix_minmax must be \(low, high\) with low < high"),
        ({"mode": "half"}, "mode must be one of batch, pair, elem, got 'half'"),
        ({"multi_label": True, "objective": CrossEntropy()}, "multi_label=True contradicts objective Cross"),
    ):
        with pytest.raises(ValueError, match=said):
            TimmMixup(**given)
    with pytest.raises(
        ValueError, match=r"cutmix_minmax must leave boxes in images of \(12, 12\) pixels to choose from"
    ):
        TimmMixup(cutmix_minmax=(0.1, 0.15), num_classes=4)(toy.images, toy.labels)
