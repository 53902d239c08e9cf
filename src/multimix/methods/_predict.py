"""What the methods share that classify mixed data: one draw serves the student and its teacher."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from multimix.ops import as_probabilities, check_batch, soft_cross_entropy
from multimix.protocols import Losses, Network, Teacher


@runtime_checkable
class Mixing(Protocol):
    """One draw of a method: everything random about a step is settled in it."""

    def predict(self, network: Network, inputs: Tensor) -> Tensor:
        """Return the logits of the mixed mini-batch."""
        ...

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the mixed class probabilities."""
        ...


class Predicts(ABC):
    """Base of the methods whose loss is the cross-entropy of one prediction for each mixed example."""

    @abstractmethod
    def draw(self, network: Network, inputs: Tensor, generator: Generator | None) -> Mixing:
        """Draw this step's mixing."""

    def __call__(
        self,
        network: Network,
        inputs: Tensor,
        targets: Tensor,
        *,
        generator: Generator | None = None,
        teacher: Teacher | None = None,
    ) -> Losses:
        """Return the cross-entropy of the mixed mini-batch against mixed targets and a teacher's predictions."""
        check_batch(inputs, targets)
        mixing = self.draw(network, inputs, generator)
        logits = mixing.predict(network, inputs)
        mixed = mixing.mix_targets(as_probabilities(targets, logits.shape[-1]))
        return classification_losses(logits, mixed, _teach(mixing, teacher))


def classification_losses(logits: Tensor, targets: Tensor, taught: tuple[Tensor, float] | None) -> Losses:
    """Return the losses of logits against targets and, if given, (teacher logits, gamma)."""
    labels = soft_cross_entropy(logits, targets)
    if taught is None:
        return Losses(labels, {"labels": labels.detach()})
    teacher_logits, gamma = taught
    teacher = soft_cross_entropy(logits, teacher_logits.float().softmax(-1))
    return Losses(gamma * labels + (1 - gamma) * teacher, {"labels": labels.detach(), "teacher": teacher.detach()})


def _teach(mixing: Mixing, teacher: Teacher | None) -> tuple[Tensor, float] | None:
    if teacher is None:
        return None
    with torch.no_grad():
        return mixing.predict(teacher.network, teacher.inputs), teacher.gamma
