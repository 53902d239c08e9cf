"""What a detection run is, what lies in its folder, and flat records of its numbers."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from multimix._declared import Checked, Count, Ge, MinLen, Positive
from multimix.lab.runs.codec import from_json, register, to_json
from multimix.lab.runs.folder import Folder, write_json_lines
from multimix.lab.runs.optim import SGD, AdamW, BelowOne, Cosine, Step, check_optimizer
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.folder import Facts

NotNegative = Annotated[int, Ge(0)]
_METRIC = re.compile(r"(\w+/)?a[pr]\d*")
_NOT_SETTINGS = frozenset({"seed", "label", "recipe", "workers", "checkpoint_steps", "logger"})


@register
@dataclass(frozen=True, kw_only=True)
class DetectConfig(Checked):
    """One run of Faster R-CNN on the backbone of a finished training run."""

    recipe: str = "custom"
    """The recipe that this started from."""
    label: str = ""
    """What tables call it; by default the name of the backbone's folder."""

    backbone: str = ""
    """Folder of the finished training run whose network becomes the backbone."""
    init: Literal["run", "random"] = "run"
    """Start from the run's weights, or for comparison from random ones."""
    trainable_stages: NotNegative | None = None
    """How many of the backbone's deepest stages are trained; by default all but the first and what comes before it."""
    norm: Literal["frozen", "trained"] = "frozen"
    """Whether batch normalisation in the backbone keeps its statistics and scales, as usual with small batches."""
    finest: Count = 4
    """Least stride of a stage that feeds the pyramid: those before it have maps so large that memory would not do."""
    coarsest: Count = 64
    """Stride of the pyramid's last level; those past the backbone's last stage take every other place."""
    anchor: Count = 8
    """Side of a level's anchors over its stride."""
    channels: Count = 256
    """Channels of the pyramid."""
    hidden: Count = 1024
    """Width of the two layers that classify a region."""
    proposals: Count = 1000
    """Regions that are looked at in an image; as many again are in training."""
    sampled: Count = 512
    """Regions of an image that are trained on."""
    score_threshold: BelowOne = 0.05
    """Detections below this are not reported."""

    data: str = "coco:data/coco"
    """coco:PATH or voc:PATH, more paths of VOC after commas."""
    train_split: str = "train2017"
    """Images to train on: of annotations/instances_SPLIT.json or ImageSets/Main/SPLIT.txt."""
    test_data: str | None = None
    """Where the images to measure on are, if not in data; VOC07+12 is measured on VOC2007 alone."""
    test_split: str = "val2017"
    """Images to measure on."""
    evaluate_train: bool = False
    """Also measure on the training images, with all their objects."""
    evaluate_before: bool = True
    """Also measure before training."""
    min_size: Annotated[tuple[Count, ...], MinLen(1)] = (800,)
    """Shorter side of an image in pixels; of several, one is drawn at each look, and the last one is measured on."""
    max_size: Count = 1333
    """Most that the longer side may have."""
    flip: bool = True
    """Mirror half of the images."""
    workers: NotNegative = 0
    """Processes that decode images."""

    optimizer: SGD | AdamW = field(default_factory=lambda: SGD(learning_rate=0.02, weight_decay=1e-4))
    """How weights are updated."""
    schedule: Step | Cosine = field(default_factory=lambda: Step(milestones=(2 / 3, 11 / 12), warmup_epochs=0.1))
    """How the learning rate changes."""
    epochs: Count = 12
    """Passes over the training images."""
    batch_size: Count = 16
    """Images of a step."""
    clip: Positive | None = None
    """Largest norm of the gradient, over all parameters."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    seed: NotNegative = 0
    """Of initial weights, order, mirroring and sampled regions."""
    checkpoint_steps: Count | None = None
    """Write a checkpoint every so many steps, besides after every epoch."""
    logger: tuple[str, ...] = ()
    """Where settings and numbers go besides the run folder: any of tensorboard, wandb and mlflow."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_optimizer(self.optimizer, self.schedule)
        if max(self.min_size) > self.max_size:
            raise ValueError(f"max_size must be at least min_size, got {self.max_size} and {max(self.min_size)}")
        if self.init == "random" and self.trainable_stages is not None:
            raise ValueError("trainable_stages does not go with init='random': random stages that stay so see nothing")

    @property
    def title(self) -> str:
        """Return what tables and progress call the run."""
        return self.label or self.backbone.rstrip("/").rpartition("/")[2] or "detection"


@dataclass(frozen=True)
class Origin:
    """The training run that a backbone is from, as far as building it again takes, and the digest of its weights."""

    config: TrainConfig
    facts: Facts
    weights: str

    def described(self) -> dict[str, Any]:
        """Return this as JSON."""
        return {"config": to_json(self.config), "trained_on": vars(self.facts), "weights": self.weights}


class DetectFolder(Folder):
    """The files of one detection run."""

    def read_detection(self) -> tuple[DetectConfig, Origin, tuple[str, ...]]:
        """Return configuration, origin of the backbone and names of the classes."""
        config = self.read_as(DetectConfig)
        with self.reading() as whole:
            given = whole["backbone"]
            trained = from_json(given["config"])
            if not isinstance(trained, TrainConfig):
                raise ValueError("its backbone has no training configuration")
            origin = Origin(trained, Facts.read(given["trained_on"]), str(given["weights"]))
            return config, origin, tuple(whole["classes"])


def detection_records(run: DetectFolder) -> Iterator[dict[str, Any]]:
    """Yield a record for each number over all classes: ``detection/train/after/ap`` and the like, and the cost.

    Raises:
        ValueError: If the run has not ended.
    """
    if not run.finished:
        raise ValueError(f"{run.path} has not ended; finish it with: multimix detect --resume {run.path}")
    config, origin, _ = run.read_detection()
    settings = {name: value for name, value in to_json(config).items() if name not in _NOT_SETTINGS}
    environment = json.loads(run.environment_file.read_text(encoding="utf-8"))
    kind, _, paths = config.data.partition(":")  # where folders lie is one machine's business
    about: dict[str, Any] = {
        "seed": config.seed,
        "label": config.title,
        "method": origin.config.title,
        "data": f"{kind}:{','.join(Path(path).name for path in paths.split(','))}",
        "model": origin.config.model,
        "epochs": config.epochs,
        "config": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10],
        "backbone": origin.weights,
        **{name: environment.get(name) for name in ("commit", "device", "device_name", "threads", "torch", "date")},
    }
    for event in run.metrics.read():
        suite, numbers = "cost", dict[str, float]()
        if event["event"] == "end":
            numbers = {name: event[name] for name in ("seconds", "step_seconds", "peak_mib") if name in event}
        elif event["event"] == "detection":
            suite, start = "detection", f"detection/{event['split']}/{event['when']}"
            numbers = {f"{start}/{name}": value for name, value in event.items() if _METRIC.fullmatch(name)}
        more: dict[str, Any] = {name: event[name] for name in ("commit", "date", "examples") if name in event}
        for name, value in numbers.items():
            yield {"metric": name, "value": value, **about, **more, "suite": suite}


def write_detection_records(path: Path, run: DetectFolder) -> None:
    """Write the records of a run as JSON lines, whole or not at all.

    Raises:
        ValueError: If the run has not ended.
    """
    write_json_lines(path, list(detection_records(run)))
