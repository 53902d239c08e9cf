"""What a detection run is: one frozen value, written into the run folder and read back to resume."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from multimix._declared import Checked, Count, Ge, MinLen, Positive
from multimix.lab.runs.codec import register
from multimix.lab.runs.optim import SGD, AdamW, BelowOne, Cosine, Step, check_optimizer

NotNegative = Annotated[int, Ge(0)]


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

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
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
