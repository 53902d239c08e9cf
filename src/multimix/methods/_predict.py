"""What the methods share that classify mixed data: one draw serves the student and its teacher, or the data alone."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import torch
from torch import Generator, Tensor

from multimix._declared import Fraction, check
from multimix._modules import outside
from multimix.methods._boxes import Placement, as_numbers, check_places, is_map, is_objects, mix_places
from multimix.ops import (
    CrossEntropy,
    Objective,
    accurate,
    as_probabilities,
    check_batch,
    check_examples,
    check_fit,
    check_generator,
    check_objective,
    mix_pairs,
    objective_of,
    rows_of,
    widest,
)
from multimix.protocols import Losses, Network, Teacher, check_network, encode, pool

NO_MAPS = (
    "targets must be one row an example: this method does not mix label maps; Mixup, DenseMultiMix and others do, and"
    " CutMix and others that paste take class indices (b, h, w) of the images' size"
)
_Targets = TypeVar("_Targets", bound=Tensor | Sequence[Any])


class Mixing:
    """One draw of a method: everything random about a step is settled in it; this one leaves everything as it is."""

    inside: ClassVar[bool] = False
    """Whether hidden representations are mixed, inside the network, and not its inputs."""

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the mixed inputs, or hidden representations where ``predict`` mixes those."""
        return inputs

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the mixed class probabilities."""
        return targets

    def predict(self, network: Network, inputs: Tensor) -> Tensor:
        """Return the logits of the mixed mini-batch."""
        return network(self.mix(inputs))

    def placement(self, height: int, width: int) -> Placement | None:
        """Return where the pixels of mixed images of a size come from; None where nothing is pasted."""
        return None


class PairMixing(Mixing):
    """Pairs whose targets are mixed linearly, and so are the inputs unless ``how(inputs, partners, **given)`` mixes."""

    def __init__(
        self, partners: Tensor, lam: float | Tensor, how: Callable[..., Tensor] | None = None, **given: Any
    ) -> None:
        """Take partners (b,) and the weight of the first of each pair: one for all, or one a pair (b,)."""
        self.partners, self.how, self.given = partners, how, given
        self.lam = lam if isinstance(lam, Tensor) else torch.tensor(lam, dtype=widest(partners.device))

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the mixed inputs."""
        if self.how is None:
            return self.mix_targets(inputs)
        images = inputs.flatten(1, -3)  # the frames of a video are so many channels more
        return self.how(images, self.partners, **self.given).reshape(inputs.shape)

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the class probabilities, or other values, of pairs mixed linearly."""
        return mix_pairs(targets, self.partners, self.lam.to(targets.device, targets.dtype))

    def placement(self, height: int, width: int) -> Placement | None:
        """Return where the pixels of mixed images come from, by mixing images of their places."""
        if self.how is None:
            return None
        own = torch.arange(len(self.partners), device=self.partners.device).view(-1, 1, 1)
        places = torch.arange(height * width, device=own.device).view(1, height, width)
        places = torch.stack(torch.broadcast_tensors(own, places), 1).float()
        image, pixels = self.how(places, self.partners, **self.given).long().unbind(1)
        return Placement(self.partners, pixels, image != own)


class Mixed(Mixing):
    """A mixing of inputs that took place already; only the targets are still to be mixed."""

    def __init__(self, mixing: Mixing) -> None:
        """Take what the inputs were mixed by."""
        self.mix_targets = mixing.mix_targets  # type: ignore[method-assign]


class Step(NamedTuple):
    """What a method is called with, once it is checked."""

    network: Network
    inputs: Any
    targets: Tensor
    generator: Generator | None
    teacher: Teacher | None


class Steps(ABC):
    """Base of the methods: what every step begins with."""

    calls_only: ClassVar[bool] = False
    """Whether the network's forward pass is all that the method asks for."""
    mixes: ClassVar[bool] = True
    """Whether there is anything mixed to look at; of some only once they are prepared."""

    def __call__(
        self,
        network: Network,
        inputs: Any,
        targets: Tensor,
        *,
        generator: Generator | None = None,
        teacher: Teacher | None = None,
    ) -> Losses:
        """Return the losses of a mini-batch, by the network's own ``objective``, cross-entropy if it has none."""
        targets = begin(network, targets, generator, called=self.calls_only)
        self.check(inputs, targets)
        return self.losses(Step(network, inputs, targets, generator, teacher))

    def check(self, inputs: Any, targets: Tensor) -> None:
        """Raise unless this is a mini-batch that the method can take."""
        check_examples(inputs, targets)

    @abstractmethod
    def losses(self, step: Step) -> Losses:
        """Return the losses of a step whose arguments are checked."""


class Predicts(Steps):
    """Base of the methods whose loss is that of one prediction for each mixed example."""

    label_maps: ClassVar[bool] = False
    """Whether targets may differ from position to position: what mixes them mixes the positions alike."""
    pastes: ClassVar[bool] = False
    """Whether every pixel that it makes is one of a given image: label maps and boxes are then pasted, too."""
    traced: ClassVar[bool] = False
    """Whether torch.compile follows the draw, as long as it is from torch's global generator."""

    @abstractmethod
    def draw(self, network: Network, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Mixing:
        """Draw this step's mixing; targets are class indices or probabilities."""

    def losses(self, step: Step) -> Losses:
        """Return the losses of the mixed mini-batch against mixed targets and a teacher's predictions."""
        step, mixing = self.drawn(step)
        if not is_label_map(step.targets):
            return self.compare(step, mixing, mixing.predict(step.network, step.inputs))
        observed = _Observed(step.network)
        logits = mixing.predict(cast("Network", observed), step.inputs)
        return self.compare(step, mixing, logits, observed.grid)

    def drawn(self, step: Step) -> tuple[Step, Mixing]:
        """Return a step and its mixing; in compiled code that does not follow the draw, inputs are mixed already."""
        if torch.compiler.is_compiling() and not (self.traced and step.generator is None):
            return outside(self.mix_ahead, step)
        return step, self.draw(*step[:4])

    def mix_ahead(self, step: Step) -> tuple[Step, Mixing]:
        """Return a step of which all is drawn, and its mixing."""
        return step, self.draw(*step[:4])

    def compare(self, step: Step, mixing: Mixing, logits: Tensor, grid: tuple[int, ...] | None = None) -> Losses:
        """Return the losses of logits against the targets and a teacher's predictions, mixed by the same draw."""
        label_maps = self.label_maps or type(mixing) is Mixing  # which leaves nothing to be mixed
        wanted = wanted_of(step.network, step.targets, logits[: len(step.targets)], grid=grid, label_maps=label_maps)
        mixed, taught = mixing.mix_targets(wanted), None
        if step.teacher is not None:
            with torch.no_grad():
                taught = mixing.predict(step.teacher.network, step.teacher.inputs), step.teacher.gamma
        return objective_of(step.network).losses(logits, mixed, taught)


class MixesInputs(Predicts):
    """Base of the methods that mix inputs before the network sees them."""

    calls_only: ClassVar[bool] = True
    mixes_inputs: ClassVar[bool] = True
    needs_network: ClassVar[bool] = False
    """Whether the mixing depends on the network."""
    needs_images: ClassVar[bool] = False
    """Whether inputs have to be images (b, c, h, w)."""
    takes_videos: ClassVar[bool] = False
    """Whether they may be videos as well, (b, t, c, h, w) or (b, c, t, h, w), all frames of which are mixed alike."""

    def check(self, inputs: Any, targets: Tensor) -> None:
        """Raise unless this is a mini-batch of numbers, and of images if it has to be, that can be mixed."""
        if isinstance(inputs, Tensor) and (inputs.is_nested or inputs.layout != torch.strided):
            raise TypeError(
                f"inputs must be a dense tensor for {type(self).__name__}, got one that is nested or sparse"
            )
        check_batch(inputs, targets)
        gradients = getattr(self, "needs_gradients", False) and not torch.compiler.is_compiling()
        if gradients and torch.is_inference_mode_enabled():
            raise RuntimeError(
                f"{type(self).__name__} takes a gradient to find out where to mix: use torch.no_grad, which lets it,"
                " in place of torch.inference_mode"
            )
        if self.needs_images and inputs.ndim != 4 and not (self.takes_videos and inputs.ndim == 5):
            name, shape = type(self).__name__, tuple(inputs.shape)
            videos = ", or videos (b, t, c, h, w)," * self.takes_videos
            raise ValueError(f"inputs must be images of shape (b, c, h, w){videos} for {name}, got {shape}")

    @abstractmethod
    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Mixing:
        """Draw this step's mixing; targets are class indices or probabilities."""

    def drawn(self, step: Step) -> tuple[Step, Mixing]:
        """Return a step and its mixing; of label maps that are pasted, one that is mixed already."""
        if not self._pastes_maps(step.targets):
            return super().drawn(step)
        check_places(step.targets, step.inputs)
        return outside(self.mix_ahead, step)

    def _pastes_maps(self, targets: Tensor) -> bool:
        return self.pastes and not self.label_maps and is_label_map(targets)

    def mix_ahead(self, step: Step) -> tuple[Step, Mixing]:
        """Return a step whose inputs are mixed, a teacher's too, and the mixing of its targets."""
        mixing, teacher = self.draw(*step[:4]), step.teacher
        if teacher is not None:
            teacher = replace(teacher, inputs=mixing.mix(teacher.inputs))
        mixed = step._replace(inputs=mixing.mix(step.inputs), teacher=teacher)
        if not self._pastes_maps(step.targets):
            return mixed, Mixed(mixing)
        return mixed._replace(targets=mix_places(step.targets, mixing, step.inputs, 0.0)), Mixing()

    def mix(
        self,
        inputs: Tensor,
        targets: _Targets,
        *,
        num_classes: int | None = None,
        objective: Objective | None = None,
        network: Network | None = None,
        min_visible: float = 0.1,
        generator: Generator | None = None,
    ) -> tuple[Tensor, _Targets]:
        """Return the mixed inputs and their targets (b, k), for a loop that only wants the data.

        Args:
            inputs: A mini-batch.
            targets: Class indices (b,), or class probabilities (b, k); as ``objective`` has them, if it is given. Of
                images also label maps, class indices (b, h, w) or numbers (b, k, h, w); the objects of each image, a
                list of mappings with ``boxes`` (q, 4), ``labels`` (q,) and ``masks`` (q, h, w); or a tuple of several
                such targets. Methods that paste, paste them as they are; those that blend make class probabilities
                (b, k, h, w) of label maps, and add ``weights`` (q,) to objects. *Masks and boxes* in the documentation
                has the rules.
            num_classes: How many classes there are, k; needed for class indices, of label maps only to blend them.
            objective: What kind of targets they are: ``BinaryCrossEntropy()`` for several labels an example (b, k),
                ``SquaredError()`` for values, ``CrossEntropy(ignore_index=...)`` where some labels are to be left out,
                as rows of zeros. By default the network's own, or cross-entropy. Weights and smoothing are left to the
                loss; of class indices, labels and values ``objective(network(mixed), rows)`` is the method's own.
            network: Needed by the methods whose mixing depends on it.
            min_visible: Least share of an object's area that is left of it; of others nothing is.
            generator: Source of randomness.

        Raises:
            ValueError: If ``num_classes`` or ``network`` is missing, the method mixes no label maps and no boxes, or as
                the method itself.
            TypeError: If ``objective`` is no objective, or as the method itself.
        """
        check_generator(generator)
        check(Fraction, min_visible=min_visible)
        objective = objective_of(network) if objective is None else check_objective(objective)
        several = isinstance(targets, tuple) and bool(targets) and not is_objects(targets)
        parts: Any = targets if several else (targets,)
        if isinstance(objective, CrossEntropy):
            parts = [rows_of(part, num_classes) if isinstance(part, Tensor) else part for part in parts]
        ways = [self._way(inputs, part, num_classes, objective, min_visible) for part in parts]
        if self.needs_network and network is None:
            raise ValueError(f"network must be given: {type(self).__name__} mixes by what it makes of the inputs")
        lead = parts[0] if isinstance(parts[0], Tensor) else torch.zeros(len(inputs), dtype=torch.long)
        mixing = self.draw(network, inputs, lead, generator)
        mixed = tuple(way(mixing) for way in ways)
        return mixing.mix(inputs), cast("_Targets", mixed if several else mixed[0])

    def _way(
        self, inputs: Any, targets: Any, num_classes: int | None, objective: Objective, min_visible: float
    ) -> Callable[[Mixing], Any]:
        """Return how targets are mixed with these inputs, once it is known that they can be."""
        objects = is_objects(targets)
        self.check(inputs, torch.empty(len(targets)) if objects else targets)
        if not (objects or is_map(targets, inputs)):
            rows = _rows(targets, num_classes, objective)
            return lambda mixing: mixing.mix_targets(rows)
        if not (self.pastes or self.label_maps):
            raise ValueError(
                f"targets must be one row an example for {type(self).__name__}, which mixes neither label maps nor"
                " boxes; Mixup and CutMix do, among others"
            )
        check_places(targets, inputs)
        if not (objects or self.pastes):
            targets = as_numbers(targets, num_classes, objective)
        return lambda mixing: mix_places(targets, mixing, inputs, min_visible)


def _rows(targets: Tensor, num_classes: int | None, objective: Objective) -> Tensor:
    """Return the targets of a mini-batch as rows that can be mixed, (b, k)."""
    if isinstance(objective, CrossEntropy):
        if num_classes is None and targets.ndim == 1 and not targets.is_floating_point():
            raise ValueError("num_classes must be given for targets that are class indices")
        k = targets.shape[-1] if num_classes is None else num_classes
        if objective.ignore_index is None:
            return as_probabilities(targets, k)
        objective = CrossEntropy(ignore_index=objective.ignore_index)
    else:
        k = num_classes or (targets.shape[-1] if targets.ndim > 1 else 1)
    rows = objective.targets(targets, k)
    if rows.ndim > 2:
        raise ValueError(f"targets must be one row an example to be mixed with the inputs, got {tuple(targets.shape)}")
    return rows


def begin(network: Network, targets: Tensor, generator: Generator | None, *, called: bool = False) -> Tensor:
    """Return a step's targets, one-hot integers as probabilities, once network and generator are what they must be."""
    check_network(network, called=called)
    check_generator(generator)
    if getattr(network, "dense", False) or not isinstance(objective_of(network), CrossEntropy):
        return targets  # with outputs at every position (b, r) are label maps, whatever they hold
    weight = getattr(network.head, "weight", None)
    return rows_of(targets, None if weight is None else len(weight)) if isinstance(targets, Tensor) else targets


class _Observed:
    """A network that remembers the grid of what it embeds."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.grid: tuple[int, ...] | None = None

    def __call__(self, inputs: Any) -> Tensor:
        output = encode(self._network, inputs)
        self.grid = output.grid
        return self._network.classify(pool(self._network, output))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


def is_label_map(targets: Tensor) -> bool:
    """Whether targets are class indices at every pixel, (b, h, w)."""
    return targets.ndim == 3 and not targets.is_floating_point()


def wanted_of(
    network: Network,
    targets: Tensor,
    outputs: Tensor,
    *,
    grid: tuple[int, ...] | None = None,
    label_maps: bool = False,
) -> Tensor:
    """Return targets as rows that can be mixed, in the shape of the outputs, whose positions have a grid."""
    targets, dtype = on_grid(grid, targets, outputs), accurate(outputs[:0]).dtype
    wanted = objective_of(network).targets(targets, outputs.shape[-1], dtype=dtype)
    if wanted.ndim > 2 and (label_maps or outputs.ndim < 3):
        check_fit(targets, wanted, outputs)
    elif wanted.ndim > 2:
        raise ValueError(NO_MAPS)
    return wanted


def on_grid(grid: tuple[int, ...] | None, targets: Tensor, outputs: Tensor) -> Tensor:
    """Return label maps (b, h, w) at the positions of a grid that have outputs (b, r, k); others as they are."""
    if outputs.ndim != 3 or not is_label_map(targets) or not grid or len(grid) != 2:
        return targets
    sides = list(zip(grid, targets.shape[1:], strict=True))
    if any(full < n for n, full in sides):
        raise ValueError(f"targets, {tuple(targets.shape)}, must be no smaller than the grid of the outputs, {grid}")
    centres = ((torch.arange(n, device=targets.device) + 0.5) * (full / n) for n, full in sides)
    rows, columns = (centre.long() for centre in centres)
    return targets[:, rows][:, :, columns]
