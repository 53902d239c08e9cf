"""The moving average of a network, and any method taught by it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.optim.swa_utils import get_ema_multi_avg_fn
from typing_extensions import Self

from multimix._declared import Checked, Fraction, Interval, check
from multimix._modules import as_module, copied, fingerprint, outside
from multimix.ops import CrossEntropy, Rows, accurate, batch_size, check_examples, check_fit, objective_of, rows_of
from multimix.protocols import Losses, Method, Network, Stateful, Teacher, check_method, check_network, submethods

BufferRule = Literal["copy", "average"]
Momentum = Annotated[float, Interval(ge=0, lt=1)]


class EMATeacher(nn.Module):
    """A copy of a network that follows it as an exponential moving average, always in eval mode and without gradient.

    Attributes:
        network: The averaged network; use it like the original.
    """

    updates: Tensor
    """How often the average has moved."""

    def __init__(
        self, network: Network, *, momentum: float = 0.999, buffer_rule: BufferRule = "copy", warmup: bool = False
    ) -> None:
        """Copy ``network``.

        Args:
            network: What to follow; it is left as it is.
            momentum: Share of the average that stays at each update.
            buffer_rule: ``copy`` takes buffers (the running statistics of batch normalisation) as they are; ``average``
                averages the floating-point ones like parameters.
            warmup: Let the t-th update keep no more than t / (t + 9) of the average, so that a short run leaves its
                random start behind.

        Raises:
            ValueError: If ``momentum`` lies outside [0, 1) or ``buffer_rule`` is unknown.
            TypeError: If ``network`` is not a torch module.
        """
        super().__init__()
        check(Momentum, momentum=momentum)
        check(BufferRule, buffer_rule=buffer_rule)
        self.momentum, self.buffer_rule, self.warmup = momentum, buffer_rule, warmup
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.network = copied(as_module(network)).requires_grad_(False).eval()

    @torch.no_grad()
    def update_(self, network: nn.Module) -> None:
        """Move towards ``network``: ``average <- momentum * average + (1 - momentum) * network``.

        Raises:
            ValueError: If the network has other parameters or buffers than the average.
        """
        shapes, given = ([tuple(t.shape) for t in (*m.parameters(), *m.buffers())] for m in (self.network, network))
        if shapes != given:
            name = type(network).__name__
            raise ValueError(f"network must be of the kind that is averaged, got {name} with tensors of other shapes")
        averaged: list[Tensor] = list(self.network.parameters())
        current: list[Tensor] = list(network.parameters())
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            if self.buffer_rule == "average" and mine.is_floating_point():
                averaged.append(mine)
                current.append(theirs)
            else:
                mine.copy_(theirs)
        self.updates += 1
        kept = self.momentum
        if self.warmup:
            kept = min(kept, int(self.updates) / (int(self.updates) + 9))
        get_ema_multi_avg_fn(kept)(averaged, current, None)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 (torch's own signature)
        """Stay in eval mode: batch statistics must not follow the teacher's view."""
        return super().train(False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the averaged network's logits."""
        with torch.no_grad():
            return self.network(inputs)


@dataclass(eq=False)
class SelfDistilled(Checked, Stateful):
    r"""Interpolate a teacher's soft predictions as the labels are: ``gamma * labels + (1 - gamma) * teacher``.

    The teacher is a moving average of the network. Give two views of each mini-batch, ``inputs = (view_1, view_2)``:
    the student sees the first, the teacher the second; a single tensor serves both. In a loop of your own the teacher
    follows by itself: at each call it first absorbs what the optimiser has done since the last one. A loop that calls
    ``after_step`` does so after every step; it saves the look at the parameters, for which a GPU has to be waited for,
    and an optimiser that moves them for another look in between, as SAM's does, needs it.

    Reference:
        Venkataramanan et al., "Teach me how to interpolate a myriad of embeddings", section 3.3, equation (9). The
        paper's text leaves gamma, momentum and the reading open; see ``teacher``.
    """

    name: ClassVar[str] = "self-distilled"
    views: ClassVar[int] = 2

    method: Method
    """What the student trains with."""
    gamma: Fraction = 0.5
    """Weight of the labels; the teacher weighs ``1 - gamma``."""
    teacher: Literal["predict", "mix"] = "predict"
    """``predict``: the teacher predicts on its own mixed embeddings, same weights. ``mix``: its predictions are mixed
    like labels."""
    momentum: Momentum = 0.999
    """Share of the moving average that stays at each step."""
    buffer_rule: BufferRule = "copy"
    """Batch-normalisation statistics are copied from the student, or averaged like parameters."""

    warmup: bool = True
    """Start with a shorter memory, so that a run of few steps leaves the teacher's random start behind: the t-th step
    keeps no more than t / (t + 9) of the average."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_method("method", self.method)
        if any(isinstance(inner, SelfDistilled) for inner in submethods(self.method)):
            raise ValueError("method must have no teacher of its own, got another SelfDistilled in it")
        self.ema: EMATeacher | None = None
        self.register_buffer("_seen", None)

    def prepare(self, network: Network) -> None:
        """Make the teacher a copy of the network, unless there is one."""
        self.meet(network, anew=True)
        if self.ema is None:
            super().prepare(network)
            self.ema = EMATeacher(network, momentum=self.momentum, buffer_rule=self.buffer_rule, warmup=self.warmup)
            self._seen = fingerprint(as_module(network))
        self.met(network)

    def ready(self, network: Network) -> None:
        """Follow the network to its precision, too: hosts may convert it once the teacher is there."""
        super().ready(network)
        models = (cast("EMATeacher", self.ema).network, as_module(network))
        pairs = zip(*((*model.parameters(), *model.buffers()) for model in models), strict=False)
        converted = [(mine, theirs) for mine, theirs in pairs if mine.dtype != theirs.dtype]
        for mine, theirs in converted:
            mine.data = mine.data.to(theirs.dtype)
        if converted and not self._seen.isnan().all():
            self._seen = fingerprint(models[1])  # no step of the optimiser

    def after_step(self, network: Network) -> None:
        """Let the teacher follow the network's last step; from now on it waits to be told."""
        self.ready(network)
        self.led = True
        cast("EMATeacher", self.ema).update_(as_module(network))
        self._seen.fill_(float("nan"))  # whoever goes on from a checkpoint has seen every step

    def forward(self, network: Network, inputs: Any, targets: Tensor, *, generator: Generator | None = None) -> Losses:
        """Return the losses of the method with the teacher's predictions as further targets."""
        check_network(network)
        view, other = _two_views(inputs)
        check_examples(other, targets)
        ema = outside(self._following, network)
        if self.teacher == "mix":
            return self.method(network, view, self._blend(network, targets, ema(other)), generator=generator)
        taught = Teacher(cast("Network", ema.network), other, self.gamma)
        return self.method(network, view, targets, generator=generator, teacher=taught)

    def _following(self, network: Network) -> EMATeacher:
        """Return the average, which has followed the network if nobody else tells it to."""
        self.ready(network)
        ema = cast("EMATeacher", self.ema)
        if not self.led and not torch.equal(self._seen, now := fingerprint(as_module(network))):
            if not self._seen.isnan().all():
                ema.update_(as_module(network))  # the optimiser's step since the last call
            self._seen = now
        return ema

    def _blend(self, network: Network, targets: Tensor, teacher_logits: Tensor) -> Tensor:
        """Blend labels and predictions: the losses are linear in targets, so that mixing may come after it."""
        objective = objective_of(network)
        if isinstance(objective, CrossEntropy):
            targets = targets if teacher_logits.ndim > 2 else rows_of(targets, teacher_logits.shape[-1])
        logits, k = accurate(teacher_logits), teacher_logits.shape[-1]
        labels = objective.settled(objective.targets(targets, k, dtype=logits.dtype), k)
        check_fit(targets, labels, logits)
        predictions = objective.from_teacher(logits, labels)
        return (self.gamma * labels + (1 - self.gamma) * predictions).as_subclass(Rows)


_ONE_VIEW = (Tensor, Mapping, PackedSequence)


def _two_views(inputs: Any) -> tuple[Any, Any]:
    if isinstance(inputs, _ONE_VIEW):
        return inputs, inputs
    if not isinstance(inputs, (tuple, list)) or len(inputs) != 2 or not all(isinstance(v, _ONE_VIEW) for v in inputs):
        raise ValueError(f"inputs must be a tensor or a pair of views (view_1, view_2), got {type(inputs).__name__}")
    first, second = (batch_size(view) for view in inputs)
    if first != second:
        raise ValueError(f"inputs must be two views of the same examples, got {first} and {second}")
    return inputs[0], inputs[1]
