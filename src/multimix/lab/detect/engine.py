"""A detection run's moving parts, one step of it, and what it measures."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from multimix.lab.data.boxes import BoxBatch, BoxSet
from multimix.lab.detect.config import DetectConfig
from multimix.lab.detect.folder import BoxSplits, DetectFolder, Origin, batches_of
from multimix.lab.detect.model import build_detector, detect_boxes, losses_of
from multimix.lab.evaluate.detection import coco_metrics, voc_metrics
from multimix.lab.runs.checkpoint import digest, save_weights, seed_everything
from multimix.lab.runs.display import Display
from multimix.lab.runs.environment import device_named
from multimix.lab.runs.loop import Position, Task
from multimix.lab.runs.optim import make_optimizer
from multimix.lab.train.evaluation import measured_at
from multimix.lab.train.network import build_network
from multimix.protocols import Network


class DetectEngine(Task):
    """Everything that changes during a run.

    Args:
        config: The run.
        origin: Where its backbone is from.
        splits: Its images.
        network: The backbone's network with its weights; by default one with random weights, for a checkpoint to fill.

    Raises:
        ValueError: If backbone and configuration do not fit each other, or the device is not there.
    """

    config: DetectConfig
    weights_entry: ClassVar[str] = "detector"
    saves_memory: ClassVar[str] = "A smaller batch_size, smaller images (min_size and max_size) or a larger finest"

    def __init__(self, config: DetectConfig, origin: Origin, splits: BoxSplits, network: Network | None = None) -> None:
        self.config, self.splits, self.at = config, splits, Position()
        self.device = device_named(config.device)
        seed_everything(config.seed)
        if network is None or config.init == "random":
            network = fresh_network(origin)
        detector = build_detector(config, network, origin.facts, classes=len(splits.train.classes))
        self.detector = detector.to(self.device).train()
        self.channels = origin.facts.shape[0]
        trained = splits.train.trainable()
        self.batches = batches_of(config, trained, channels=self.channels, device=self.device, train=True)
        self.optimizer = make_optimizer(config.optimizer, self.detector.parameters())
        self.set_learning_rate()

    def epoch(self) -> Iterator[tuple[BoxBatch]]:
        """Yield what is left of the epoch under way."""
        for batch in super().epoch():
            yield (batch,)

    def step(self, batch: BoxBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Train on one mini-batch and return the loss and its terms, detached."""
        terms = {name.removeprefix("loss_"): term for name, term in losses_of(self.detector, batch).items()}
        total = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad()
        total.backward()
        if self.config.clip is not None:
            clip_grad_norm_(self.detector.parameters(), self.config.clip)
        self.optimizer.step()
        self.at.batch += 1
        self.at.step += 1
        self.set_learning_rate()
        return total.detach(), {name: term.detach() for name, term in terms.items()}

    def images(self, batch: BoxBatch) -> int:
        """Return how many images a mini-batch has."""
        return len(batch.images)

    def begin(self, run: DetectFolder, *, quiet: bool) -> None:
        """Measure the detector before it is trained."""
        if self.config.evaluate_before and self.at.step == 0:
            self._measure(run, "before", quiet=quiet)

    def conclude(self, run: DetectFolder, *, quiet: bool) -> None:
        """Write the weights, and measure the detector once more."""
        save_weights(run.weights, self.detector)
        self._measure(run, "after", quiet=quiet, weights=digest(run.weights))

    def _measure(self, run: DetectFolder, when: str, *, quiet: bool, **more: Any) -> None:
        """Measure on every set, but for those that an interrupted run has measured already."""
        sets = {"test": self.splits.test, **({"train": self.splits.train} if self.config.evaluate_train else {})}
        there = {(event["when"], event["split"]) for event in run.metrics.read("detection")}
        for split, boxes in sets.items():
            if (when, split) not in there:
                found = {"when": when, "split": split, **self._measured(boxes, f"{when}: {split}", quiet=quiet)}
                run.metrics.write("detection", **found, **more)

    def _measured(self, boxes: BoxSet, title: str, *, quiet: bool) -> dict[str, Any]:
        """Return what the detector finds in a set, by the rules of its kind, with all that it depends on."""
        started = time.perf_counter()
        batches = batches_of(self.config, boxes, channels=self.channels, device=self.device)
        with Display(self.config.title, quiet=quiet) as display:
            found, truths = detect_boxes(self.detector, display.track(title, batches))
        rule = coco_metrics if boxes.rule == "coco" else voc_metrics
        metrics, each = rule(found, truths, boxes.classes)
        return {
            "rule": boxes.rule,
            **metrics,
            "classes": each,
            "detections": sum(len(image.scores) for image in found),
            "objects": int((~boxes.objects.ignored).sum()),
            "ignored": int(boxes.objects.ignored.sum()),
            "examples": len(boxes),
            "step": self.at.step,
            "seed": self.config.seed,
            **measured_at(self.device, started),
        }

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs, besides the global random states."""
        return {
            "at": [self.at.epoch, self.at.batch, self.at.step],
            "detector": self.detector.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned, but for the position."""
        self.detector.load_state_dict(state["detector"])
        self.optimizer.load_state_dict(state["optimizer"])


def fresh_network(origin: Origin) -> Network:
    """Return the origin's network with random weights from torch's global generator."""
    return cast("Network", build_network(replace(origin.config, pretrained=False), origin.facts))
