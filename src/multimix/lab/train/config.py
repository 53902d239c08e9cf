"""What a training run is: one frozen value, written into the run folder and read back to resume."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from multimix._declared import Checked, Count, Ge, Interval, Positive
from multimix.distill import SelfDistilled
from multimix.lab.runs.codec import register
from multimix.lab.runs.optim import SGD, AdamW, BelowOne, Cosine, Step, check_optimizer
from multimix.lab.train.objective import BinaryCrossEntropy, CrossEntropy, as_settings
from multimix.methods import Alternate, AnyMethod, Chain, MultiMix, Ramp, Until
from multimix.protocols import Method, submethods

NotNegative = Annotated[int, Ge(0)]
TrainingMethod = AnyMethod | Alternate | Chain | Ramp | Until | SelfDistilled


@register
@dataclass(frozen=True, kw_only=True)
class TrainConfig(Checked):
    """One training run."""

    recipe: str = "custom"
    """The recipe that this started from."""
    label: str = ""
    """What tables call the method; by default its name."""

    data: str = "digits"
    """A data set by name (see `multimix list`), folder:PATH or npz:PATH."""
    root: str = "data"
    """Where data sets lie that are given by name."""
    download: bool = False
    """Fetch the data set if it is not there and its library knows how."""
    train_size: Count | None = None
    """Keep only so many training images, the same share of each class."""
    validation: BelowOne = 0.1
    """Share of the training images held out for validation; 0 for none."""
    split_seed: NotNegative | None = 0
    """Seed of the splits, apart from that of training; None for that of training, so that every seed has its own."""
    image_size: Count | None = None
    """Resize images to this size in pixels; by default as they are."""
    skip_unreadable: bool = False
    """Leave out files of a folder that cannot be read, instead of refusing them all before training."""
    crop_padding: NotNegative = 4
    """Pixels of padding before a random crop; 0 for no crop."""
    flip: bool = True
    """Flip half of the images left to right."""
    workers: NotNegative = 0
    """Processes that decode images of sets too large for memory."""

    model: str = "preact_resnet18"
    """preact_resnet18, wide_resnet16_8, timm:NAME or torchvision:NAME."""
    width: Count | None = None
    """Channels of the first stage of preact_resnet18, or the widening factor of wide_resnet16_8."""
    strides: tuple[int, ...] | None = None
    """Stride of each stage, for images smaller than the network was made for."""
    final_norm: bool | None = None
    """Whether preact_resnet18 ends with a normalisation layer; by default it does, in the mixup papers it does not."""
    pretrained: bool = False
    """Start from the library's pre-trained weights, which it downloads."""
    init: str | None = None
    """Run folder whose network's weights training begins from, except those of the classifier where classes differ."""

    method: TrainingMethod = field(default_factory=MultiMix)
    """How examples are mixed."""
    objective: CrossEntropy | BinaryCrossEntropy | None = None
    """What predictions are compared with labels by: CrossEntropy of classes, BinaryCrossEntropy where an image may have
    several labels; by default the one that the data ask for."""
    optimizer: SGD | AdamW = field(default_factory=SGD)
    """How weights are updated."""
    schedule: Step | Cosine = field(default_factory=Cosine)
    """How the learning rate changes."""
    epochs: Count = 30
    """Passes over the training set."""
    batch_size: Count = 128
    """Images of a mini-batch, on all devices together."""
    accumulate: Count = 1
    """Mini-batches that make one step of the optimiser."""
    clip: Positive | None = None
    """Largest norm of the gradient, over all parameters."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Arithmetic of the network; losses are always in float32."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    devices: Count = 1
    """Devices of this machine that share every mini-batch; of a CPU, processes."""
    nodes: Count = 1
    """Machines with so many devices each, started by torchrun or SLURM."""
    sync_batchnorm: bool = False
    """Normalise over the whole mini-batch instead of each device's share; running statistics are averaged anyway."""
    fsdp: bool = False
    """Shard weights, gradients and the optimiser's state over all devices (fully sharded data parallel), for networks
    that are too large for one."""
    compile: bool = False
    """Compile network, loss and teacher with torch.compile; draws and the mixing of inputs stay as they are."""
    channels_last: bool = False
    """Keep the network's filters with channels last, which is faster for narrow networks on a CPU and on GPUs in half
    precision."""
    ema: BelowOne | None = None
    """Also evaluate a moving average of the weights, with this momentum."""
    seed: Annotated[int, Interval(ge=0, lt=2**64)] = 0
    """Of initial weights, order, augmentation and mixing."""
    validate_every: Count = 1
    """Epochs between two looks at the validation split; after the last one there always is one."""
    test: bool = True
    """Measure the final network on the test set, and show its predictions there; off for trials, which are chosen by
    validation alone."""
    checkpoint_steps: Count | None = None
    """Write a checkpoint every so many optimiser steps, besides after every epoch."""
    logger: tuple[str, ...] = ()
    """Where settings and numbers go besides the run folder: any of tensorboard, wandb and mlflow."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.method, Method) or isinstance(self.method, type):
            raise TypeError(f"method must be a method such as MultiMix(), got {self.method!r}")
        check_optimizer(self.optimizer, self.schedule)
        object.__setattr__(self, "objective", as_settings(self.objective))
        if len(_views_taken(self.method)) > 1:
            raise ValueError(
                "SelfDistilled takes two views of a mini-batch and other methods one: put it around all of them,"
                " as in SelfDistilled(Until(...)), not into a part"
            )
        if self.fsdp:
            self._check_fsdp()

    def _check_fsdp(self) -> None:
        if self.world_size == 1:
            raise ValueError("fsdp=True shards weights over devices: devices or nodes must be at least 2, got 1")
        if self.compile or self.channels_last:
            raise ValueError(f"fsdp=True does not go with {'compile' if self.compile else 'channels_last'}=True")
        for part in submethods(self.method):
            if getattr(part, "trains_modules", False):
                raise ValueError(f"fsdp=True does not go with {part.name}, which trains a module of its own in turn")
            if getattr(part, "needs_gradients", False):  # after which weights are let go amid the step
                raise ValueError(f"fsdp=True does not go with {part.name}, which takes gradients of its own in a step")

    @property
    def title(self) -> str:
        """Return what tables call the method."""
        return self.label or self.method.name

    @property
    def views(self) -> int:
        """Return how many views of each mini-batch the method needs."""
        return max(_views_taken(self.method))

    @property
    def world_size(self) -> int:
        """Return how many processes train the run."""
        return self.devices * self.nodes


def _views_taken(method: Method) -> set[int]:
    """Return how many views of a mini-batch a method takes; more than one number is a contradiction."""
    every = list(submethods(method))
    twice = {id(inner) for part in every if getattr(part, "views", 1) > 1 for inner in submethods(part)}
    innermost = [part for part in every if len(list(submethods(part))) == 1]
    return {2 if id(part) in twice else 1 for part in innermost}
