"""RecursiveMix: steps one after another against loops in float64, what is kept from one to the next, and where."""

import copy
import math

import pytest
import torch

import cases
import laws
import references
import toy
from methods.shared import same_gradients
from multimix.distill import SelfDistilled
from multimix.methods import Alternate, Chain, Mixup
from multimix.methods.recursivemix import RecursiveMix
from multimix.models import adapt
from multimix.ops import CrossEntropy, SampleWeighted, SquaredError
from toy import seeded


def network_of(objective=None):
    """A network whose maps are a quarter of the image's sides, rounded up."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = adapt(toy.HandWritten(5), encoder="body", head="out").double()
    network.objective = objective or CrossEntropy()
    network(toy.batch(2, 3, 12, 20, dtype=torch.float64)[0])  # which is checked once
    return network


def pasted(image, old, box):
    """The old image's nearest pixels in the box."""
    mixed, (height, width) = image.clone(), old.shape[1:]
    for y in range(box.top, box.bottom):
        for x in range(box.left, box.right):
            row = (y - box.top) * height // (box.bottom - box.top)
            mixed[:, y, x] = old[:, row, (x - box.left) * width // (box.right - box.left)]
    return mixed


def aligned(features, start, end, pixels):
    """RoIAlign along the first axis: the mean of samples, at least one a cell, between the centres of cells."""
    cells = len(features)
    length = (end - start) * cells / pixels
    n = math.ceil(length)
    total = 0
    for s in range(n):
        place = min(max(start * cells / pixels + (s + 0.5) * length / n - 0.5, 0), cells - 1)
        low = min(int(place), cells - 1)
        high = min(low + 1, cells - 1)
        total = total + (1 - (place - low)) * features[low] + (place - low) * features[high]
    return total / n


def loop(network, images, rows, box, old, weight):
    """The loss of a step, and what is kept of it."""
    b, (height, width) = len(images), images.shape[2:]
    lam = 1 - box.area / (height * width)
    mixed = torch.stack([pasted(images[i], old[0][i % len(old[0])], box) for i in range(b)])
    wanted = torch.stack([lam * rows[i] + (1 - lam) * old[1][i % len(old[1])] for i in range(b)])
    maps = network.model.body(mixed)
    logits = network.model.out(maps.mean((2, 3)))
    total = references.soft_cross_entropy(logits, wanted)
    if box.area:
        inside = torch.stack(
            [
                aligned(aligned(one.permute(1, 2, 0), box.top, box.bottom, height), box.left, box.right, width)
                for one in maps
            ]
        )
        before = torch.stack([old[2][i % len(old[2])].softmax(-1) for i in range(b)])
        total = total + weight * (1 - lam) * references.soft_cross_entropy(network.model.out(inside), before)
    return total, (mixed, wanted, logits.detach())


@pytest.mark.parametrize("shape", [(12, 20), (9, 7), (5, 5)])
@pytest.mark.parametrize("sizes", [(6, 6, 6), (5, 2, 7, 3)])
@pytest.mark.parametrize("soft", [False, True])
def test_steps_equal_the_loop(shape, sizes, soft):
    network, method = network_of(), RecursiveMix(consistency=0.7, max_area=0.9)
    old = None
    for step, b in enumerate(sizes):
        images, targets = toy.batch(b, 3, *shape, seed=step, dtype=torch.float64)
        rows = (
            toy.soft_targets(b, 5, seed=step, dtype=torch.float64)
            if soft
            else toy.one_hot(targets, dtype=torch.float64)
        )
        box = copy.deepcopy(method).draw(network, images, targets, seeded(step)).box
        ours = method(network, images, rows if soft else targets, generator=seeded(step)).total
        if old is None:
            logits = network(images)
            truth, old = references.soft_cross_entropy(logits, rows), (images, rows, logits.detach())
        else:
            truth, old = loop(network, images, rows, box, old, 0.7)
        same_gradients(ours, truth, network.parameters())
        for kept, expected in zip(method.history, old, strict=True):
            torch.testing.assert_close(kept, expected)


def warm() -> RecursiveMix:
    """A method that has a mini-batch behind it; a copy goes on with another network."""
    method = RecursiveMix()
    cases.run(method, *cases.images(5))
    return copy.deepcopy(method)


WARM = cases.Case("recursivemix-warm", warm, vectors=False)
OF_ONE_STEP = (laws.classes_have_no_order, laws.copies_are_as_good)
"""Where what was kept would have to be renamed, or to stay as it is."""


@pytest.mark.parametrize(
    "law",
    [law for law in laws.LAWS if laws.applies(law, WARM) and law not in OF_ONE_STEP],
    ids=lambda law: law.__name__,
)
def test_laws_hold_with_a_mini_batch_behind_it_too(law, device):
    law(WARM, device)


def test_a_part_of_the_image_as_large_as_a_uniform_number_says_is_pasted():
    """At most half of it; of a box that the image clips, less."""
    method, (inputs, targets), generator = warm(), toy.batch(3, 3, 200, 200), seeded(1)
    drawn = [method.draw(None, inputs, targets, generator) for _ in range(500)]
    inner = [d.box for d in drawn if d.box.top > 0 and d.box.left > 0 and d.box.bottom < 200 and d.box.right < 200]
    assert all(abs(d.box.area / 200**2 + float(d.lam) - 1) < 1e-12 for d in drawn)
    assert max(d.box.area for d in drawn) <= 200**2 / 2
    assert all(box.bottom - box.top == box.right - box.left for box in inner)
    sides = torch.tensor([math.sqrt(0.5 * u) * 200 for u in torch.rand(500 * 3, generator=seeded(1)).view(-1, 3)[:, 0]])
    assert [d.box.area for d in drawn if d.box in inner] == [
        (int(side) // 2 * 2) ** 2 for side, d in zip(sides.tolist(), drawn, strict=True) if d.box in inner
    ]


@pytest.mark.parametrize("state", ["checkpoint", "pickle", "deepcopy"])
def test_it_goes_on_from_what_was_saved(state, tmp_path):
    network, method = network_of(), RecursiveMix()
    batches = [toy.batch(b, 3, 12, 20, seed=b, dtype=torch.float64) for b in (4, 6, 5)]
    for batch in batches[:2]:
        cases.run(method, network, *batch)
    if state == "checkpoint":
        torch.save(method.state_dict(), tmp_path / "state")
        resumed = RecursiveMix()
        resumed.prepare(network)
        resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    else:
        resumed = cases.pickled(method) if state == "pickle" else copy.deepcopy(method)
    expected = cases.run(method, network, *batches[2], 7)
    found = cases.run(resumed, network, *batches[2], 7)
    assert found.terms["consistency"] > 0
    assert torch.equal(found.total, expected.total)
    assert all(map(torch.equal, resumed.history, method.history))


def test_a_method_that_has_seen_nothing_saves_nothing():
    method = warm()
    method.load_state_dict(RecursiveMix().state_dict())
    assert method.history is None


def test_with_another_network_it_begins_anew():
    method, network = RecursiveMix(), network_of()
    batch = toy.batch(4, 3, 12, 20, dtype=torch.float64)
    cases.run(method, network, *batch)
    other = network_of()
    with pytest.raises(ValueError, match="network must be the one that this RecursiveMix has learned with"):
        cases.run(method, other, *batch)
    method.prepare(other)
    assert method.history is None


def test_data_alone_are_mixed_with_the_last_ones_too():
    method, batches = RecursiveMix(), [toy.batch(4, 3, 12, 20, seed=seed) for seed in range(2)]
    box = warm().draw(None, *batches[1], seeded(2)).box
    first, rows = method.mix(*batches[0], num_classes=5, generator=seeded(1))
    assert torch.equal(first, batches[0][0])
    mixed, given = method.mix(*batches[1], num_classes=5, generator=seeded(2))
    lam = 1 - box.area / 240
    expected = torch.stack([pasted(*pair, box) for pair in zip(batches[1][0], first, strict=True)])
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(given, lam * toy.one_hot(batches[1][1]) + (1 - lam) * rows)
    mixed.zero_()  # whatever becomes of what is returned
    assert torch.equal(method.history.images, expected)
    assert method.history.outputs is None


def test_in_eval_mode_nothing_new_is_kept():
    method = warm().eval()
    before = method.history
    for b in (4, 6):
        method.mix(*toy.batch(b, 3, 6, 6), num_classes=5)
    assert method.history is before


def test_a_teacher_sees_its_own_view_and_the_same_history():
    method = SelfDistilled(RecursiveMix(), gamma=0.5, momentum=0.5)
    network = network_of()
    for seed in range(2):
        (one, targets), (other, _) = (toy.batch(4, 3, 12, 20, seed=s, dtype=torch.float64) for s in (seed, seed + 9))
        method(network, (one, other), targets, generator=seeded(seed))
    kept = method.method.history
    assert torch.equal(kept.images[:, :, 0, 0], one[:, :, 0, 0])
    assert len(kept.images) == 4


@pytest.mark.parametrize("around", [lambda m: Chain(m, Mixup()), lambda m: Alternate((m, m)), SelfDistilled])
def test_methods_around_it_let_it_remember(around):
    """The share of its area that was pasted over is the last label's share of the kept one."""
    inner = RecursiveMix()
    method, network = around(inner), network_of()
    batches = [toy.batch(4, 3, 12, 20, seed=seed, dtype=torch.float64) for seed in range(2)]
    for seed, batch in enumerate(batches):
        assert cases.run(method, network, *batch, seed).total.isfinite()
    moved = (inner.history.images != batches[1][0]).any(1).double().mean()
    before, now = (toy.one_hot(labels, dtype=torch.float64) for _, labels in batches)
    torch.testing.assert_close(inner.history.targets, moved * before + (1 - moved) * now)
    assert 0 < moved < 1


@pytest.mark.parametrize("case", ["bfloat16", "float32", "autocast", "channels last", "one image"])
def test_the_second_term_is_the_same_in_any_precision_and_layout(case):
    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32, "autocast": torch.float32}.get(case, torch.float64)
    terms = []
    for given, autocast in ((torch.float64, False), (dtype, case == "autocast")):
        network, method = network_of().to(given), RecursiveMix()
        for seed in range(2):
            inputs, targets = toy.batch(1 if case == "one image" else 5, 3, 12, 20, seed=seed, dtype=given)
            if given is dtype and case == "channels last":
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                losses = cases.run(method, network, inputs, targets, 3)
        terms.append(losses.terms["consistency"])
    assert terms[0] > 0
    half = case in ("bfloat16", "autocast")
    torch.testing.assert_close(*terms, rtol=1e-2 if half else 1e-5, atol=0, check_dtype=False)


def test_a_network_without_a_map_has_no_second_term():
    network, method = adapt(toy.HandWritten(5)), RecursiveMix()
    for seed in range(2):
        losses = cases.run(method, network, *toy.batch(4, 3, 12, 20, seed=seed), seed)
    assert torch.equal(losses.total.detach(), losses.terms["labels"])
    assert method.history.outputs is not None


WEIGHTED = SampleWeighted(SquaredError())
OBJECTIVES = {
    "values": (SquaredError(), lambda y: y.double().unsqueeze(1) - torch.arange(5.0).double()),
    "weighted": (WEIGHTED, lambda y: WEIGHTED.join(y.unsqueeze(1) - torch.arange(5.0), y + 1.0, 5)),
    "smooth": (CrossEntropy(label_smoothing=0.1, class_weights=(1.0, 2.0, 3.0, 4.0, 5.0)), toy.one_hot),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_of_every_kind_have_a_consistency(name):
    objective, targets_of = OBJECTIVES[name]
    network, method = network_of(objective), RecursiveMix()
    for seed in range(2):
        inputs, targets = toy.batch(4, 3, 12, 20, seed=seed, dtype=torch.float64)
        losses = cases.run(method, network, inputs, targets_of(targets), 2)
    assert losses.terms["consistency"] > 0
    assert losses.total > losses.terms["labels"]


@pytest.mark.bad_input
def test_a_mini_batch_unlike_the_last_one_is_named():
    method = warm()
    with pytest.raises(ValueError, match=r"inputs must have 3 channels for RecursiveMix, .* got \(2, 1, 6, 6\)"):
        method.mix(*toy.batch(2, 1, 6, 6), num_classes=5)
    with pytest.raises(ValueError, match=r"targets must have the 5 columns that .* for RecursiveMix, got \(2, 9\)"):
        method.mix(*toy.batch(2, 3, 6, 6), num_classes=9)
