"""How the teacher of self-distillation follows its student, and how both are saved, copied and found."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

import references
import toy
from distill.views import seeded, views
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate, Mixup, MultiMix, Until
from multimix.protocols import submethods


def updates_of(method: SelfDistilled) -> int:
    return int(method.ema.updates)


OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd-fused": lambda p: torch.optim.SGD(p, lr=0.1, fused=True),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=1e-5, foreach=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=1e-5, fused=True),
}


@pytest.mark.parametrize("optimiser", OPTIMISERS.values(), ids=OPTIMISERS)
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("reading", ["predict", "mix"])
def test_the_teacher_follows_by_itself_once_a_step(reading, accumulate, optimiser, device):
    student = toy.images().to(device)
    method = SelfDistilled(MultiMix(31), momentum=0.9, teacher=reading, warmup=False)
    optimiser = optimiser(student.parameters())
    first, second, targets = (t.to(device) for t in views())
    start, visited = [p.detach().clone() for p in student.parameters()], []
    for step in range(4):
        for part in range(accumulate):
            method(student, (first, second), targets, generator=seeded(step * 10 + part)).total.backward()
            assert updates_of(method) == step
        optimiser.step()
        optimiser.zero_grad()
        visited.append([p.detach().clone() for p in student.parameters()])
    for i, averaged in enumerate(method.ema.network.parameters()):
        expected = references.moving_average(start[i].cpu(), [values[i].cpu() for values in visited[:3]], 0.9)
        torch.testing.assert_close(averaged.double().cpu(), expected, rtol=1e-5, atol=1e-6)


def test_the_random_start_is_left_behind_unless_told_otherwise():
    """The t-th step keeps t / (t + 9) of the average."""
    student = toy.images()
    method = SelfDistilled(ERM())
    method.prepare(student)
    expected = student.classifier.bias.detach().double()
    for t in range(1, 6):
        with torch.no_grad():
            student.classifier.bias.add_(t)
        method.after_step(student)
        kept = t / (t + 9)
        expected = kept * expected + (1 - kept) * student.classifier.bias.detach().double()
    torch.testing.assert_close(method.ema.network.classifier.bias.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_loop_that_says_so_is_not_followed_twice():
    student = toy.images()
    method = SelfDistilled(Mixup())
    optimiser = torch.optim.SGD(student.parameters(), lr=0.1)
    first, _, targets = views()
    method.prepare(student)
    for step in range(3):
        method(student, first, targets, generator=seeded(step)).total.backward()
        assert updates_of(method) == step
        optimiser.step()
        method.after_step(student)
        assert updates_of(method) == step + 1


def test_a_loop_that_says_so_is_waited_for():
    """Steps in between, of a loop that announces every second one only, are left to the announcement."""
    student = toy.images()
    method = SelfDistilled(Mixup())
    first, _, targets = views()
    method.prepare(student)
    method.after_step(student)
    with torch.no_grad():
        student.classifier.weight.add_(1)
    method(student, first, targets, generator=seeded())
    assert updates_of(method) == 1
    method.after_step(student)
    assert updates_of(method) == 2


def test_the_teacher_neither_learns_nor_trains():
    student = toy.images()
    method = SelfDistilled(MultiMix(31))
    first, second, targets = views()
    method.prepare(student)
    before = {name: t.clone() for name, t in method.ema.state_dict().items()}
    method.train()
    method(student, (first, second), targets, generator=seeded()).total.backward()
    assert not any(m.training for m in method.ema.modules())
    assert all(p.grad is None and not p.requires_grad for p in method.ema.parameters())
    assert all(torch.equal(before[name], t) for name, t in method.ema.state_dict().items())


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("inner", [MultiMix(31), Alternate((MultiMix(31), Mixup()))], ids=["multimix", "alternate"])
def test_a_checkpoint_continues_as_if_nothing_had_happened(inner, announced):
    """Whether or not the loop calls ``after_step``, and though the last step is not yet absorbed when it saves."""
    first, second, targets = views()

    def train(method, student, optimiser, steps):
        totals = []
        for step in steps:
            total = method(student, (first, second), targets, generator=seeded(step)).total
            total.backward()
            optimiser.step()
            optimiser.zero_grad()
            if announced:
                method.after_step(student)
            totals.append(total.detach())
        return totals

    def fresh(seed):
        student = toy.images(seed=seed)
        method = SelfDistilled(inner, momentum=0.5, warmup=True)
        return method, student, torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)

    method, student, optimiser = fresh(0)
    train(method, student, optimiser, range(3))
    saved = [copy.deepcopy(each.state_dict()) for each in (method, student, optimiser)]
    straight = train(method, student, optimiser, range(3, 6))

    resumed = fresh(1)
    resumed[0].prepare(resumed[1])
    for each, state in zip(resumed, saved, strict=True):
        each.load_state_dict(state)
    assert all(torch.equal(*pair) for pair in zip(straight, train(*resumed, range(3, 6)), strict=True))
    assert updates_of(resumed[0]) == updates_of(method)


def test_deep_copies_go_their_own_ways():
    student = toy.images()
    method = SelfDistilled(MultiMix(31), momentum=0.5, warmup=False)
    first, _, targets = views()
    method(student, first, targets, generator=seeded())
    twin, other = copy.deepcopy(method), copy.deepcopy(student)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    twin(other, first, targets, generator=seeded())
    assert (updates_of(method), updates_of(twin)) == (0, 1)
    for mine, theirs in zip(method.ema.network.parameters(), twin.ema.network.parameters(), strict=True):
        torch.testing.assert_close(theirs, mine + 0.5)


def test_replacing_a_setting_starts_with_a_new_teacher():
    student = toy.images()
    method = SelfDistilled(MultiMix(31))
    method.prepare(student)
    twin = replace(method, gamma=0.9)
    assert (twin.gamma, twin.method, twin.ema) == (0.9, method.method, None)


def test_until_hears_inside_of_it_that_training_ends():
    student = toy.images().eval()
    first, _, targets = views()
    method = SelfDistilled(Until(Mixup(), 0.5), gamma=1.0)
    for part in submethods(method):
        if isinstance(part, Until):
            part.at(0.6)
    total = method(student, first, targets, generator=seeded()).total
    torch.testing.assert_close(total, functional.cross_entropy(student(first), targets))
