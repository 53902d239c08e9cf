"""RecursiveMix."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from multimix._declared import Checked, Interval
from multimix._modules import outside
from multimix.methods._images import Weight, uniform
from multimix.methods._predict import MixesInputs, Mixing, Predicts, Step
from multimix.ops import Box, accurate, draw_box, objective_of, widest
from multimix.protocols import EncoderOutput, Losses, Network, Stateful, encode, pool


class History(NamedTuple):
    """The last mini-batch, as it was mixed."""

    images: Float[Tensor, "b c h w"]
    targets: Float[Tensor, "b j"]
    """Rows that the objective made of them, mixed."""
    outputs: Float[Tensor, "b k"] | None = None
    """What the network said of the images; None where the images were all that was asked for."""


@dataclass(eq=False)
class RecursiveMix(Stateful, MixesInputs, Checked):
    r"""Paste the last mini-batch, as it was mixed then, into this one, made smaller; targets are mixed by the area.

    The box has the share :math:`u \sim U(0, a)` of the area, the image's proportions, and a centre that is uniform over
    the image, which may clip it; one box serves a whole mini-batch. What is pasted holds what was pasted the step
    before, and so on: an image is seen again and again, ever smaller. With lambda the share that is left of the image
    itself,

    .. math:: L = L(f(\tilde x_t), \lambda y_t + (1 - \lambda) \tilde y_{t-1})
              + \omega (1 - \lambda) L(f_\mathrm{box}(\tilde x_t), p_{t-1})

    where :math:`f_\mathrm{box}` classifies the mean of the features in the box, as RoIAlign takes it, and
    :math:`p_{t-1}` are the probabilities, or values, that the network predicted for the last mini-batch, without a
    gradient. That second term, ``consistency``, is 0 where the network's features are no map of several positions, as
    of a vision transformer with a class token.

    The last mini-batch is kept, with what was predicted for it, in memory and in checkpoints: a resumed run goes on as
    one that was never stopped. Of data-parallel training the checkpoint has that of the main process. The first step
    mixes nothing. Where the last mini-batch was smaller, its images come several times. In eval mode
    (``method.eval()``) nothing new is kept.

    The authors' code classifies the box by a second linear layer, unless ``share_fc`` is set; here it is always the
    network's own. That code also begins every epoch without a history.

    Reference:
        Yang et al., "RecursiveMix: mixed learning with history", NeurIPS 2022, arXiv 2203.06844, read from its code,
        which the settings are from.
    """

    name: ClassVar[str] = "recursivemix"
    calls_only: ClassVar[bool] = False
    needs_images: ClassVar[bool] = True

    max_area: Annotated[float, Interval(gt=0, le=1)] = 0.5
    """Largest share a of the image that is pasted over; the authors call it alpha."""
    consistency: Weight = 0.1
    """Weight omega of the second term; 0.1 for CIFAR, 0.5 for ImageNet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.history: History | None = None

    forward = MixesInputs.__call__
    mix_ahead = Predicts.mix_ahead  # what is mixed stays outside compiled code by itself

    def prepare(self, network: Network) -> None:
        """Forget a mini-batch that another network has seen."""
        self.meet(network, anew=True)
        self.met(network)

    def get_extra_state(self) -> tuple[Tensor | None, ...] | None:
        """Return the last mini-batch for a checkpoint."""
        return None if self.history is None else tuple(self.history)

    def set_extra_state(self, state: Any) -> None:
        """Take the last mini-batch from a checkpoint."""
        self.history = None if state is None else History(*state)

    def draw(
        self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None
    ) -> "Recursion":
        """Draw the box that the last mini-batch is pasted into."""
        if network is not None:
            self.ready(network)
        share = self.max_area * float(uniform(generator=generator))
        height, width = inputs.shape[-2:]
        box, old = draw_box(height, width, 1 - share, generator=generator), self.history
        if old is not None and old.images.shape[1] != inputs.shape[1]:
            raise ValueError(
                f"inputs must have {old.images.shape[1]} channels for RecursiveMix, as the last mini-batch had, got"
                f" {tuple(inputs.shape)}"
            )
        return Recursion(self, inputs, box)

    def losses(self, step: Step) -> Losses:
        """Return the losses of the mixed mini-batch, plus that of the box against what was predicted a step ago."""
        step, drawn = cast("tuple[Step, Recursion]", self.drawn(step))
        output = encode(step.network, drawn.mix(step.inputs))
        logits = step.network.classify(pool(step.network, output))
        losses = self.compare(step, drawn, logits)
        agreement = drawn.agreement(step.network, output)
        drawn.note(outputs=logits)
        total = losses.total + self.consistency * (1 - drawn.lam.to(losses.total)) * agreement
        return Losses(total, {**losses.terms, "consistency": agreement.detach()})


class Recursion(Mixing):
    """A box of every image that the last mini-batch fills; what is mixed first is remembered for the next draw."""

    def __init__(self, method: RecursiveMix, inputs: Tensor, box: Box) -> None:
        """Take the mini-batch that this is for, and where the last one is pasted."""
        self.method, self.box, old = method, box, method.history
        fitting: Any = [None if v is None else _rows(v.to(inputs.device), len(inputs)) for v in old or ()]
        self.old = old and History(*fitting)
        self.noted: dict[str, Tensor] = {}
        dtype, self.size = widest(inputs.device), inputs.shape[-2:]
        self.sides = torch.tensor([box[:2], box[2:]], dtype=dtype)
        self.lam = torch.tensor(1.0 if old is None else 1 - box.area / self.size.numel(), dtype=dtype)

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the mixed images."""
        mixed = inputs if self.old is None else outside(self._paste, inputs, self.old.images)
        self.note(images=mixed)
        return mixed

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the class probabilities, or other values, mixed with those of the last mini-batch."""
        mixed = targets
        if self.old is not None:
            more = self.old.targets.shape[1] - targets.shape[1]
            if more < 0:
                raise ValueError(
                    f"targets must have the {targets.shape[1] + more} columns that those of the last mini-batch had for"
                    f" RecursiveMix, got {tuple(targets.shape)}"
                )
            old = self.old.targets[:, more:].to(targets)  # without a mass before the numbers, where there is none now
            mixed = torch.lerp(old, targets, self.lam.to(targets))
        self.note(targets=mixed)
        return mixed

    def agreement(self, network: Network, output: EncoderOutput) -> Tensor:
        """Return the loss of what the network says of the box against what it said of the last mini-batch."""
        old, grid = self.old, output.grid or ()
        if old is None or old.outputs is None or len(grid) != 2 or grid == (1, 1):
            return accurate(output.features.new_zeros(()))
        sides = zip(self.sides.to(output.features.device), self.size, grid, strict=True)
        down, along = (_shares(ends, pixels, cells) for ends, pixels, cells in sides)
        weights = (down.unsqueeze(1) * along).view(1, -1, 1).to(output.features.dtype)
        inside = (weights * output.features).sum(1, keepdim=True)
        said = network.classify(pool(network, EncoderOutput(inside, context=output.context)))
        objective = objective_of(network)
        return objective(said, objective.from_teacher(accurate(old.outputs), old.targets))

    def note(self, **values: Tensor) -> None:
        """Remember what is mixed or predicted, unless there is something by that name already, as a teacher's view."""
        if self.method.training:
            self.noted.update({k: v.detach().clone() for k, v in values.items() if k not in self.noted})
            if self.noted.keys() >= {"images", "targets"}:
                self.method.history = History(**self.noted)

    def _paste(self, images: Tensor, old: Tensor) -> Tensor:
        top, bottom, left, right = self.box
        mixed = images.clone()
        if self.box.area:
            mixed[..., top:bottom, left:right] = interpolate(old, (bottom - top, right - left), mode="nearest")
        return mixed


def _rows(values: Tensor, b: int) -> Tensor:
    """Return as many rows as are wanted, of fewer the same ones again."""
    return values[:b] if len(values) >= b else values[torch.arange(b, device=values.device) % len(values)]


def _shares(ends: Float[Tensor, "2"], pixels: int, cells: int) -> Float[Tensor, " cells"]:
    """Return how much each of the cells along a side counts in RoIAlign's mean over a stretch of its pixels.

    That mean is over samples, evenly spaced and at least as dense as cells, of the linear interpolation between cells.
    """
    start, end = ends
    places = torch.arange(cells, dtype=ends.dtype, device=ends.device)
    length = (end - start) * cells / pixels
    n = length.ceil().clamp(min=1)
    samples = (start * cells / pixels + (places + 0.5) * length / n - 0.5).clamp(0, cells - 1)
    near = (1 - (samples.unsqueeze(1) - places).abs()).clamp(min=0)
    return (near * (places < n).unsqueeze(1)).sum(0) / n
