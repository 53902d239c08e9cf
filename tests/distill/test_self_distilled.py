"""Self-distillation: who sees which view, both readings against brute force, and how the teacher follows."""

import copy
from dataclasses import replace

import pytest
import torch

import references
import toy
from multimix import ops
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate, CutMix, DenseMultiMix, ManifoldMixup, Mixup, MultiMix, Until
from multimix.protocols import Teacher
from toy import seeded


def views(b: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two different views of a mini-batch, and its labels."""
    first, targets = toy.batch(b, 3, 6, 6)
    return first, toy.batch(b, 3, 6, 6, seed=5)[0], targets


def moved(method: SelfDistilled, student: torch.nn.Module) -> torch.nn.Module:
    """Prepare the method, then move its teacher well away from the student."""
    method.prepare(student)
    teacher = method.ema.network
    with torch.no_grad():
        for seed, parameter in enumerate(teacher.parameters()):
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=seeded(seed)))
    return teacher


METHODS = [
    ERM(),
    Mixup(),
    CutMix(),
    ManifoldMixup(),
    MultiMix(31),
    DenseMultiMix(13),
    DenseMultiMix(13, shared=True, tuple_length=2, activation="softmax"),
    Alternate((MultiMix(31), Mixup())),
]
NAMES = [f"{i}-{method.name}" for i, method in enumerate(METHODS)]


@pytest.mark.parametrize("reading", ["predict", "mix"])
@pytest.mark.parametrize("method", [ERM(), ManifoldMixup(), MultiMix(31), DenseMultiMix(13)], ids=lambda m: m.name)
def test_the_student_sees_the_first_view_and_the_teacher_the_second(method, reading):
    distilled = SelfDistilled(method, teacher=reading)
    student = toy.images()
    first, second, targets = views()
    teacher = moved(distilled, student)
    student.seen.clear()
    teacher.seen.clear()
    distilled(student, (first, second), targets, generator=seeded())
    assert len(student.seen) == len(teacher.seen) == 1
    assert torch.equal(student.seen[0], first)
    assert torch.equal(teacher.seen[0], second)


def test_a_single_tensor_serves_both():
    student = toy.images().eval()
    first, _, targets = views()
    for reading in ("predict", "mix"):
        once = SelfDistilled(MultiMix(31), teacher=reading)(student, first, targets, generator=seeded())
        for pair in ((first, first), [first, first]):
            twice = SelfDistilled(MultiMix(31), teacher=reading)(student, pair, targets, generator=seeded())
            assert torch.equal(once.total, twice.total)


@pytest.mark.parametrize("reading", ["predict", "mix"])
@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_gamma_zero_is_the_teacher_alone(method, reading):
    """The labels do not matter then, and half and half is half of either."""
    student = toy.images()
    first, second, targets = views()
    totals = {}
    for gamma in (0.0, 0.5, 1.0):
        for labels in (targets, (targets + 1) % 5):
            distilled = SelfDistilled(method, gamma=gamma, teacher=reading)
            twin = copy.deepcopy(student)
            moved(distilled, twin)
            totals.setdefault(gamma, []).append(
                distilled(twin, (first, second), labels, generator=seeded()).total.detach()
            )
    torch.testing.assert_close(*totals[0.0])
    assert not torch.allclose(*totals[1.0])
    for half, none, whole in zip(totals[0.5], totals[0.0], totals[1.0], strict=True):
        torch.testing.assert_close(half, (none + whole) / 2)


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_mixed_predictions_are_brute_force_in_two_terms(method):
    """CE(mixed labels) and CE(mixed teacher predictions), each in full, then blended."""
    student = toy.images().eval()
    first, second, targets = views()
    distilled = SelfDistilled(method, gamma=0.3, teacher="mix")
    teacher = moved(distilled, student)
    ours = distilled(student, (first, second), targets, generator=seeded()).total
    predictions = teacher(second).softmax(-1)
    labels = method(student, first, targets, generator=seeded()).total
    taught = method(student, first, predictions, generator=seeded()).total
    torch.testing.assert_close(ours, 0.3 * labels + 0.7 * taught)


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_mixed_inputs_are_predicted_by_the_teacher_itself(method):
    """The default reading: what the method does with an explicit teacher, blended by gamma."""
    student = toy.images().eval()
    first, second, targets = views()
    distilled = SelfDistilled(method, gamma=0.3)
    teacher = moved(distilled, student)
    ours = distilled(student, (first, second), targets, generator=seeded())
    told = method(student, first, targets, generator=seeded(), teacher=Teacher(teacher, second, 0.3))
    assert torch.equal(ours.total, told.total)
    assert set(ours.terms) == {"labels", "teacher"}
    torch.testing.assert_close(ours.total.detach(), 0.3 * ours.terms["labels"] + 0.7 * ours.terms["teacher"])


def test_the_labels_of_cam_attention_are_those_of_the_blend():
    """With mixed predictions the classes that attention asks for are blended as well: one target, one attention."""
    student = toy.images().eval()
    first, second, targets = views()
    method = DenseMultiMix(13, query="cam")
    distilled = SelfDistilled(method, gamma=0.3, teacher="mix")
    teacher = moved(distilled, student)
    blend = 0.3 * toy.one_hot(targets) + 0.7 * teacher(second).softmax(-1)
    ours = distilled(student, (first, second), targets, generator=seeded()).total
    assert torch.equal(ours, method(student, first, ops.as_probabilities(blend, 5), generator=seeded()).total)


@pytest.mark.parametrize("method", [MultiMix(13), DenseMultiMix(13), Mixup()], ids=lambda method: method.name)
def test_the_teacher_predicts_in_the_students_precision_and_without_a_graph(method):
    distilled, student = SelfDistilled(method), toy.images()
    first, second, targets = views()
    moved(distilled, student)
    outputs = {}
    for name, network in (("student", student), ("teacher", distilled.ema.network)):
        hook = lambda module, inputs, output, name=name: outputs.setdefault(name, output)  # noqa: E731
        network.classifier.register_forward_hook(hook)
    with torch.autocast("cpu", torch.bfloat16):
        distilled(student, (first, second), targets, generator=seeded()).total.backward()
    assert outputs["student"].dtype == outputs["teacher"].dtype == torch.bfloat16
    assert outputs["student"].requires_grad
    assert outputs["teacher"].grad_fn is None


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"method": MultiMix}, TypeError, "method must be a method such as"),
        ({"method": Until(SelfDistilled(ERM()))}, ValueError, "method must have no teacher of its own, got another"),
        ({"gamma": 1.5}, ValueError, r"gamma must lie in \[0, 1\], got 1.5"),
        ({"teacher": "both"}, ValueError, "teacher must be one of predict, mix, got 'both'"),
        ({"momentum": 1.0}, ValueError, r"momentum must lie in \[0, 1\), got 1.0"),
        ({"buffer_rule": "none"}, ValueError, "buffer_rule must be one of copy, average, got 'none'"),
    ],
)
def test_impossible_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        SelfDistilled(**{"method": ERM(), **settings})


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda x, y: ((x,), y), ValueError, r"inputs must be a tensor or a pair of views \(view_1, view_2\)"),
        (lambda x, y: ((x, "x"), y), ValueError, "inputs must be a tensor or a pair of views"),
        (lambda x, y: ((x, x[:3]), y), ValueError, "inputs must be two views of the same examples, got 7 and 3"),
        (lambda x, y: ((x, x.long()), y), TypeError, "inputs must be floating-point, got torch.int64"),
        (lambda x, y: ((x, x * float("nan")), y), ValueError, "inputs must be finite"),
        (lambda x, y: ((x * float("nan"), x), y), ValueError, "inputs must be finite"),
        (lambda x, y: ((x, x), y[:4]), ValueError, "targets has 4 rows for a mini-batch of 7"),
    ],
)
@pytest.mark.parametrize("reading", ["predict", "mix"])
def test_impossible_views_are_refused(reading, wrong, error, message):
    first, _, targets = views()
    with pytest.raises(error, match=message):
        SelfDistilled(MultiMix(31), teacher=reading)(toy.images(), *wrong(first, targets))


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


def test_replacing_a_setting_starts_with_a_new_teacher():
    student = toy.images()
    method = SelfDistilled(MultiMix(31))
    method.prepare(student)
    twin = replace(method, gamma=0.9)
    assert (twin.gamma, twin.method, twin.ema) == (0.9, method.method, None)
