"""What a detection run is: one frozen value, written into the run folder and read back to resume."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from multimix.lab.train import SGD, AdamW, Cosine, Step

Init = Literal["run", "random"]
Norm = Literal["frozen", "trained"]


@dataclass(frozen=True, kw_only=True)
class DetectConfig:
    """One run of Faster R-CNN on the backbone of a finished training run."""

    recipe: str = "custom"
    """The recipe that this started from."""
    label: str = ""
    """What tables call it; by default the name of the backbone's folder."""

    backbone: str = ""
    """Folder of the finished training run whose network becomes the backbone."""
    init: Init = "run"
    """Start from the run's weights, or for comparison from random ones."""
    trainable_stages: int | None = None
    """How many of the backbone's deepest stages are trained; by default all but the first and what comes before it."""
    norm: Norm = "frozen"
    """Whether batch normalisation in the backbone keeps its statistics and scales, as usual with small batches."""
    finest: int = 4
    """Least stride of a stage that feeds the pyramid: those before it have maps so large that memory would not do."""
    coarsest: int = 64
    """Stride of the pyramid's last level; those past the backbone's last stage take every other place."""
    anchor: int = 8
    """Side of a level's anchors over its stride."""
    channels: int = 256
    """Channels of the pyramid."""
    hidden: int = 1024
    """Width of the two layers that classify a region."""
    proposals: int = 1000
    """Regions that are looked at in an image; as many again are in training."""
    sampled: int = 512
    """Regions of an image that are trained on."""
    score_threshold: float = 0.05
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
    min_size: tuple[int, ...] = (800,)
    """Shorter side of an image in pixels; of several, one is drawn at each look, and the last one is measured on."""
    max_size: int = 1333
    """Most that the longer side may have."""
    flip: bool = True
    """Mirror half of the images."""
    workers: int = 0
    """Processes that decode images."""

    optimizer: SGD | AdamW = field(default_factory=lambda: SGD(learning_rate=0.02, weight_decay=1e-4))
    """How weights are updated."""
    schedule: Step | Cosine = field(default_factory=lambda: Step(milestones=(2 / 3, 11 / 12), warmup_epochs=0.1))
    """How the learning rate changes."""
    epochs: int = 12
    """Passes over the training images."""
    batch_size: int = 16
    """Images of a step."""
    clip: float | None = None
    """Largest norm of the gradient, over all parameters."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    seed: int = 0
    """Of initial weights, order, mirroring and sampled regions."""
    checkpoint_steps: int | None = None
    """Write a checkpoint every so many steps, besides after every epoch."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        self._check_choices()
        for name in ("finest", "coarsest", "anchor", "channels", "hidden", "proposals", "sampled", "max_size"):
            _check_count(name, getattr(self, name), 1)
        for name in ("epochs", "batch_size", "checkpoint_steps"):
            _check_count(name, getattr(self, name), 1)
        for name in ("seed", "workers", "trainable_stages"):
            _check_count(name, getattr(self, name), 0)
        if not self.min_size:
            raise ValueError("min_size must hold at least one number")
        for size in self.min_size:
            _check_count("min_size", size, 1)
        if max(self.min_size) > self.max_size:
            raise ValueError(f"max_size must be at least min_size, got {self.max_size} and {max(self.min_size)}")
        if not 0 <= self.score_threshold < 1:
            raise ValueError(f"score_threshold must lie in [0, 1), got {self.score_threshold}")
        if self.clip is not None and not (self.clip > 0 and math.isfinite(self.clip)):
            raise ValueError(f"clip must be finite and greater than 0, got {self.clip}")

    def _check_choices(self) -> None:
        for name, kind in (("init", Init), ("norm", Norm)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}")
        if self.init == "random" and self.trainable_stages is not None:
            raise ValueError("trainable_stages does not go with init='random': random stages that stay so see nothing")
        if not isinstance(self.optimizer, (SGD, AdamW)):
            raise TypeError(f"optimizer must be SGD or AdamW, got {self.optimizer!r}")
        if not isinstance(self.schedule, (Step, Cosine)):
            raise TypeError(f"schedule must be Step or Cosine, got {self.schedule!r}")

    @property
    def title(self) -> str:
        """Return what tables and progress call the run."""
        return self.label or self.backbone.rstrip("/").rpartition("/")[2] or "detection"


def _check_count(name: str, value: int | None, least: int) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
