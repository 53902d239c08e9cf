"""What the tests of self-distillation share: two views of a mini-batch, and a teacher unlike its student."""

import torch

import toy
from multimix.distill import SelfDistilled


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
