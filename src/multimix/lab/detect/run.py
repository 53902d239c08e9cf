"""A detection run from its configuration to its weights: train, resume, load."""

from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from multimix.lab.detect.config import DetectConfig
from multimix.lab.detect.engine import DetectEngine, fresh_network
from multimix.lab.detect.folder import DetectFolder, Origin, load_splits
from multimix.lab.detect.model import build_detector
from multimix.lab.runs import loop
from multimix.lab.runs.checkpoint import digest, load_weights
from multimix.lab.runs.environment import device_named
from multimix.lab.train import load_trained
from multimix.lab.train.folder import RunFolder
from multimix.protocols import Network


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
    network, origin = _backbone(config)
    splits = load_splits(config)
    engine = DetectEngine(config, origin, splits, network)
    console = Console(highlight=False, quiet=quiet, stderr=True)
    for note in splits.notes:
        console.print(note, markup=False, soft_wrap=True)
    with loop.created(run, engine, classes=splits.train.classes, backbone=origin.described()):
        loop.Loop(run, engine, quiet=quiet).finish()
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
            network, there = _backbone(config)
            if there.weights != origin.weights:
                raise ValueError(f"{config.backbone} holds other weights than when the run began")
        splits = load_splits(config)
        if splits.train.classes != classes:
            raise ValueError(f"{splits.train.name} has other classes than when the run began")
        engine = DetectEngine(config, origin, splits, network)
        if saved is not None:
            engine.load(saved)
        return engine

    return loop.go_on(run, build, quiet=quiet)


def load_detector(folder: Path, *, device: str = "cpu") -> tuple[nn.Module, tuple[str, ...]]:
    """Return the trained detector of a run, in eval mode, and the names of its classes; that of label 1 comes first.

    Raises:
        FileNotFoundError: If there is no run, or it has not ended.
        ValueError: If its files are damaged or do not fit each other.
    """
    run = DetectFolder(folder)
    config, origin, classes = run.read_detection()
    if not run.weights.is_file():
        raise FileNotFoundError(
            f"{folder} has no model.safetensors yet; finish it with: multimix detect --resume {folder}"
        )
    detector = build_detector(config, fresh_network(origin), origin.facts, classes=len(classes))
    load_weights(run.weights, detector)
    return detector.to(device_named(device)).eval(), classes


def _backbone(config: DetectConfig) -> tuple[Network, Origin]:
    """Return the network of the run that a configuration names, on the CPU, and where it is from."""
    if not config.backbone:
        raise ValueError("backbone must be the folder of a finished training run: --backbone RUN")
    run = RunFolder(Path(config.backbone))
    network, facts = load_trained(run.path, device="cpu")
    return network, Origin(run.read_config(), facts, digest(run.weights))
