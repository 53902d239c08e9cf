"""What StyleMix and StyleCutMix are given: images of any kind, teachers and wrong arguments."""

import copy

import pytest
import torch
from torch.nn import functional

import references
import toy
from methods.stylemix_reference import BOTH, always, seeded
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate
from multimix.methods.stylemix import StyleCutMix
from multimix.protocols import Teacher


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.parametrize("shape", [(1, 3, 6, 6), (3, 1, 5, 9), (2, 3, 1, 1), (5, 3, 7, 2)])
def test_images_of_any_kind_keep_their_form(shape, size, cls):
    inputs = toy.batch(*shape)[0]
    before = inputs.clone()
    constant, zero = torch.full(shape, 0.7), torch.zeros(shape[0], dtype=torch.long)
    for images in (inputs, constant, inputs.bfloat16(), inputs.double()):
        method = cls(prob=1.0, size=size, warmup=1)
        mixed, targets = method.mix(images, zero, num_classes=3, generator=seeded())
        assert mixed.shape == images.shape
        assert mixed.dtype == images.dtype
        assert mixed.isfinite().all()
        torch.testing.assert_close(targets, torch.eye(3)[zero])  # one class alone stays what it is
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("cls", BOTH)
def test_memory_format_and_autocast_do_not_matter(cls):
    inputs, targets = toy.batch(5, 3, 6, 6)
    mixed, _ = always(cls).mix(inputs, targets, num_classes=5, generator=seeded())
    last = inputs.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(always(cls).mix(last, targets, num_classes=5, generator=seeded())[0], mixed)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(always(cls).mix(inputs, targets, num_classes=5, generator=seeded())[0], mixed)


@pytest.mark.parametrize("cls", BOTH)
def test_same_state_same_result(cls):
    network, (inputs, targets) = toy.images().eval(), toy.batch(5, 3, 6, 6)
    method = cls(prob=1.0, warmup=2)
    method(network, inputs, targets, generator=seeded())
    twin = copy.deepcopy(method)
    before = torch.get_rng_state()
    totals = [m(network, inputs, targets, generator=seeded(1)).total for m in (method, twin)]
    assert torch.equal(*totals)
    assert torch.equal(torch.get_rng_state(), before)
    assert repr(method) == repr(twin)


@pytest.mark.parametrize("cls", BOTH)
def test_inputs_get_a_gradient(cls):
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, 6, 6)
    inputs.requires_grad_()
    cls(prob=1.0, warmup=0)(network, inputs, targets, generator=seeded()).total.backward()
    assert inputs.grad.isfinite().all()
    assert inputs.grad.abs().sum() > 0


@pytest.mark.parametrize("cls", BOTH)
def test_it_goes_with_teachers_and_alternatives(cls):
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, 6, 6)
    for method in (
        SelfDistilled(cls(prob=1.0, warmup=1)),
        SelfDistilled(cls(prob=1.0, warmup=1), teacher="mix"),
        Alternate((cls(prob=1.0, warmup=1), ERM())),
    ):
        for seed in range(3):
            losses = method(network, inputs, targets, generator=seeded(seed))
            assert losses.total.isfinite()
            losses.total.backward()


@pytest.mark.parametrize("cls", BOTH)
def test_a_teacher_sees_its_own_view_mixed_alike(cls):
    student, teacher = toy.images().eval(), toy.images(seed=1).eval()
    (inputs, targets), other = toy.batch(5, 3, 6, 6), toy.batch(5, 3, 6, 6, seed=5)[0]
    method = always(cls)
    drawn = method.draw(student, inputs, targets, seeded())
    logits, taught = student(drawn.mix(inputs)), teacher(drawn.mix(other)).detach().softmax(-1)
    labels = references.pairs(toy.one_hot(targets), drawn.partners, float(drawn.lam))
    expected = 0.3 * functional.cross_entropy(logits, labels) + 0.7 * functional.cross_entropy(logits, taught)
    ours = method(student, inputs, targets, generator=seeded(), teacher=Teacher(teacher, other, 0.3)).total
    torch.testing.assert_close(ours, expected)


# -------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.bad_input
@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha1": 0.0}, "alpha1 must be finite and greater than 0"),
        ({"prob": 1.5}, r"prob must lie in \[0, 1\], got 1.5"),
        ({"r": -0.1}, r"r must lie in \[0, 1\], got -0.1"),
        ({"encoder": "vgg.pth"}, "encoder and decoder must be given together"),
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"size": 8, "encoder": "a", "decoder": "b"}, "size must be at least 16, got 8"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite and not negative"),
        ({"warmup": -1}, "warmup must not be negative, got -1"),
    ],
)
def test_impossible_settings_are_refused(cls, settings, message):
    with pytest.raises(ValueError, match=message):
        cls(**settings)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha2": -1.0}, "alpha2 must be finite and greater than 0"),
        ({"delta": 0.0}, "delta must be finite and greater than 0"),
        ({"gamma": 1.1}, r"gamma must be 'beta', 'auto' or a number in \[0, 1\], got 1.1"),
        ({"gamma": "fixed"}, "gamma must be 'beta', 'auto' or a number"),
    ],
)
def test_impossible_blends_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        StyleCutMix(**settings)


@pytest.mark.bad_input
@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("shape", [(4, 8), (4, 3, 8), (4, 2, 8, 8)])
def test_what_is_no_image_is_refused(shape, cls):
    message = rf"inputs must be images of shape \(b, c, h, w\) for {cls.__name__}, with 1 or 3 channels, got \(4,"
    with pytest.raises(ValueError, match=message):
        cls()(toy.vectors(), *toy.batch(*shape))
