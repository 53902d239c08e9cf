"""What the methods share that classify mixed data: one draw serves the student and its teacher, or the data alone."""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol, runtime_checkable

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


class InputMixing(ABC):
    """A draw that mixes the inputs themselves."""

    @abstractmethod
    def mix(self, inputs: Tensor) -> Tensor:
        """Return the mixed inputs."""

    @abstractmethod
    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the mixed class probabilities."""

    def predict(self, network: Network, inputs: Tensor) -> Tensor:
        """Return the logits of the mixed inputs."""
        return network(self.mix(inputs))


class Predicts(ABC):
    """Base of the methods whose loss is the cross-entropy of one prediction for each mixed example."""

    @abstractmethod
    def draw(self, network: Network, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Mixing:
        """Draw this step's mixing; targets are class indices or probabilities."""

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
        mixing = self.draw(network, inputs, targets, generator)
        logits = mixing.predict(network, inputs)
        mixed = mixing.mix_targets(as_probabilities(targets, logits.shape[-1]))
        return classification_losses(logits, mixed, _teach(mixing, teacher))


class MixesInputs(Predicts):
    """Base of the methods that mix inputs before the network sees them."""

    needs_network: ClassVar[bool] = False
    """Whether the mixing depends on the network."""

    @abstractmethod
    def draw(
        self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None
    ) -> InputMixing:
        """Draw this step's mixing; targets are class indices or probabilities."""

    def mix(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        classes: int | None = None,
        network: Network | None = None,
        generator: Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the mixed inputs and their class probabilities (b, k), for a loop that only wants the data.

        Args:
            inputs: A mini-batch.
            targets: Class indices (b,), or class probabilities (b, k).
            classes: How many classes there are, k; needed for class indices.
            network: Needed by the methods whose mixing depends on it.
            generator: Source of randomness.

        Raises:
            ValueError: If ``classes`` or ``network`` is missing, or as the method itself.
        """
        check_batch(inputs, targets)
        if self.needs_network and network is None:
            raise ValueError(f"network must be given: {type(self).__name__} mixes by what it makes of the inputs")
        if classes is None and not targets.is_floating_point():
            raise ValueError("classes must be given for targets that are class indices")
        k = targets.shape[-1] if classes is None else classes
        mixing = self.draw(network, inputs, targets, generator)
        return mixing.mix(inputs), mixing.mix_targets(as_probabilities(targets, k))


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
