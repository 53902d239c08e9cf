"""Self-distillation: who sees which view, and both readings against brute force."""

import copy

import pytest
import torch

import references
import toy
from distill.views import moved, seeded, views
from multimix import ops
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate, CutMix, DenseMultiMix, ManifoldMixup, Mixup, MultiMix
from multimix.protocols import Teacher

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


@pytest.mark.parametrize("method", [Mixup(), CutMix()], ids=["mixup", "cutmix"])
def test_both_sides_are_mixed_alike_in_input_space(method):
    """The two views are the same but for their sign, so that what the networks see must be, too."""
    distilled, student = SelfDistilled(method), toy.images()
    first, _, targets = views()
    teacher = moved(distilled, student)
    student.seen.clear()
    teacher.seen.clear()
    distilled(student, (first, -first), targets, generator=seeded(1))
    assert not torch.equal(student.seen[0], first)
    torch.testing.assert_close(teacher.seen[0], -student.seen[0])


def test_a_single_tensor_serves_both():
    student = toy.images().eval()
    first, _, targets = views()
    for reading in ("predict", "mix"):
        once = SelfDistilled(MultiMix(31), teacher=reading)(student, first, targets, generator=seeded())
        twice = SelfDistilled(MultiMix(31), teacher=reading)(student, (first, first), targets, generator=seeded())
        listed = SelfDistilled(MultiMix(31), teacher=reading)(student, [first, first], targets, generator=seeded())
        assert torch.equal(once.total, twice.total)
        assert torch.equal(once.total, listed.total)


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
            moved(distilled, student)
            twin = copy.deepcopy(student)
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


@pytest.mark.parametrize("affine", [True, False])
def test_predict_with_multimix_equals_the_loop(affine):
    student = toy.images(affine=affine).double().eval()
    first, second, targets = views()
    first, second = first.double(), second.double()
    method = MultiMix(13, alpha=0.2)
    distilled = SelfDistilled(method, gamma=0.3)
    teacher = moved(distilled, student)
    ours = distilled(student, (first, second), targets, generator=seeded()).total
    z, theirs = (net.pool(net.embed(view)) for net, view in ((student, first), (teacher, second)))
    weights = method.draw_weights(7, like=z, generator=seeded()).double()
    one_hot = toy.one_hot(targets, dtype=torch.float64)
    truth = references.network_loss(student.classify, z, one_hot, weights, (teacher.classify, theirs, 0.3))
    torch.testing.assert_close(ours, truth, rtol=1e-6, atol=1e-7)
    _same_gradients(student, ours, truth)


@pytest.mark.parametrize("affine", [True, False])
def test_predict_with_dense_multimix_equals_the_loop(affine):
    """The teacher's positions are interpolated with the student's weights and the student's attention."""
    student = toy.images(affine=affine).double().eval()
    first, second, targets = views()
    first, second = first.double(), second.double()
    method = DenseMultiMix(5, alpha=0.2)
    distilled = SelfDistilled(method, gamma=0.3)
    teacher = moved(distilled, student)
    ours = distilled(student, (first, second), targets, generator=seeded()).total
    z, theirs = student.embed(first), teacher.embed(second)
    b, r, _ = z.shape
    weights = method.weights(b, like=z, generator=seeded(), sets=r).all().double()
    one_hot, attention = toy.one_hot(targets, dtype=torch.float64), references.attention(z.detach())
    truth = references.dense_network_loss(
        student.classify, z, one_hot, weights, attention, (teacher.classify, theirs, 0.3)
    )
    torch.testing.assert_close(ours, truth, rtol=1e-6, atol=1e-7)
    _same_gradients(student, ours, truth)


def _same_gradients(network, ours, truth):
    parameters = list(network.parameters())
    for mine, wanted in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(truth, parameters), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-7)


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


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"method": MultiMix}, TypeError, "method must be a method such as"),
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


@pytest.mark.bad_input
def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(TypeError, match=r"network must be an adapted network, .* got function, which has no embed"):
        SelfDistilled(ERM())(lambda x: x, *toy.batch(3, 8))
