"""What a network is trained for: what predictions are compared with targets by.

Targets of every kind become rows of numbers that can be interpolated, (b, k), or (b, r, k) where each position has its
own. A row of zeros says nothing, and what is mixed of it counts as little as its weight. Where the numbers of a row do
not tell how much it counts, its mass stands before them, (b, 1 + k), and the numbers are smoothed already.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from multimix._declared import Checked, Fraction, Interval, MinLen, shown
from multimix.ops._checks import (
    INTEGER_ROWS,
    accurate,
    as_probabilities,
    check,
    check_floating,
    check_shape,
    check_simplex,
    check_target_form,
    check_tensor,
    looks_are_free,
    no_autocast,
)
from multimix.protocols import Losses

Amounts = Annotated[tuple[Annotated[float, Interval(ge=0, lt=inf)], ...], MinLen(1)]  # how much each class counts


class Rows(Tensor):
    """Rows that an objective made of targets, given to a method as its targets: they are taken as they are."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    """What is computed from them is a tensor as any other."""


class Objective(ABC):
    """A loss of predictions against targets that are linear in what is interpolated.

    A network says which one it is trained for by its attribute ``objective``; without it, it is cross-entropy.
    """

    @property
    def beside(self) -> range:
        """Return how many columns rows may have before their k numbers."""
        return range(1)

    @property
    def is_plain(self) -> bool:
        """Return whether it is cross-entropy with nothing to it but targets on the simplex, each counting alike."""
        return False

    @abstractmethod
    def targets(self, targets: Tensor, outputs: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return targets as rows that can be interpolated: (b, k), or (b, r, k) if each position has its own.

        Raises:
            ValueError: If they have another shape, or values that no target of this kind has.
            TypeError: If they are of another type.
        """

    @abstractmethod
    def terms(self, outputs: Float[Tensor, "*n k"], targets: Float[Tensor, "*n j"]) -> tuple[Tensor, Tensor]:
        """Return the loss of every row, and how much of a target there is in it: what its mean is taken over."""

    @abstractmethod
    def predictions(self, outputs: Float[Tensor, "*n k"]) -> Float[Tensor, "*n k"]:
        """Return what outputs say, in the form of targets: a teacher's probabilities, or values."""

    def settled(self, rows: Float[Tensor, "*n k"], outputs: int) -> Float[Tensor, "*n j"]:
        """Return rows of :meth:`targets` that may be mixed with any others, a teacher's too: smoothed, with their mass.

        The last ``outputs`` columns are what the predictions are compared with.
        """
        return rows

    def from_teacher(self, outputs: Float[Tensor, "*n k"], rows: Float[Tensor, "*n j"]) -> Float[Tensor, "*n j"]:
        """Return :meth:`predictions` of a teacher as rows in place of the given ones, not smoothed."""
        return self.predictions(outputs)

    def before(self, targets: Tensor) -> int:
        """Return how many columns stand before the numbers of targets, if these are rows."""
        return self.beside[-1 if isinstance(targets, Rows) else 0]

    def is_map(self, targets: Tensor) -> bool:
        """Return whether every position has a target of its own."""
        return targets.ndim > 2

    def known(self, targets: Float[Tensor, "*n j"]) -> Tensor | None:
        """Return which rows of targets say anything, (b,) or (b, r); None for all of them."""
        return None

    def __call__(self, outputs: Float[Tensor, "*n k"], targets: Float[Tensor, "*n j"]) -> Float[Tensor, ""]:
        """Return the mean loss of rows against interpolated targets, as :meth:`losses` has it without a teacher."""
        return self.losses(outputs, targets).total

    def losses(
        self,
        outputs: Float[Tensor, "*n k"],
        targets: Float[Tensor, "*n j"],
        taught: tuple[Float[Tensor, "*n k"], float] | None = None,
        present: Float[Tensor, "*n"] | None = None,
    ) -> Losses:
        """Return the mean loss of rows against interpolated targets and a teacher's predictions; 0 without any target.

        Each of the two terms has its own mean; a teacher's row counts as much as a row of targets with its predictions.

        Args:
            outputs: Predictions, as the network's head gives them. Half precision is computed in float32.
            targets: As :meth:`targets` returns them, interpolated or not.
            taught: A teacher's outputs and gamma, the weight of the targets against its predictions.
            present: How much each row counts; all of them alike by default.

        Raises:
            ValueError: If the shapes differ, or gamma is no share.
            TypeError: If an argument is no tensor, or the outputs are not floating-point.
        """
        check_floating("outputs", outputs)
        check_tensor("targets", targets)
        more = targets.shape[-1] - outputs.shape[-1] if targets.ndim else 0
        more = more if more in self.beside else self.beside.start
        check_shape("targets", targets, *outputs.shape[:-1], outputs.shape[-1] + more)
        if present is not None:
            check_shape("present", present, *outputs.shape[:-1])
        if taught is not None:
            check_shape("taught", taught[0], *outputs.shape)
            check(Fraction, gamma=taught[1])
        outputs = accurate(outputs)
        with no_autocast(outputs.device.type):
            labels = self._mean(*self.terms(outputs, targets.to(outputs.dtype)), present)
            if taught is None:
                return Losses(labels, {"labels": labels.detach()})
            theirs, gamma = taught
            predicted = self.from_teacher(accurate(theirs).to(outputs.dtype), targets.to(outputs.dtype))
            teacher = self._mean(*self.terms(outputs, predicted), present)
        return Losses(gamma * labels + (1 - gamma) * teacher, {"labels": labels.detach(), "teacher": teacher.detach()})

    def _mean(self, loss: Tensor, mass: Tensor, present: Tensor | None) -> Tensor:
        if self.is_plain:
            if present is None and loss.numel():
                return loss.mean()
            mass = torch.ones_like(mass)  # of a row, whatever rounding made its probabilities sum to
        if present is not None:
            loss, mass = loss * present, mass * present
        total, whole = loss.sum(), mass.sum()
        # Smoothing alone may leave a loss to targets that count nothing.
        return total * (whole > 0) / whole.clamp_min(torch.finfo(mass.dtype).tiny)


class _Weighted(Checked, Objective):
    """An objective in which classes, or labels, may count more or less."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        for name, value in vars(self).items():
            if isinstance(value, tuple) and not any(value):
                raise ValueError(f"{name} must not all be 0, got {value}")


@dataclass(frozen=True)
class CrossEntropy(_Weighted):
    """One class out of k: softmax cross-entropy, with torch's meaning of weights, smoothing and ignored labels.

    Class indices are (b,), or (b, r) and (b, h, w) where each position has its own; probabilities (b, k), (b, r, k).
    Methods take one-hot integers (b, k) for probabilities, unless the network has outputs at every position.

    As in torch, the mean of class indices is over the weights of the classes, and that of probabilities over the rows.
    A teacher's predictions are probabilities that stand in for class indices: they are not smoothed, and their mean is
    over the weights of the predicted classes, so that ``gamma`` weighs them alike whatever the scale of the weights is.
    """

    class_weights: Amounts | None = None
    """How much each class counts."""
    label_smoothing: Fraction = 0.0
    """Share of a label that is spread over all classes, of probabilities too."""
    ignore_index: int | None = None
    """Class index of examples, or positions, that have no label."""

    @property
    def is_plain(self) -> bool:
        """Return whether no class weighs more than another and no label is ignored."""
        return self.class_weights is None and self.ignore_index is None

    @property
    def beside(self) -> range:
        """Return how many columns rows may have before their k numbers: their mass, which weights or smoothing hide."""
        return range(1 if self.class_weights is None and not self.label_smoothing else 2)

    def targets(self, targets: Tensor, outputs: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return class probabilities, not smoothed; an ignored one is a row of zeros.

        Given probabilities that are to be weighted or smoothed come smoothed, behind a mass of 1, whatever they weigh.
        """
        if isinstance(targets, Rows):
            return targets.to(dtype)
        check_tensor("targets", targets)
        if targets.is_floating_point():
            by_position = targets.ndim == 3 and targets.shape[-1] == outputs
            rows = targets.flatten(0, 1) if by_position else targets
            check_target_form(rows, outputs, partial=self.ignore_index is not None)
            rows = targets.to(dtype)
            if len(self.beside) == 1:
                return rows
            whole = torch.ones_like(rows[..., 0]) if self.ignore_index is None else rows.sum(-1)
            return _behind(whole, self._smoothed(rows, whole))
        indices = targets.flatten(1) if targets.ndim > 1 else targets
        known = None if self.ignore_index is None else indices != self.ignore_index
        kept = indices if known is None else torch.where(known, indices, 0)
        labels = as_probabilities(kept.flatten(), outputs, dtype=dtype).view(*indices.shape, outputs)
        return labels if known is None else labels * known.unsqueeze(-1)

    def settled(self, rows: Tensor, outputs: int) -> Tensor:
        """Return rows as they are if probabilities are all there is to them, else smoothed, their mass before them."""
        if len(self.beside) == 1 or rows.shape[-1] > outputs:
            return rows
        return _behind(self._mass(rows), self._smoothed(rows, rows.sum(-1)))

    def from_teacher(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Return a teacher's probabilities, which count as much as class indices would, and are not smoothed."""
        predicted = self.predictions(outputs)
        if rows.shape[-1] == predicted.shape[-1] and not self.label_smoothing:
            return predicted
        return _behind(self._mass(predicted), predicted)

    def is_map(self, targets: Tensor) -> bool:
        """Return whether every position has a class of its own."""
        return targets.ndim > (2 if targets.is_floating_point() else 1)

    def known(self, targets: Tensor) -> Tensor | None:
        """Return which rows are not ignored."""
        return None if self.ignore_index is None else targets.sum(-1) > 0

    def terms(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return cross-entropy, and the weight of the classes in the target or its mass where it is given."""
        if targets.shape[-1] > outputs.shape[-1]:
            mass, wanted = targets[..., 0], targets[..., 1:]
        else:
            mass, wanted = self._mass(targets), self._smoothed(targets, targets.sum(-1))
        weights = self.weights(wanted)
        wanted = wanted if weights is None else wanted * weights
        return -(wanted * outputs.log_softmax(-1)).sum(-1), mass

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return class probabilities."""
        return outputs.softmax(-1)

    def weights(self, like: Tensor) -> Tensor | None:
        """Return the class weights, (k,), in the precision and on the device of what they are for."""
        return _weights_of("class_weights", self.class_weights, like)

    def _mass(self, rows: Tensor) -> Tensor:
        weights = self.weights(rows)
        return (rows if weights is None else rows * weights).sum(-1)

    def _smoothed(self, rows: Tensor, whole: Tensor) -> Tensor:
        share = self.label_smoothing
        return (1 - share) * rows + share / rows.shape[-1] * whole.unsqueeze(-1) if share else rows


@dataclass(frozen=True)
class BinaryCrossEntropy(_Weighted):
    """Labels of which any number may hold: binary cross-entropy of each, the mean over them, as torch's with logits.

    Targets are (b, k), or (b, r, k), of 0 and 1 or of probabilities; (b,) if there is one output. The mean is over
    labels and rows, a teacher's predictions among them, which are not smoothed.
    """

    positive_weights: Amounts | None = None
    """How much a label that holds counts against one that does not, one for each, as ``pos_weight`` in torch."""
    label_smoothing: Fraction = 0.0
    """Share of a target, of probabilities too, that becomes 1/2."""

    def targets(self, targets: Tensor, outputs: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the probability of each label, smoothed."""
        if isinstance(targets, Rows):
            return targets.to(dtype)
        labels = _values(targets, outputs, dtype)
        if looks_are_free(labels) and labels.numel():
            low, high = (edge.item() for edge in labels.detach().aminmax())
            if not (low >= 0 and high <= 1):
                raise ValueError(f"targets must lie in [0, 1] for binary cross-entropy, got {low if low < 0 else high}")
        return (1 - self.label_smoothing) * labels + self.label_smoothing / 2 if self.label_smoothing else labels

    def terms(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean over labels, each row counting alike."""
        weights = _weights_of("positive_weights", self.positive_weights, targets)
        losses = F.binary_cross_entropy_with_logits(outputs, targets, pos_weight=weights, reduction="none")
        return losses.mean(-1), torch.ones_like(losses[..., 0])

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the probability of each label."""
        return outputs.sigmoid()


@dataclass(frozen=True)
class SquaredError(Objective):
    """Values: the squared error, the mean over outputs. Targets are (b, k), or (b, r, k); (b,) for one output."""

    def targets(self, targets: Tensor, outputs: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the values."""
        values = _values(targets, outputs, dtype)
        if looks_are_free(values) and not values.isfinite().all():
            raise ValueError("targets must be finite values, got NaN or infinity")
        return values

    def terms(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean over outputs, each row counting alike."""
        losses = (outputs - targets).square()
        return losses.mean(-1), torch.ones_like(losses[..., 0])

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the values."""
        return outputs


def check_fit(targets: Tensor, wanted: Tensor, outputs: Tensor) -> None:
    """Raise unless targets, as rows ``wanted``, are those of outputs (b, k) or (b, r, k)."""
    if len(wanted) == len(outputs) and (wanted.ndim == 2 or wanted.shape[:-1] == outputs.shape[:-1]):
        return
    expected = "(b,) or (b, k)" + (" or one target a position" if outputs.ndim == 3 else "")
    hint = f"; {INTEGER_ROWS}" if targets.ndim == 2 and not targets.is_floating_point() else ""
    raise ValueError(
        f"targets for outputs {tuple(outputs.shape)} must have shape {expected}, got {tuple(targets.shape)}{hint}"
    )


def _behind(mass: Tensor, numbers: Tensor) -> Tensor:
    """Return rows of numbers with their mass before them."""
    return torch.cat([mass.unsqueeze(-1), numbers], -1)


def _values(targets: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
    check_tensor("targets", targets)
    if targets.is_complex():
        raise TypeError(f"targets must be real numbers, got {targets.dtype}")
    values = targets.unsqueeze(-1) if targets.ndim == 1 and outputs == 1 else targets
    if values.ndim not in (2, 3) or values.shape[-1] != outputs:
        hint = ""
        if targets.ndim > 2:
            hint = f"; at every position (b, r, {outputs}), of maps (b, k, h, w) maps.flatten(2).transpose(1, 2)"
        elif targets.ndim == 1 and not targets.is_floating_point():
            hint = "; class indices are for CrossEntropy"
        raise ValueError(f"targets must have one number an output, (b, {outputs}), got {tuple(targets.shape)}{hint}")
    return values.to(dtype)


@cache
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def _weights_of(name: str, values: tuple[float, ...] | None, like: Tensor) -> Tensor | None:
    if values is None:
        return None
    if len(values) != like.shape[-1]:
        raise ValueError(f"{name} must hold one number an output, {like.shape[-1]}, got {len(values)}")
    return _constant(values, like.dtype, like.device)


CROSS_ENTROPY = CrossEntropy()
"""What a network is trained for unless it says otherwise."""


def soft_cross_entropy(logits: Float[Tensor, "*n k"], targets: Float[Tensor, "*n k"]) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of logits against target probabilities (equations (1) and (8)).

    Raises:
        ValueError: If the shapes differ, or targets leave the simplex.
        TypeError: If either is no tensor, or the logits are not floating-point.
    """
    check_floating("logits", logits)
    check_shape("targets", targets, *logits.shape)
    check_simplex("targets", targets)
    return CROSS_ENTROPY(logits, targets)


def objective_of(network: object) -> Objective:
    """Return what a network is trained for: its attribute ``objective``, else cross-entropy.

    Raises:
        TypeError: If it is no objective.
    """
    own = getattr(network, "objective", None)
    return CROSS_ENTROPY if own is None else check_objective(own, "objective of the network")


def check_objective(objective: object, name: str = "objective") -> Objective:
    """Return an objective; raise TypeError if it is anything else, such as a loss of torch's."""
    if not isinstance(objective, Objective):
        raise TypeError(f"{name} must be an Objective such as CrossEntropy(), got {shown(objective)}")
    return objective
