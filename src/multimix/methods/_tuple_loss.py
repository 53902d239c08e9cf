"""The loss of interpolated tuples, with or without a teacher, for affine heads and for all others."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from multimix.methods._predict import classification_losses, on_grid, wanted_of
from multimix.ops import (
    CrossEntropy,
    Impl,
    LazyWeights,
    Objective,
    balance_gain,
    balance_gradient,
    gathered,
    interpolate_positions,
    mixed_losses,
    mixed_objective,
    objective_of,
    reweight,
    shares_of,
)
from multimix.protocols import Losses, Network, Teacher


@dataclass(frozen=True)
class Embedded:
    """A mini-batch as a network embeds it, (b, d), or (b, r, d) at every position."""

    network: Network
    embeddings: Tensor
    confidence: float | None = None
    """Scale logits so that the limit of many images a tuple gives a training example this probability."""
    straight: bool = False
    """Leave the scale out of the gradient, which is then as large as without."""
    mask: Tensor | None = None
    """Which positions an example has, (b, r); None for all of them."""
    held: Tensor | None = None
    """Which of the network's positions these are, (r,), if some that no example has are left out."""
    grid: tuple[int, ...] | None = None
    """Height and width of the positions."""

    def logits(self) -> Tensor:
        """Return the logits of the clean embeddings."""
        return self._scaled(self.network.classify(self.embeddings))

    def examples(self) -> int:
        """Return how many examples there are to interpolate: of all processes, where the network gathers."""
        gather = getattr(self.network, "gather", None)
        return len(self.embeddings) if gather is None else gather.size(len(self.embeddings), self.embeddings.device)

    def gathered(self) -> "Embedded":
        """Return the mini-batch of all processes, embedded."""
        return replace(self, embeddings=gathered(self.network, self.embeddings))

    def all_logits(self) -> Tensor:
        """Return the logits of the clean embeddings of all processes: k numbers an example are sent, not d."""
        return gathered(self.network, self.logits())

    def mixed_logits(self, weights: Tensor) -> Tensor:
        """Return the logits of embeddings interpolated with weights (r, n, b), whatever the classifier: (r, n, k)."""
        values = self.embeddings if self.embeddings.ndim == 3 else self.embeddings.unsqueeze(1)
        return self._scaled(self.network.classify(interpolate_positions(weights, values)))

    def _scaled(self, logits: Tensor) -> Tensor:
        if self.confidence is None:
            return logits
        scale = limit_scale(self.confidence, logits.shape[-1])
        return logits + (scale - 1) * logits.detach() if self.straight else scale * logits


@dataclass(frozen=True)
class Taught:
    """A teacher's mini-batch, to be interpolated and as it is, and the weight of the labels against its predictions."""

    by: Embedded
    clean: Embedded | None
    gamma: float

    @classmethod
    def of(
        cls, teacher: Teacher | None, embed: Callable[[Network, Tensor], tuple[Embedded, Embedded | None]]
    ) -> "Taught | None":
        """Return the teacher's view as it embeds it, without gradient; None without a teacher."""
        if teacher is None:
            return None
        with torch.no_grad():
            return cls(*embed(teacher.network, teacher.inputs), teacher.gamma)


def limit_scale(confidence: float, num_classes: int) -> float:
    r"""Return what to multiply logits by so that tuples of very many images lead to a confidence.

    In that limit the loss is the squared error of the centred logits, whose optimum is k apart between the class of the
    label and each of the k - 1 others, whatever k is. Logits multiplied by
    :math:`k / (\log(k - 1) + \log\frac{c}{1 - c})` are at that optimum where the probability of the label is c.

    Raises:
        ValueError: If the confidence is not above chance.
    """
    if num_classes == 1:
        return 1.0
    gap = math.log(num_classes - 1) + math.log(confidence / (1 - confidence))
    if gap <= 0:
        raise ValueError(f"confidence must be above chance, 1 / {num_classes}, got {confidence}")
    return num_classes / gap


def tuple_losses(
    student: Embedded,
    targets: Tensor,
    weights: LazyWeights,
    *,
    attention: Tensor | None = None,
    taught: Taught | None = None,
    balanced: float = 0.0,
    impl: Impl = "auto",
) -> Losses:
    """Return the loss of interpolated predictions against interpolated targets and a teacher's predictions.

    An affine classifier commutes with interpolation, which then takes place on the clean logits; any other one is
    applied to the interpolated embeddings themselves. Where the network gathers the examples of all processes, logits,
    or embeddings, are gathered here; weights are over the union already.

    Args:
        student: What is interpolated.
        targets: Of the examples, or of every position.
        weights: To interpolate with.
        attention: Of each example over its positions.
        taught: The teacher's view.
        balanced: Power of the gain on the gradient.
        impl: How cross-entropy is computed.

    Raises:
        ValueError: If ``impl`` asks for what only an affine classifier allows, or there are label maps or masks without
            one.
    """
    objective = objective_of(student.network)
    partial = student.mask is not None or objective.is_map(targets)
    if student.mask is not None and getattr(student.network, "gather", None) is not None:
        raise ValueError("masked positions cannot be gathered across processes; leave the network's gather at None")
    targets = gathered(student.network, targets)
    attention = None if attention is None else gathered(student.network, attention)
    networks = [student.network] if taught is None else [student.network, taught.by.network]
    if any(network.head is None for network in networks):
        if impl not in ("auto", "plain"):
            raise ValueError(f"impl={impl!r} needs a network with an affine head; head is None: use impl='auto'")
        if partial:
            raise ValueError("masks and label maps need a network with an affine head; head is None")
        return _classify_mixed(student.gathered(), targets, weights.all(), attention, taught, balanced=balanced)
    if partial or not isinstance(objective, CrossEntropy) or not objective.is_plain:
        return _any_objective(objective, student, targets, weights, attention, taught, balanced=balanced)
    logits = student.all_logits()
    if objective.label_smoothing:
        targets = objective.targets(targets, logits.shape[-1])
    with torch.no_grad():
        teacher_logits = None if taught is None else taught.by.all_logits()
    total, labels, teacher = mixed_losses(
        logits,
        targets,
        weights,
        attention=attention,
        teacher_logits=teacher_logits,
        gamma=1.0 if taught is None else taught.gamma,
        balanced=balanced,
        impl=impl,
    )
    return Losses(total, {"labels": labels} if teacher is None else {"labels": labels, "teacher": teacher})


def keep_clean(losses: Losses, share: float, pooled: Embedded | None, targets: Tensor, taught: Taught | None) -> Losses:
    """Return losses of tuples beside the plain ones of the clean mini-batch, if it is given, which weigh ``share``."""
    if pooled is None:
        return losses
    logits = pooled.logits()
    with torch.no_grad():
        teacher = None if taught is None or taught.clean is None else (taught.clean.logits(), taught.gamma)
    wanted = wanted_of(pooled.network, targets, logits, grid=pooled.grid, label_maps=True)
    plain = classification_losses(logits, wanted, teacher, objective_of(pooled.network))
    return Losses(
        (1 - share) * losses.total + share * plain.total,
        {**losses.terms, **{f"clean_{name}": term for name, term in plain.terms.items()}},
    )


def _classify_mixed(
    student: Embedded,
    targets: Tensor,
    weights: Tensor,
    attention: Tensor | None,
    taught: Taught | None,
    *,
    balanced: float,
) -> Losses:
    objective = objective_of(student.network)
    weights = weights.unsqueeze(0) if attention is None else reweight(weights, attention)
    if balanced:
        student = _balanced(student, weights, shares_of(attention), balanced)
    logits = student.mixed_logits(weights)
    with torch.autocast(weights.device.type, enabled=False):  # or rows would no longer sum to 1
        mixed = weights @ objective.targets(targets, logits.shape[-1], dtype=weights.dtype)
    if taught is None:
        return classification_losses(logits, mixed, None, objective)
    with torch.no_grad():
        teacher_logits = taught.by.gathered().mixed_logits(weights)
    return classification_losses(logits, mixed, (teacher_logits, taught.gamma), objective)


def _any_objective(
    objective: Objective,
    student: Embedded,
    targets: Tensor,
    weights: LazyWeights,
    attention: Tensor | None,
    taught: Taught | None,
    *,
    balanced: float,
) -> Losses:
    logits = student.all_logits()
    with torch.no_grad():
        teacher_logits = None if taught is None else taught.by.all_logits()
    total, labels, teacher = mixed_objective(
        logits,
        on_grid(student.grid, targets, logits),
        weights,
        objective,
        attention=attention,
        mask=student.mask,
        teacher_outputs=teacher_logits,
        gamma=1.0 if taught is None else taught.gamma,
        balanced=balanced,
    )
    return Losses(total, {"labels": labels} if teacher is None else {"labels": labels, "teacher": teacher})


def _balanced(student: Embedded, weights: Tensor, centre: Tensor | None, power: float) -> Embedded:
    """Without clean logits, the gradient is balanced where the interpolation happens: on the embeddings."""
    values, gain = student.embeddings, balance_gain(weights, power, centre)
    if values.ndim == 2:
        return replace(student, embeddings=balance_gradient(values, gain[0]))
    return replace(student, embeddings=balance_gradient(values.transpose(0, 1), gain, centre).transpose(0, 1))
