"""What the teacher is a copy of: modules that keep what autograd has computed, and compiled ones."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import toy
from distill.views import seeded
from multimix._modules import copied
from multimix.distill import EMATeacher, SelfDistilled
from multimix.methods import AdaMixUp, MultiMix, SuperMix

NORMS = {
    "weight": nn.utils.weight_norm,
    "spectral": nn.utils.spectral_norm,
    "weight-parametrized": parametrizations.weight_norm,
    "spectral-parametrized": parametrizations.spectral_norm,
}
old_styles = pytest.mark.filterwarnings("ignore:.*(weight_norm|spectral_norm).*deprecated:FutureWarning")


def normed(norm) -> toy.Toy:
    return toy.Toy(nn.Sequential(norm(nn.Linear(8, 6)), nn.Tanh()), norm(nn.Linear(6, 6)), width=6, classes=5)


@old_styles
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_a_teacher_of_normed_layers_follows(norm):
    """With no memory it is the student after each step, to the last digit but one."""
    student, (inputs, targets) = normed(norm), toy.batch(7, 8)
    student(inputs)  # leaves computed weights behind
    method = SelfDistilled(MultiMix(31), momentum=0.0)
    optimiser = torch.optim.SGD(student.parameters(), lr=0.1)
    for step in range(3):
        method(student, inputs, targets, generator=seeded(step)).total.backward()
        optimiser.step()
        optimiser.zero_grad()
        method.after_step(student)
        student.eval()
        torch.testing.assert_close(method.ema(inputs), student(inputs).detach(), rtol=1e-5, atol=1e-6)
        student.train()
    assert not any(p.requires_grad for p in method.ema.parameters())


@old_styles
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_copies_share_nothing_with_the_original(norm):
    network, (inputs, _) = normed(norm).eval(), toy.batch(7, 8)
    before = network(inputs)
    twin = copied(network)
    torch.testing.assert_close(twin(inputs), before)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    torch.testing.assert_close(twin(inputs), before)
    assert not torch.allclose(network(inputs), before)


@old_styles
def test_methods_that_copy_networks_take_them_too():
    teacher, (images, targets) = _convolution().eval(), toy.batch(7, 3, 6, 6)
    teacher(images)
    assert SuperMix(teacher, iterations=2)(toy.images(), images, targets, generator=seeded()).total.isfinite()
    network = normed(nn.utils.weight_norm)
    network(toy.batch(7, 8)[0])
    assert AdaMixUp()(network, *toy.batch(7, 8), generator=seeded()).total.isfinite()


def _convolution() -> nn.Module:
    layer = nn.utils.spectral_norm(nn.Conv2d(3, 4, 3))
    return nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


@pytest.mark.compiles
def test_a_compiled_encoder_stays_the_students_own():
    student, (inputs, _) = toy.vectors(), toy.batch(7, 8)
    student.embed = torch.compile(student.embed, backend="eager")
    teacher = EMATeacher(student, momentum=0.5)
    before = teacher(inputs)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    torch.testing.assert_close(teacher(inputs), before)
