"""SnapMix and AttentiveMix against loops in float64, and the grids that they find."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import toy
from methods.shared import problem, same, same_gradients, state
from multimix.methods import AttentiveMix, SnapMix
from multimix.methods.snapmix import as_maps, class_maps
from multimix.ops import Box
from multimix.protocols import EncoderOutput, Teacher
from toy import seeded

SHAPES = pytest.mark.parametrize("shape", [(6, 6), (7, 10)])
BOXES = Box(1, 4, 0, 3), Box(0, 2, 2, 6)


def loop_maps(network, images, rows):
    """The class's logit at every position, between positions linearly, at least 0 and of sum 1."""
    head, found = network.classifier, []
    for image, row in zip(images, rows, strict=True):
        features = image[None]
        for block in network.blocks:
            features = block(features)
        h, w = features.shape[2:]
        coarse = torch.zeros(1, 1, h, w, dtype=torch.float64)
        for y, x in itertools.product(range(h), range(w)):
            logits = head.weight @ features[0, :, y, x] + head.bias
            coarse[0, 0, y, x] = (row * logits).sum()
        fine = functional.interpolate(coarse, images.shape[2:], mode="bilinear")[0, 0]
        fine = fine - fine.min()
        found.append(fine / fine.sum())
    return torch.stack(found).detach()


def boxed(monkeypatch, boxes=BOXES):
    """Let the covered and the cut box be given ones."""
    drawn = itertools.cycle(boxes)
    monkeypatch.setattr("multimix.methods.snapmix.draw_box", lambda *_, **__: next(drawn))


def inside(maps, i, box):
    return sum(float(maps[i, y, x]) for y in range(box.top, box.bottom) for x in range(box.left, box.right))


@SHAPES
@pytest.mark.parametrize("soft", [False, True])
def test_labels_weigh_what_is_lost_and_gained(shape, soft, monkeypatch):
    boxed(monkeypatch)
    network, inputs, given, rows = problem(5, *shape, soft=soft)
    maps = loop_maps(network, inputs, rows)
    drawn = SnapMix().draw(network, inputs, given, seeded())
    box, source = BOXES
    mixed, weights = inputs.clone(), torch.zeros(5, 5, dtype=torch.float64)
    for i, partner in enumerate(drawn.partners.tolist()):
        cut = inputs[partner : partner + 1, :, source.top : source.bottom, source.left : source.right]
        size = box.bottom - box.top, box.right - box.left
        resized = functional.interpolate(cut, size, mode="bilinear", align_corners=True)
        mixed[i : i + 1, :, box.top : box.bottom, box.left : box.right] = resized
        weights[i, i] += 1 - inside(maps, i, box)
        weights[i, partner] += inside(maps, partner, source)
    torch.testing.assert_close(drawn.mix(inputs), mixed)
    for weighted in (True, False):
        shares = weights if weighted else weights / weights.sum(1, keepdim=True)
        truth = -((shares @ rows) * network(mixed).log_softmax(1)).sum() / 5
        ours = SnapMix(weighted=weighted)(network, inputs, given, generator=seeded()).total
        same_gradients(ours, truth, network.parameters())


def test_a_teachers_predictions_weigh_as_the_labels_do(monkeypatch):
    boxed(monkeypatch)
    network, inputs, targets, rows = problem(5, 6, 6, soft=False)
    other, teacher = toy.batch(5, 3, 6, 6, seed=4, dtype=torch.float64)[0], toy.images(seed=1).double().eval()
    drawn = SnapMix().draw(network, inputs, targets, seeded())
    predicted = drawn.predict(teacher, other).softmax(1).detach()
    logs = -network(drawn.mix(inputs)).log_softmax(1)
    labels = (drawn.counts * (drawn.mix_targets(rows) * logs).sum(1)).mean()
    taught = (drawn.counts * (predicted * logs).sum(1)).mean()
    ours = SnapMix()(network, inputs, targets, generator=seeded(), teacher=Teacher(teacher, other, 0.3)).total
    torch.testing.assert_close(ours, 0.3 * labels + 0.7 * taught)


def test_maps_without_a_peak_are_even(monkeypatch):
    boxed(monkeypatch)
    network, (inputs, targets) = toy.images(), toy.batch(4, 3, 6, 6)
    network.classifier.weight.data.zero_()
    assert torch.equal(class_maps(network, inputs, targets), torch.full((4, 6, 6), 1 / 36))
    torch.testing.assert_close(SnapMix().draw(network, inputs, targets, None).counts, torch.full((4,), 1 - 1 / 36))


def test_pairs_that_count_nothing_have_the_label_of_their_area(monkeypatch):
    boxed(monkeypatch)
    monkeypatch.setattr("multimix.methods.snapmix._sum_inside", lambda maps, box: torch.full((4,), float(box[1] == 4)))
    network, (inputs, targets) = toy.images(), toy.batch(4, 3, 6, 6)
    drawn = SnapMix().draw(network, inputs, targets, seeded())
    assert not drawn.counts.any()
    assert torch.equal(drawn.lam, torch.full((4,), 0.75))
    assert SnapMix()(network, inputs, targets, generator=seeded()).total == 0


@pytest.mark.parametrize("boxes", [(Box(2, 2, 0, 3), BOXES[1]), (BOXES[0], Box(0, 2, 5, 5))])
def test_where_a_box_is_empty_nothing_is_pasted(boxes, monkeypatch):
    boxed(monkeypatch, boxes)
    network, (inputs, targets) = toy.images(), toy.batch(4, 3, 6, 6)
    assert SnapMix().draw(network, inputs, targets, None).mix(inputs) is inputs


@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_the_other_steps_are_plain(probability, monkeypatch):
    boxed(monkeypatch)
    (network, inputs, targets, _), generator = problem(2, 6, 6, soft=False), seeded(3)
    drawn = [SnapMix(prob=probability).draw(network, inputs, targets, generator) for _ in range(300)]
    plain = sum(each.mix(inputs) is inputs for each in drawn) / 300
    assert plain == pytest.approx(1 - probability, abs=4 * math.sqrt(probability * (1 - probability) / 300))


# ----------------------------------------------------------------------------------------------------------- attention


@SHAPES
@pytest.mark.parametrize("patches", [1, 4, 99])
@pytest.mark.parametrize("taught", [False, True])
def test_the_most_attended_patches_are_kept(shape, patches, taught):
    network, inputs, targets, rows = problem(5, *shape, soft=False)
    teacher = toy.images(seed=1).double()
    seer = (teacher if taught else network).eval()
    drawn = AttentiveMix(teacher if taught else None, patches).draw(network, inputs, targets, seeded())
    h, w = ((side + 1) // 2 for side in shape)
    attention = seer.embed(inputs).detach().mean(2).view(5, h, w)
    mixed, labels = drawn.mix(inputs), drawn.mix_targets(rows)
    for i, partner in enumerate(drawn.partners.tolist()):
        places = sorted(itertools.product(range(h), range(w)), key=lambda at: float(attention[i][at]), reverse=True)
        kept = 0
        for y, x in itertools.product(*map(range, shape)):
            own = (y * h // shape[0], x * w // shape[1]) in places[:patches]
            kept += own
            assert torch.equal(mixed[i, :, y, x], inputs[i if own else partner, :, y, x])
        lam = kept / math.prod(shape)
        torch.testing.assert_close(labels[i], lam * rows[i] + (1 - lam) * rows[partner], rtol=0, atol=1e-6)


def test_a_teacher_may_see_another_size():
    _, inputs, targets, _ = problem(3, 6, 6, soft=False)
    teacher = toy.images(seed=1).double().eval()
    large = functional.interpolate(inputs, (12, 12), mode="bilinear", antialias=True)
    best = teacher.embed(large).mean(2).argmax(1)
    kept = AttentiveMix(teacher, 1, size=12).draw(None, inputs, targets, seeded()).given["kept"]
    assert torch.equal(kept.flatten(1).argmax(1), best)


def test_a_teacher_never_trains():
    network, teacher = toy.images(), toy.images(seed=1)
    inputs, targets = toy.batch(7, 3, 6, 6)
    before, method = state(teacher), AttentiveMix(teacher).train()
    own = state(method.teacher)
    method(network, inputs, targets, generator=seeded()).total.backward()
    assert same(before, state(teacher))
    assert same(own, state(method.teacher))
    assert not any(p.requires_grad for p in method.parameters())


@pytest.mark.parametrize("of", [None, (), (197,)])
@pytest.mark.parametrize(
    ("r", "size", "grid"),
    [
        (9, (6, 6), (3, 3)),
        (15, (5, 9), (3, 5)),
        (4, (7, 2), (4, 1)),
        (1, (50, 7), (1, 1)),
        (197, (224, 224), (14, 14)),
        (198, (224, 224), (14, 14)),
        (201, (224, 224), (14, 14)),
        (50, (224, 224), (7, 7)),
        (99, (224, 112), (14, 7)),
    ],
)
def test_a_grid_is_like_the_image(of, r, size, grid):
    values = torch.arange(float(r)).view(1, r)
    maps = as_maps(values, EncoderOutput(values.unsqueeze(2), grid=of), torch.Size(size))
    assert torch.equal(maps, values[:, r - math.prod(grid) :].view(1, *grid))


def test_a_known_grid_is_taken():
    values = torch.arange(12.0).view(1, 12)
    output = EncoderOutput(values.unsqueeze(2), grid=(2, 6))
    assert as_maps(values, output, torch.Size((8, 8))).shape == (1, 2, 6)


@pytest.mark.bad_input
def test_what_cannot_be_used_is_named():
    inputs, targets = toy.batch(4, 3, 6, 6)
    with pytest.raises(TypeError, match=r"^teacher must be an adapted network, mm\.adapt\(model\), got Linear"):
        AttentiveMix(nn.Linear(3, 5))
    for method in (AttentiveMix(), SnapMix()):
        with pytest.raises(ValueError, match="network must be given"):
            method.mix(inputs, targets, num_classes=5)
    values = torch.zeros(1, 60)
    with pytest.raises(ValueError, match="at the positions of a grid, got 60 positions for 32 x 32 pixels"):
        as_maps(values, EncoderOutput(values.unsqueeze(2)), torch.Size((32, 32)))
