"""The moving average: its closed form, its buffers, that it never learns, and what it is a copy of."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import cases
import references
import toy
from multimix._modules import copied
from multimix.distill import EMATeacher, SelfDistilled
from multimix.methods import AdaMixUp, MultiMix, SuperMix
from toy import seeded


def wander(network: nn.Module, seed: int) -> None:
    """Move every parameter and floating-point buffer somewhere else."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for values in [*network.parameters(), *network.buffers()]:
            if values.is_floating_point():
                values.add_(torch.rand(values.shape, generator=generator).to(values))
            else:
                values.add_(seed + 1)


def snapshot(values) -> list[torch.Tensor]:
    return [v.detach().clone() for v in values]


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.999])
def test_three_updates_follow_the_closed_form(momentum, device):
    network = toy.images().to(device)
    teacher = EMATeacher(network, momentum=momentum)
    start, visited = snapshot(network.parameters()), []
    for seed in range(3):
        wander(network, seed)
        visited.append(snapshot(network.parameters()))
        teacher.update_(network)
    for i, averaged in enumerate(teacher.network.parameters()):
        expected = references.moving_average(start[i], [values[i] for values in visited], momentum)
        torch.testing.assert_close(averaged.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", ["copy", "average"])
def test_buffers_are_copied_or_averaged_and_counters_always_copied(rule):
    network = toy.images()
    teacher = EMATeacher(network, momentum=0.9, buffer_rule=rule)
    start, visited = snapshot(network.buffers()), []
    for seed in range(3):
        wander(network, seed)
        visited.append(snapshot(network.buffers()))
        teacher.update_(network)
    kinds = set()
    for i, mine in enumerate(teacher.network.buffers()):
        kinds.add(mine.dtype)
        if rule == "copy" or not mine.is_floating_point():
            assert torch.equal(mine, visited[-1][i])
        else:
            expected = references.moving_average(start[i], [values[i] for values in visited], 0.9)
            torch.testing.assert_close(mine.double(), expected, rtol=1e-5, atol=1e-6)
            assert not torch.equal(mine, visited[-1][i])
    assert kinds == {torch.float32, torch.int64}


def test_warm_up_starts_with_a_short_memory():
    """The t-th update keeps t / (t + 9), until that is more than the momentum."""
    network = toy.vectors()
    teacher = EMATeacher(network, momentum=0.2, warmup=True)
    expected = network.classifier.weight.detach().double()
    for t in range(1, 6):
        wander(network, t)
        teacher.update_(network)
        kept = min(0.2, t / (t + 9))
        expected = kept * expected + (1 - kept) * network.classifier.weight.detach().double()
        torch.testing.assert_close(teacher.network.classifier.weight.double(), expected, rtol=1e-6, atol=1e-7)
    assert int(teacher.updates) == 5


def test_it_stays_in_eval_mode_without_gradient_and_leaves_the_network_as_it_is():
    network, inputs = toy.images().train(), toy.batch(4, 3, 6, 6)[0].requires_grad_()
    teacher, before = EMATeacher(network, momentum=0.5), snapshot([*network.parameters(), *network.buffers()])
    teacher.update_(network)
    for module in (teacher, nn.ModuleList([teacher])):
        module.train()
        assert not any(m.training for m in teacher.modules())
    buffers = snapshot(teacher.network.buffers())
    assert not teacher(inputs).requires_grad
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(*pair) for pair in zip(buffers, teacher.network.buffers(), strict=True))
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(*pair) for pair in zip(before, [*network.parameters(), *network.buffers()], strict=True))


def test_its_state_can_be_saved_copied_and_pickled():
    network = toy.images()
    teacher = EMATeacher(network, momentum=0.5)
    wander(network, 0)
    teacher.update_(network)
    fresh = EMATeacher(toy.images(seed=3), momentum=0.5)
    fresh.load_state_dict(teacher.state_dict())
    twins = [teacher, fresh, copy.deepcopy(teacher), cases.pickled(teacher)]
    wander(network, 1)
    for twin in twins:
        twin.update_(network)
        assert all(torch.equal(*pair) for pair in zip(teacher.parameters(), twin.parameters(), strict=True))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: EMATeacher(nn.Linear(2, 2), momentum=-0.1), ValueError, r"momentum must lie in \[0, 1\), got -0.1"),
        (lambda: EMATeacher(nn.Linear(2, 2), momentum=1.0), ValueError, r"momentum must lie in \[0, 1\), got 1.0"),
        (lambda: EMATeacher(nn.Linear(2, 2), buffer_rule="keep"), ValueError, "buffer_rule must be one of copy, aver"),
        (lambda: EMATeacher(lambda x: x), TypeError, "network must be a torch module, got function"),
    ],
)
def test_impossible_settings_are_refused(make, error, said):
    with pytest.raises(error, match=said):
        make()


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
    layer, (images, targets) = nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)), toy.batch(7, 3, 6, 6)
    teacher = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
    teacher(images)
    assert SuperMix(teacher, iterations=2)(toy.images(), images, targets, generator=seeded()).total.isfinite()
    network = normed(nn.utils.weight_norm)
    network(toy.batch(7, 8)[0])
    assert AdaMixUp()(network, *toy.batch(7, 8), generator=seeded()).total.isfinite()


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
