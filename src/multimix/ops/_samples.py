"""Examples that count more or less."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from multimix._declared import Checked
from multimix.ops._checks import check_tensor
from multimix.ops._objectives import Objective, check_objective


@dataclass(frozen=True)
class SampleWeighted(Checked, Objective):
    """An objective to which some examples count more than others: its mean is over their weights.

    Its targets are rows of an example's weight and then of the objective's own k numbers, which :meth:`join` makes.
    Both are mixed alike: the loss of a mixed row is the objective's loss of its mixed target times its mixed weight.
    Where nothing is mixed, it is torch's ``(weights * loss(reduction="none")).sum() / weights.sum()``; class weights
    multiply those of the examples. A teacher's predictions for an example count as its label does.

    Example:
        >>> objective = SampleWeighted(CrossEntropy())
        >>> targets = objective.join(torch.tensor([0, 1]), torch.tensor([1.0, 3.0]), 2)
        >>> objective(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), targets)
        tensor(1.6269)
    """

    objective: Objective
    """What the examples are for."""

    def __post_init__(self) -> None:
        """Refuse what is no objective."""
        check_objective(self.objective)

    def join(
        self, targets: Tensor, weights: Tensor, outputs: int, *, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "*b j"]:
        """Return the targets of this objective, rows of weights and the objective's own targets.

        Args:
            targets: In any form that the objective knows, of a mini-batch or of all examples there are.
            weights: How much each example counts, (b,), or (b, r) for label maps; their scale does not matter.
            outputs: How many outputs the network has, k.
            dtype: Of the result.

        Returns:
            (b, 1 + k), or (b, r, 1 + k) for label maps; for probabilities with class weights, whose mass comes second,
            (b, 2 + k).

        Raises:
            ValueError: If weights are not finite, negative, all 0, or of another shape; or as the objective has it.
            TypeError: If the weights are no tensor of real numbers; or as the objective has it.
        """
        rows = self.objective.targets(targets, outputs, dtype=dtype)
        check_tensor("weights", weights)
        if weights.is_complex():
            raise TypeError(f"weights must be real numbers, got {weights.dtype}")
        shapes = [tuple(rows.shape[:1]), tuple(rows.shape[:-1])]
        if tuple(weights.shape) not in shapes:
            expected = " or ".join(dict.fromkeys(map(str, shapes)))
            raise ValueError(f"weights must have shape {expected}, one an example, got {tuple(weights.shape)}")
        if not torch.compiler.is_compiling():
            wrong = weights[~(weights.isfinite() & (weights >= 0))]
            if len(wrong):
                raise ValueError(f"weights must be finite and not negative, got {wrong[0].item():.4g}")
            if not weights.any():
                raise ValueError("weights must not all be 0")
        if weights.ndim < rows.ndim - 1:
            weights = weights.unsqueeze(1).expand(rows.shape[:-1])
        return torch.cat([weights.to(rows).unsqueeze(-1), rows], -1)

    @property
    def beside(self) -> range:
        """Return how many columns rows may have before their k numbers: the weight, and what the objective has."""
        return range(1, 1 + self.objective.beside.stop)

    def targets(self, targets: Tensor, outputs: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return rows that :meth:`join` has made, as they are."""
        check_tensor("targets", targets)
        fitting = targets.is_floating_point() and targets.ndim in (2, 3)
        if not fitting or targets.shape[-1] - outputs not in self.beside:
            raise ValueError(
                f"targets must be rows (b, {1 + outputs}) as SampleWeighted.join(targets, weights, {outputs}) returns"
                f" them, got {targets.dtype} {tuple(targets.shape)}"
            )
        return targets.to(dtype)

    def terms(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objective's own, times the weights."""
        loss, mass = self.objective.terms(outputs, targets[..., 1:])
        return loss * targets[..., 0], mass * targets[..., 0]

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return what the objective has."""
        return self.objective.predictions(outputs)

    def settled(self, rows: Tensor, outputs: int) -> Tensor:
        """Return the weights with the objective's own."""
        return torch.cat([rows[..., :1], self.objective.settled(rows[..., 1:], outputs)], -1)

    def from_teacher(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Return the objective's own, with the weights of the rows."""
        return torch.cat([rows[..., :1], self.objective.from_teacher(outputs, rows[..., 1:])], -1)

    def known(self, targets: Tensor) -> Tensor | None:
        """Return what the objective has."""
        return self.objective.known(targets[..., 1:])
