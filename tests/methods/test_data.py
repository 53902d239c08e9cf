"""The mixed mini-batch alone: targets of every kind, videos, and what is refused."""

import pytest
import torch
from torch.nn import functional

import toy
from methods.shared import MIXERS
from multimix.methods import Alternate, CutMix, FMix, GridMix, Mixup, ResizeMix, SmoothMix, StyleCutMix, ZetaMixup
from multimix.ops import BinaryCrossEntropy, CrossEntropy, SquaredError
from toy import seeded

IMAGES, LABELS = toy.batch(7, 3, 8, 8)
SEVERAL = (torch.arange(5) >= LABELS.unsqueeze(1)).float()  # 1 to 5 labels an example
CLASSES_ONLY = [name for name in MIXERS if name == "stylecutmix"]  # asks which two classes are alike


def network(objective=None):
    net = toy.images()
    net.objective = objective
    return net


@pytest.mark.parametrize(
    "targets", [SEVERAL, SEVERAL.long(), SEVERAL.bool(), 0.3 * SEVERAL], ids=lambda t: str(t.dtype)
)
@pytest.mark.parametrize("name", sorted(MIXERS.keys() - CLASSES_ONLY))
def test_several_labels_are_mixed_in_the_weights_of_the_inputs(name, targets):
    objective = BinaryCrossEntropy()
    net = network(None if name == "automix" else objective)  # whose own loss is one of classes
    weights = MIXERS[name]().draw(net, IMAGES, targets, seeded()).mix_targets(torch.eye(7))
    mixed, rows = MIXERS[name]().mix(IMAGES, targets, objective=objective, network=net, generator=seeded())
    assert mixed.shape == IMAGES.shape
    torch.testing.assert_close(rows, weights @ targets.float())
    torch.testing.assert_close(weights.sum(1), torch.ones(7))


@pytest.mark.parametrize("method", [Mixup(), CutMix(mode="elem"), ZetaMixup(), Alternate((FMix(), Mixup()))])
@pytest.mark.parametrize(
    ("objective", "targets", "torchs"),
    [
        (BinaryCrossEntropy(), SEVERAL, functional.binary_cross_entropy_with_logits),
        (SquaredError(), 10 * SEVERAL - 3, functional.mse_loss),
        (None, LABELS, functional.cross_entropy),
    ],
)
@pytest.mark.parametrize("says", ["argument", "network"])
def test_loss_of_the_data_is_the_methods_own_and_torchs(method, objective, targets, torchs, says):
    net = network(objective)
    given = {"objective": objective} if says == "argument" else {"network": net}
    mixed, rows = method.mix(IMAGES, targets, num_classes=5, generator=seeded(), **given)
    expected = method(net, IMAGES, targets, generator=seeded()).total
    torch.testing.assert_close(torchs(net(mixed), rows), expected)


def test_one_output_and_labels_left_out():
    binary = LABELS % 2
    weights = Mixup().draw(None, IMAGES, binary, seeded()).mix_targets(torch.eye(7))
    for targets in (binary, binary.bool(), binary.float()):
        _, rows = Mixup().mix(IMAGES, targets, objective=BinaryCrossEntropy(), generator=seeded())
        torch.testing.assert_close(rows, weights @ binary.float().unsqueeze(1))
    known = LABELS.where(torch.arange(7) > 2, -100)
    expected = weights[:, 3:] @ toy.one_hot(LABELS)[3:]
    for objective in (CrossEntropy(ignore_index=-100), CrossEntropy((1.0,) * 5, 0.1, -100)):
        for targets in (known, toy.one_hot(LABELS) * (known >= 0).unsqueeze(1)):
            _, rows = Mixup().mix(IMAGES, targets, num_classes=5, objective=objective, generator=seeded())
            torch.testing.assert_close(rows, expected)


@pytest.mark.parametrize(
    "method",
    [
        *(cls(mode=m) for cls in (Mixup, CutMix) for m in ("batch", "pair", "elem")),
        FMix(),
        ResizeMix(),
        SmoothMix(),
        GridMix(),
        ZetaMixup(),
    ],
    ids=repr,
)
def test_every_frame_of_a_video_is_mixed_alike(method):
    videos = toy.batch(7, 4, 3, 6, 9)[0]  # frames and channels in either order
    mixed, shares = method.mix(videos, LABELS, num_classes=5, generator=seeded())
    assert not torch.equal(mixed, videos)
    for frame in range(4):
        alone, expected = method.mix(videos[:, frame], LABELS, num_classes=5, generator=seeded())
        torch.testing.assert_close((mixed[:, frame], shares), (alone, expected), rtol=0, atol=0)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("targets", "given", "error", "message"),
    [
        (SEVERAL, {}, ValueError, "targets must have rows that sum to 1, .*several labels .* BinaryCrossEntropy"),
        (SEVERAL.bool(), {}, TypeError, "targets must be class indices or probabilities, got torch.bool; several"),
        (SEVERAL, {"objective": CrossEntropy()}, ValueError, "targets must have rows that sum to 1"),
        (LABELS, {}, ValueError, "num_classes must be given for targets that are class indices"),
        (LABELS, {"objective": CrossEntropy(ignore_index=0)}, ValueError, "num_classes must be given"),
        (2 * SEVERAL, {"objective": BinaryCrossEntropy()}, ValueError, r"targets must lie in \[0, 1\] .*, got 2"),
        (LABELS, {"objective": BinaryCrossEntropy(), "num_classes": 5}, ValueError, "class indices are for CrossEn"),
        (SEVERAL, {"objective": BinaryCrossEntropy(), "num_classes": 4}, ValueError, r"\(b, 4\), got \(7, 5\)"),
        (SEVERAL[:, None], {"objective": SquaredError()}, ValueError, "targets must be one row an example to be mixed"),
        (
            SEVERAL,
            {"objective": torch.nn.BCELoss()},
            TypeError,
            "objective must be an Objective such as .*BCELoss",
        ),
    ],
)
def test_targets_of_another_kind_are_named(targets, given, error, message):
    with pytest.raises(error, match=message):
        Mixup().mix(IMAGES, targets, **given)


@pytest.mark.bad_input
@pytest.mark.parametrize("targets", [SEVERAL, SEVERAL.long(), SEVERAL.bool()], ids=lambda t: str(t.dtype))
def test_styles_of_classes_ask_for_classes(targets):
    method = StyleCutMix(prob=1.0, gamma="auto")
    with pytest.raises((TypeError, ValueError), match=r"StyleCutMix\(gamma='auto'\) compares classes"):
        method.mix(IMAGES, targets, objective=BinaryCrossEntropy())


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (IMAGES.byte(), TypeError, "inputs must be floating-point, got torch.uint8"),
        (torch.randn(7, 8), ValueError, r"images of shape \(b, c, h, w\), or videos \(b, t, c, h, w\), for CutMix"),
        (torch.randn(7, 1, 2, 3, 4, 5), ValueError, r"for CutMix, got \(7, 1, 2, 3, 4, 5\)"),
        ({"images": IMAGES}, TypeError, "inputs must be a tensor, got dict"),
    ],
)
def test_inputs_of_another_kind_are_named(inputs, error, message):
    with pytest.raises(error, match=message):
        CutMix().mix(inputs, LABELS, num_classes=5)


@pytest.mark.bad_input
@pytest.mark.parametrize("name", ["puzzlemix", "co-mixup", "supermix"])
def test_methods_that_take_gradients_say_so_in_inference_mode(name):
    with (
        torch.inference_mode(),
        pytest.raises(RuntimeError, match=r"takes a gradient .*: use torch.no_grad, which lets"),
    ):
        MIXERS[name]()(network(), IMAGES, LABELS)


@pytest.mark.parametrize("seen", [0, 2])
def test_styles_of_classes_that_were_not_seen_have_no_distance(seen):
    method = StyleCutMix(prob=1.0, gamma="auto", warmup=0)
    known = LABELS.lt(seen)
    if seen:
        method.mix(IMAGES[known], LABELS[known], num_classes=5)
    method.eval()
    targets = torch.tensor([3, 4])
    assert method.styles.distances(targets, torch.tensor([1, 0])).tolist() == [0, 0]
    assert method.styles.distances(targets, torch.tensor([0, 1])).tolist() == [2, 2]  # of the same class
    assert method.mix(IMAGES, LABELS, num_classes=5, generator=seeded())[0].isfinite().all()
