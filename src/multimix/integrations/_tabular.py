"""A network for rows of numbers, and the short loop that trains it; what the scikit-learn estimators are made of."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn

from multimix.integrations._course import Course
from multimix.models import adapt
from multimix.protocols import Network


class MLP(nn.Module):
    """Layers of linear map, layer normalisation and GELU, and a linear head; no layer looks across the mini-batch."""

    def __init__(self, features: int, outputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = [features, *hidden]
        self.encoder = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(before, after), nn.LayerNorm(after), nn.GELU())
                for before, after in pairwise(widths)
            )
        )
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs (b, k) of rows (b, d)."""
        return self.head(self.encoder(inputs))


def tabular_network(features: int, outputs: int, hidden: Sequence[int]) -> Network:
    """Return an MLP as a network that can be mixed after every layer."""
    stages = [f"encoder.{layer}" for layer in range(len(hidden))]
    return adapt(MLP(features, outputs, hidden), encoder="encoder", head="head", stages=stages)


@dataclass(frozen=True)
class Fit:
    """How rows are learned.

    Attributes:
        epochs: Passes over the rows.
        batch_size: Rows that are mixed with each other.
        learning_rate: Peak of AdamW's, which falls to 0 along half a cosine.
        weight_decay: AdamW's, of matrices only.
        patience: Epochs without a better held-out loss after which training ends; only with rows held out.
        report: Is told the epoch, the mean loss, and the held-out loss if there is one.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int
    report: Callable[[int, float, float | None], None]

    def __call__(
        self,
        course: Course,
        rows: Tensor,
        targets: Tensor,
        held_out: tuple[Tensor, Tensor] | None,
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> list[float]:
        """Train and return the mean loss of every epoch; the best held-out weights stay, if rows are held out.

        Args:
            course: A method with its network, started.
            rows: All rows (n, d).
            targets: Theirs: class indices (n,), or values (n, k).
            held_out: Rows and targets that are not trained on, which tell when to stop.
            loss: Of outputs against targets, to judge those by.
        """
        module = cast("nn.Module", course.network)
        generator = cast("Generator", course.generator)
        optimizer = torch.optim.AdamW(self._groups([*module.parameters(), *course.parameters()]), lr=self.learning_rate)
        steps = self.epochs * math.ceil(len(rows) / self.batch_size)
        best = _Best(self.patience)
        history, step = [], 0
        for epoch in range(self.epochs):
            module.train()
            total = torch.zeros((), device=rows.device)
            order = torch.randperm(len(rows), generator=generator, device=rows.device)
            for batch in order.split(self.batch_size):
                course.at(step, steps)
                _set_rate(optimizer, self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps)))
                losses = course(rows[batch], targets[batch])
                losses.total.backward()
                optimizer.step()
                optimizer.zero_grad()
                course.after_step()
                total += losses.total.detach() * len(batch)
                step += 1
            history.append(float(total) / len(rows))
            judged = None if held_out is None else _judge(module, *held_out, loss)
            self.report(epoch, history[-1], judged)
            if judged is not None and best.is_over(judged, module):
                break
        best.restore(module)
        return history

    def _groups(self, parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
        """Return parameters so that decay spares biases and normalisation."""
        trained = [p for p in parameters if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]


class _Best:
    """The best weights so far, and how long ago they were."""

    def __init__(self, patience: int) -> None:
        self.patience, self.loss, self.waited = patience, math.inf, 0
        self.weights: dict[str, Tensor] | None = None

    def is_over(self, loss: float, module: nn.Module) -> bool:
        if loss < self.loss:
            self.loss, self.waited, self.weights = loss, 0, copy.deepcopy(module.state_dict())
        else:
            self.waited += 1
        return self.waited >= self.patience

    def restore(self, module: nn.Module) -> None:
        if self.weights is not None:
            module.load_state_dict(self.weights)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _judge(module: nn.Module, rows: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> float:
    module.eval()
    with torch.no_grad():
        return float(loss(module(rows), targets))
