"""What all methods of images have in common: teachers, images of any kind, and data for somebody else's loss."""

import copy

import pytest
import torch
from torch.nn import functional

import toy
from methods.shared import MAKES, MIXERS, same, state
from multimix.protocols import Teacher
from toy import seeded

EXTRA = {
    "adamixup": lambda terms: terms["intrusion"],
    "automix": lambda terms: 1.5 * terms["distance"] - 0.3 * terms["entropy"],
    "co-mixup": lambda terms: terms["clean"],
    "puzzlemix": lambda terms: 0.5 * terms["clean"],
}
"""What is in a method's loss besides the labels and the teacher."""
every = pytest.mark.parametrize("name", MAKES)
mixers = pytest.mark.parametrize("name", MIXERS)


@every
def test_a_teacher_sees_its_own_view_mixed_alike(name):
    student, teacher = toy.images().eval(), toy.images(seed=1).eval()
    (inputs, targets), (other, _) = toy.batch(7, 3, 8, 8), toy.batch(7, 3, 8, 8, seed=5)
    method, twin = MAKES[name](), MAKES[name]()
    drawn = twin.draw(teacher if name == "supermix" else student, inputs, targets, seeded())
    ours = method(student, inputs, targets, generator=seeded(), teacher=Teacher(teacher, other, 0.3))
    logits, seen = drawn.predict(student, inputs), drawn.predict(teacher, other).detach()
    labels = functional.cross_entropy(logits, drawn.mix_targets(toy.one_hot(targets)))
    taught = functional.cross_entropy(logits, seen.softmax(-1))
    torch.testing.assert_close(ours.terms["labels"], labels.detach())
    torch.testing.assert_close(ours.terms["teacher"], taught.detach())
    extra = EXTRA[name](ours.terms) if name in EXTRA else 0
    torch.testing.assert_close(ours.total, 0.3 * labels + 0.7 * taught + extra)
    ours.total.backward()
    assert all(p.grad is None for p in teacher.parameters())


@mixers
@pytest.mark.parametrize("kind", ["indices", "one-hot", "soft"])
def test_the_data_can_be_had_alone(name, kind):
    """And the step is trained on them, in one pass of the network over the mixed images."""
    network, (inputs, targets) = toy.images().eval(), toy.batch(7, 3, 8, 8)
    probabilities = toy.soft_targets(7, 5) if kind == "soft" else toy.one_hot(targets)
    given = {"indices": targets, "one-hot": functional.one_hot(targets, 5), "soft": probabilities}[kind]
    k = 5 if kind == "indices" else None
    mixed, rows = MIXERS[name]().mix(inputs, given, num_classes=k, network=network, generator=seeded())
    drawn = MIXERS[name]().draw(network, inputs, probabilities, seeded())
    assert torch.equal(mixed, drawn.mix(inputs))
    assert torch.equal(rows, drawn.mix_targets(probabilities))
    torch.testing.assert_close(rows.sum(1), torch.ones(7))
    network.seen.clear()
    losses = MIXERS[name]()(network, inputs, given, generator=seeded())
    assert torch.equal(network.seen[-2 if name == "puzzlemix" else -1], mixed)  # then the clean images, for their loss
    torch.testing.assert_close(losses.terms["labels"], functional.cross_entropy(network(mixed), rows).detach())


@mixers
def test_the_network_is_left_as_it_was_but_for_one_pass_over_the_mixed_images(name):
    network, (inputs, targets) = toy.images(), toy.batch(7, 3, 8, 8)
    network.blocks[1].eval()
    network.classifier.weight.grad = torch.ones_like(network.classifier.weight)
    before = state(network)
    drawn = MIXERS[name]().draw(network, inputs, targets, seeded())
    assert same(before, state(network))
    twin = copy.deepcopy(network)
    twin(drawn.mix(inputs))
    MIXERS[name]()(network, inputs, targets, generator=seeded())
    assert all(torch.equal(*pair) for pair in zip(twin.buffers(), network.buffers(), strict=True))


@pytest.mark.parametrize("name", ["puzzlemix", "co-mixup", "supermix"])
def test_a_network_that_fails_is_left_as_it_was(name):
    network, (inputs, targets) = toy.images(), toy.batch(7, 3, 8, 8)
    network.blocks[1].eval()
    network.classify = lambda embeddings: 1 / 0
    before = state(network)
    with pytest.raises(ZeroDivisionError):
        MIXERS[name]().draw(network, inputs, targets, seeded())
    assert same(before, state(network))


@every
@pytest.mark.parametrize("shape", [(1, 3, 6, 6), (2, 3, 1, 1), (5, 3, 7, 2), (3, 3, 5, 9)])
def test_images_of_any_kind(name, shape):
    network, (inputs, targets) = toy.images(norm=False), toy.batch(*shape)
    constant = torch.arange(float(len(inputs))).view(-1, 1, 1, 1).expand_as(inputs)
    for images in (inputs, constant, torch.zeros_like(inputs)):
        losses = MAKES[name]()(network, images, targets, generator=seeded())
        losses.total.backward()
        assert losses.total.isfinite()
    assert all(p.grad.isfinite().all() for p in network.parameters())


@mixers
@pytest.mark.parametrize("shape", [(1, 3, 6, 6), (2, 3, 1, 1), (5, 3, 7, 2), (3, 3, 5, 9)])
def test_mixed_images_keep_their_form(name, shape):
    network, (inputs, targets) = toy.images(norm=False), toy.batch(*shape)
    for images in (inputs, inputs.bfloat16(), torch.full_like(inputs, 0.7)):
        seen = toy.images(norm=False).to(images.dtype)
        for labels in (targets, torch.zeros_like(targets)):
            method = MIXERS[name]()
            mixed, rows = method.mix(images, labels, num_classes=5, network=seen, generator=seeded())
            assert (mixed.shape, mixed.dtype) == (images.shape, images.dtype)
            assert mixed.isfinite().all()
        torch.testing.assert_close(rows, toy.one_hot(labels))  # one class alone stays what it is
    last = inputs.contiguous(memory_format=torch.channels_last)
    one, other = (MIXERS[name]().draw(network, x, targets, seeded(1)).mix(x) for x in (inputs, last))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


PRECISE = ["mixup-elem", "cutmix-pair", "fmix", "resizemix", "resizemix-bilinear", "zeta-mixup", "opttransmix"]


@pytest.mark.parametrize("name", PRECISE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_give_the_same_images(name, dtype):
    images, targets = toy.batch(7, 3, 10, 6)
    truth, _ = MIXERS[name]().mix(images, targets, num_classes=5, generator=seeded(1))
    mixed, _ = MIXERS[name]().mix(images.to(dtype), targets, num_classes=5, generator=seeded(1))
    torch.testing.assert_close(mixed.float(), truth, rtol=3e-2, atol=3e-2)


@mixers
def test_autocast_changes_no_image(name):
    network, (inputs, targets) = toy.images().eval(), toy.batch(5, 3, 8, 8)
    given = {"num_classes": 5, "network": network}
    truth, rows = MIXERS[name]().mix(inputs, targets, **given, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        mixed, probabilities = MIXERS[name]().mix(inputs, targets, **given, generator=seeded())
    if name not in ("puzzlemix", "co-mixup", "automix", "stylecutmix"):  # for which modules work under autocast
        torch.testing.assert_close(mixed, truth)
        torch.testing.assert_close(probabilities, rows)
    assert mixed.isfinite().all()
