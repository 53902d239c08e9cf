"""The networks that supervise SuperMix, and the images generated with one ahead of training."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import toy
from methods.supermix_reference import QUICK, case, seeded
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate
from multimix.methods._supermix import solved
from multimix.methods.supermix import SuperMix
from multimix.protocols import Teacher


def state(network: nn.Module) -> list:
    return [
        *(t.clone() for t in network.state_dict().values()),
        *(m.training for m in network.modules()),
        *(p.requires_grad for p in network.parameters()),
        *(p.grad for p in network.parameters()),
    ]


def same(first: list, second: list) -> bool:
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a is b for a, b in zip(first, second, strict=True))


def test_the_supervisor_is_left_as_it_was():
    network, (inputs, targets) = toy.images(), toy.batch(7, 3, 6, 6)
    network.blocks[1].eval()
    before = state(network)
    SuperMix(**QUICK).draw(network, inputs, targets, seeded())
    assert same(before, state(network))
    network.classify = _fail
    with pytest.raises(RuntimeError, match="on purpose"):
        SuperMix(**QUICK).draw(network, inputs, targets, seeded())
    assert same(before, state(network))


def _fail(embeddings):
    raise RuntimeError("on purpose")


def test_running_statistics_follow_the_mixed_images_once():
    network, (inputs, targets) = toy.images(), toy.batch(7, 3, 6, 6)
    twin, method = copy.deepcopy(network), SuperMix(**QUICK)
    drawn = method.draw(twin, inputs, targets, seeded())
    twin(drawn.mix(inputs))
    method(network, inputs, targets, generator=seeded()).total.backward()
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), twin.buffers(), strict=True))


def test_a_teacher_supervises_and_never_trains():
    network, teacher = toy.images(), toy.images(seed=1)
    inputs, targets = toy.batch(7, 3, 6, 6)
    before = state(teacher)
    method = SuperMix(teacher, **QUICK).train()
    own = state(method.teacher)
    seen = [method.draw(net, inputs, targets, seeded()).values for net in (None, network)]
    assert torch.equal(*seen)
    assert not torch.allclose(seen[0], SuperMix(**QUICK).draw(network, inputs, targets, seeded()).values)
    method(network, inputs, targets, generator=seeded()).total.backward()
    assert same(before, state(teacher))
    assert same(own, state(method.teacher))
    assert not any(p.requires_grad for p in method.parameters())
    images, _ = method.mix(inputs, targets, num_classes=5, generator=seeded())
    assert images.shape == inputs.shape


def test_the_moving_average_may_supervise():
    student, average = toy.images().eval(), toy.images(seed=1).eval()
    inputs, targets = toy.batch(7, 3, 6, 6)
    other = toy.batch(7, 3, 6, 6, seed=5)[0]
    method = SuperMix(**QUICK)
    drawn = method.draw(average, inputs, targets, seeded())
    logits = student(drawn.mix(inputs))
    labels = functional.cross_entropy(logits, drawn.mix_targets(toy.one_hot(targets)))
    taught = functional.cross_entropy(logits, average(drawn.mix(other)).detach().softmax(-1))
    ours = method(student, inputs, targets, generator=seeded(), teacher=Teacher(average, other, 0.3))
    torch.testing.assert_close(ours.total, 0.3 * labels + 0.7 * taught)


@pytest.mark.parametrize(
    "wrap",
    [SelfDistilled, lambda m: SelfDistilled(m, teacher="mix"), lambda m: Alternate((m, ERM()))],
    ids=["predict", "mix", "alternate"],
)
def test_it_composes(wrap):
    network, (inputs, targets) = toy.images(), toy.batch(7, 3, 6, 6)
    method = wrap(SuperMix(**QUICK))
    for seed in range(3):
        total = method(network, inputs, targets, generator=seeded(seed)).total
        total.backward()
        assert total.isfinite()


# --------------------------------------------------------------------------------------------------------- off-line


def test_generated_sets_are_seen_as_they_should():
    teacher, images, _, _ = case(12, seed=1)
    labels = teacher(images).argmax(1)
    method = SuperMix(teacher, side=4, iterations=30, tolerance=0.0)
    lots = list(method.generate([(images, labels)] * 3, num_classes=5, generator=seeded()))
    assert len(lots) == 3
    for lot in lots:
        assert 0 < len(lot.images) <= 12
        assert len(lot.images) == len(lot.targets) == len(lot.masks)
        assert solved(teacher(lot.images), lot.targets).all()  # these labels are what the teacher sees
        torch.testing.assert_close(lot.masks.sum(1), torch.ones(len(lot.masks), 6, 6, dtype=torch.float64))
    drawn = method.draw(None, images, labels, seeded())
    kept = [i for i, mixed in enumerate(drawn.mix(images)) if any(torch.allclose(mixed, x) for x in lots[0].images)]
    assert len(kept) == len(lots[0].images)
    unseen = solved(teacher(drawn.mix(images)), drawn.mix_targets(toy.one_hot(labels).double()))
    assert kept == unseen.nonzero()[:, 0].tolist()


def test_no_more_are_generated_than_asked_for():
    teacher, images, _, _ = case(12, seed=1)
    method = SuperMix(teacher, side=4, iterations=5)
    served = []

    def endless():
        while True:
            served.append(1)
            yield images, torch.zeros(12, dtype=torch.long)

    lots = list(method.generate(endless(), num_classes=5, count=20, generator=seeded()))
    assert sum(len(lot.images) for lot in lots) == 20
    assert len(served) < 15
