"""A detection run: its moving parts, a step, what it measures, and the way from its configuration to its weights."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from multimix.lab.data import difference
from multimix.lab.data.boxes import BoxBatch, BoxBatches, BoxSet, load_boxes
from multimix.lab.detect.config import DetectConfig, DetectFolder, Origin
from multimix.lab.detect.model import build_detector, detect_boxes, losses_of
from multimix.lab.evaluate.detection import coco_metrics, require_coco, voc_metrics
from multimix.lab.runs.checkpoint import digest, load_weights, save_weights, seed_everything
from multimix.lab.runs.display import Display
from multimix.lab.runs.environment import device_named, keep_freed_memory
from multimix.lab.runs.loggers import require_loggers
from multimix.lab.runs.loop import Loop, Position, Task, go_on
from multimix.lab.runs.optim import make_optimizer
from multimix.lab.train import load_trained
from multimix.lab.train.evaluation import measured_at
from multimix.lab.train.folder import RunFolder
from multimix.lab.train.network import build_network
from multimix.protocols import Network


def load_splits(config: DetectConfig) -> dict[str, BoxSet]:
    """Return the images to train on and those to measure on, as ``train`` and ``test``, all of which can be read."""
    train = load_boxes(config.data, config.train_split)
    test = load_boxes(config.test_data or config.data, config.test_split, classes=train.classes)
    if "coco" in (train.rule, test.rule):
        require_coco()
    if test.objects.ignored.all():
        raise ValueError(f"{test.name} has no object to measure on")
    train.trainable()
    train, test = train.looked_at(), test.looked_at()
    seen = {photo.path for photo in train.photos}
    if shared := sum(photo.path in seen for photo in test.photos):
        test = replace(
            test, notes=(*test.notes, f"{shared} of the {len(test)} images to measure on are trained on, too")
        )
    return {"train": train, "test": test}


class DetectEngine(Task):
    """Everything that changes during a run; without a network its weights are random, for a checkpoint to fill."""

    config: DetectConfig
    weights_entry: ClassVar[str] = "detector"
    saves_memory: ClassVar[str] = "A smaller batch_size, smaller images (min_size and max_size) or a larger finest"

    def __init__(
        self, config: DetectConfig, origin: Origin, splits: dict[str, BoxSet], network: Network | None = None
    ) -> None:
        self.config, self.splits, self.at = config, splits, Position()
        self.device = device_named(config.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        seed_everything(config.seed)
        if network is None or config.init == "random":
            network = fresh_network(origin)
        detector = build_detector(config, network, origin.facts, classes=len(splits["train"].classes))
        self.detector = detector.to(self.device).train()
        self.channels = origin.facts.shape[0]
        self.batches = self._batches(splits["train"].trainable(), train=True)
        self.optimizer = make_optimizer(config.optimizer, self.detector.parameters())
        self.set_learning_rate()

    def _batches(self, boxes: BoxSet, *, train: bool) -> BoxBatches:
        config = self.config
        return BoxBatches(
            boxes,
            batch_size=config.batch_size,
            channels=self.channels,
            seed=config.seed,
            shuffle=train,
            flip=train and config.flip,
            device=self.device,
            workers=config.workers,
        )

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
        there = {(event["when"], event["split"]) for event in run.metrics.read("detection")}
        for split in ("test", "train") if self.config.evaluate_train else ("test",):
            if (when, split) not in there:
                found = self._measured(self.splits[split], f"{when}: {split}", quiet=quiet)
                run.metrics.write("detection", when=when, split=split, **found, **more)

    def _measured(self, boxes: BoxSet, title: str, *, quiet: bool) -> dict[str, Any]:
        """Return what the detector finds in a set, by the rules of its kind, with all that it depends on."""
        started = time.perf_counter()
        with Display(self.config.title, quiet=quiet) as display:
            found, truths = detect_boxes(self.detector, display.track(title, self._batches(boxes, train=False)))
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


def fresh_network(origin: Origin) -> Network:
    """Return the origin's network with random weights from torch's global generator."""
    return cast("Network", build_network(replace(origin.config, pretrained=False), origin.facts))


def detect(config: DetectConfig, folder: Path, *, quiet: bool = False) -> DetectFolder:
    """Fine-tune a run's backbone to detect objects, into a new run folder, measured before and after.

    Args:
        config: What to train.
        folder: Where to; it must not exist, or be empty.
        quiet: Print nothing.

    Raises:
        FileExistsError: If the folder holds anything.
        FileNotFoundError: If the backbone's run or the data is not there.
        ValueError: If configuration, backbone and data do not fit each other, or a package is missing.
        TrainingError: If the loss turns non-finite, or memory does not suffice.
        Terminated: After SIGTERM, behind a checkpoint.
    """
    run = DetectFolder(folder)
    run.check_free()
    require_loggers(config.logger)
    network, origin = load_backbone(config)
    splits = load_splits(config)
    engine = DetectEngine(config, origin, splits, network)
    console = Console(highlight=False, quiet=quiet, stderr=True)
    for note in dict.fromkeys([*splits["train"].trainable().notes, *splits["test"].notes]):
        console.print(note, markup=False, soft_wrap=True)
    data = {name: boxes.identity() for name, boxes in splits.items()}
    with run.begun(config, engine.device, classes=splits["train"].classes, backbone=origin.described(), data=data):
        Loop(run, engine, quiet=quiet).finish()
    return run


def resume_detect(folder: Path, *, quiet: bool = False) -> DetectFolder:
    """Continue a run where its last checkpoint left it; on the same kind of machine it ends as if never interrupted.

    The backbone's own run is needed only where there is no checkpoint yet.

    Raises:
        BlockingIOError: If another process trains it.
        FileNotFoundError: If there is no run in the folder.
        ValueError: If its configuration or checkpoint is damaged or belongs to another run.
        TrainingError: If the loss turns non-finite, or memory does not suffice.
        Terminated: After SIGTERM, behind a checkpoint.
    """
    run = DetectFolder(folder)
    config, origin, classes = run.read_detection()

    def build(saved: dict[str, Any] | None) -> DetectEngine:
        network = None
        if saved is None:
            network, there = load_backbone(config)
            if there.weights != origin.weights:
                raise ValueError(f"{config.backbone} holds other weights than when the run began")
        splits = load_splits(config)
        if splits["train"].classes != classes:
            raise ValueError(f"{splits['train'].name} has other classes than when the run began")
        with run.reading() as whole:
            known = whole.get("data") or {}
        if known and (changes := difference(known, {name: boxes.identity() for name, boxes in splits.items()})):
            raise ValueError(f"data {config.data} are not those that run {folder} began with: {changes}")
        engine = DetectEngine(config, origin, splits, network)
        if saved is not None:
            engine.load(saved)
        return engine

    return go_on(run, build, quiet=quiet)


def load_detector(folder: Path, *, device: str = "cpu") -> tuple[nn.Module, tuple[str, ...]]:
    """Return the trained detector of a run, in eval mode, and the names of its classes; that of label 1 comes first.

    Raises:
        FileNotFoundError: If there is no run, or it has not ended.
        ValueError: If its files are damaged or do not fit each other.
    """
    run = DetectFolder(folder)
    config, origin, classes = run.read_detection()
    run.check_weights("detect")
    detector = build_detector(config, fresh_network(origin), origin.facts, classes=len(classes))
    load_weights(run.weights, detector)
    return detector.to(device_named(device)).eval(), classes


def load_backbone(config: DetectConfig) -> tuple[Network, Origin]:
    """Return the network of the run that a configuration names, on the CPU, and where it is from."""
    if not config.backbone:
        raise ValueError("backbone must be the folder of a finished training run: --backbone RUN")
    run = RunFolder(config.backbone)
    network, facts = load_trained(run.path, device="cpu")
    return network, Origin(run.read_config(), facts, digest(run.weights))
