"""A detection run's moving parts, and one step of it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from multimix.lab.data.boxes import BoxBatch
from multimix.lab.detect.config import DetectConfig
from multimix.lab.detect.data import BoxSplits, batches_of
from multimix.lab.detect.folder import Origin
from multimix.lab.detect.model import build_detector, losses_of
from multimix.lab.train import TrainConfig
from multimix.lab.train.engine import Position, build_network
from multimix.lab.train.optim import learning_rate, make_optimizer
from multimix.lab.train.state import seed_everything
from multimix.protocols import Network


class DetectEngine:
    """Everything that changes during a run.

    Args:
        config: The run.
        origin: Where its backbone is from.
        splits: Its images.
        network: The backbone's network with its weights; by default one with random weights, for a checkpoint to fill.

    Raises:
        ValueError: If backbone and configuration do not fit each other, or the device is not there.
    """

    def __init__(self, config: DetectConfig, origin: Origin, splits: BoxSplits, network: Network | None = None) -> None:
        self.config, self.splits, self.at = config, splits, Position()
        self.device = device_named(config.device)
        seed_everything(config.seed)
        if network is None or config.init == "random":
            network = fresh_network(origin)
        detector = build_detector(config, network, origin.facts, classes=len(splits.train.classes))
        self.detector = detector.to(self.device).train()
        channels = origin.facts.shape[0]
        self.channels = channels
        self.batches = batches_of(config, splits.train.trainable(), channels=channels, device=self.device, train=True)
        self.optimizer = make_optimizer(config.optimizer, self.detector.parameters())
        self._set_learning_rate()

    @property
    def rate(self) -> float:
        """Return the learning rate in force."""
        return float(self.optimizer.param_groups[0]["lr"])

    def epoch(self) -> Iterator[BoxBatch]:
        """Yield what is left of the epoch under way."""
        return self.batches.epoch(self.at.epoch, start=self.at.batch)

    def step(self, batch: BoxBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Train on one mini-batch and return the loss and its terms, detached; a loss not finite changes nothing."""
        terms = losses_of(self.detector, batch)
        total = torch.stack(list(terms.values())).sum()
        if bool(total.isfinite()):
            self.optimizer.zero_grad()
            total.backward()
            if self.config.clip is not None:
                clip_grad_norm_(self.detector.parameters(), self.config.clip)
            self.optimizer.step()
        self.at.batch += 1
        self.at.step += 1
        self._set_learning_rate()
        return total.detach(), {name: term.detach() for name, term in terms.items()}

    def end_epoch(self) -> None:
        """Go on to the next epoch."""
        self.at.epoch, self.at.batch = self.at.epoch + 1, 0

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs, besides the global random states."""
        return {
            "at": [self.at.epoch, self.at.batch, self.at.step],
            "detector": self.detector.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state`.

        Raises:
            ValueError: If it belongs to another detector or optimiser.
        """
        try:
            self.detector.load_state_dict(state["detector"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.at = Position(*state["at"])
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"the checkpoint belongs to another run: {' '.join(str(error).split())[:160]}") from error
        self._set_learning_rate()

    def _set_learning_rate(self) -> None:
        # It asks for a schedule, an optimiser and epochs, which this configuration has under the same names.
        config = cast("TrainConfig", self.config)
        rate = learning_rate(config, self.at.step, steps_per_epoch=len(self.batches))
        for group in self.optimizer.param_groups:
            group["lr"] = rate


def fresh_network(origin: Origin) -> Network:
    """Return the origin's network with random weights from torch's global generator."""
    return cast("Network", build_network(replace(origin.config, pretrained=False), origin.facts))


def device_named(name: str) -> torch.device:
    """Return the device that a configuration names.

    Raises:
        ValueError: If it is unknown or not there.
    """
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdigit())):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    there = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= there:
        raise ValueError(f"device {name!r} is not there: torch sees {there} CUDA device{'s' * (there != 1)}")
    on_gpu = kind == "cuda" or (kind == "auto" and there > 0)
    return torch.device(f"cuda:{int(index or 0)}" if on_gpu else "cpu")
