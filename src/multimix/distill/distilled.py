"""Any method, taught by a moving average of the network itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Generator, Tensor
from torch.nn.utils.rnn import PackedSequence

from multimix._declared import Checked, Fraction
from multimix._modules import fingerprint
from multimix.distill.ema import BufferRule, EMATeacher, Momentum, as_module
from multimix.ops import CrossEntropy, batch_size, check_examples, check_fit, objective_of, rows_of
from multimix.protocols import Losses, Method, Network, Stateful, Teacher, check_method, check_network


@dataclass(eq=False)
class SelfDistilled(Checked, Stateful):
    r"""Interpolate a teacher's soft predictions as the labels are: ``gamma * labels + (1 - gamma) * teacher``.

    The teacher is a moving average of the network. Give two views of each mini-batch, ``inputs = (view_1, view_2)``:
    the student sees the first, the teacher the second; a single tensor serves both. In a loop of your own the teacher
    follows by itself: at each call it first absorbs what the optimiser has done since the last one. A loop that calls
    ``after_step`` does so after every step; it saves the look at the parameters, for which a GPU has to be waited for.

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
        """Refuse impossible settings."""
        super().__post_init__()
        check_method("method", self.method)
        self.ema: EMATeacher | None = None
        self.register_buffer("_seen", None)

    def prepare(self, network: Network) -> None:
        """Make the teacher a copy of the network, unless there is one."""
        self._teacher_of(network)

    def after_step(self, network: Network) -> None:
        """Let the teacher follow the network's last step; from now on it waits to be told."""
        self.led = True
        self._absorb(network)

    def forward(self, network: Network, inputs: Any, targets: Tensor, *, generator: Generator | None = None) -> Losses:
        """Return the losses of the method with the teacher's predictions as further targets.

        Raises:
            ValueError: If ``inputs`` is a sequence of other than two views.
        """
        check_network(network)
        view, other = _two_views(inputs)
        check_examples(other, targets)
        ema = self._follow(network)
        if self.teacher == "mix":
            return self.method(network, view, self._blend(network, targets, ema(other)), generator=generator)
        taught = Teacher(cast("Network", ema.network), other, self.gamma)
        return self.method(network, view, targets, generator=generator, teacher=taught)

    def _blend(self, network: Network, targets: Tensor, teacher_logits: Tensor) -> Tensor:
        """Cross-entropy is linear in its targets: mixing both and blending the losses is blending, then mixing.

        So is the gradient of the squared error.
        """
        objective = objective_of(network)
        if isinstance(objective, CrossEntropy):
            targets = targets if teacher_logits.ndim > 2 else rows_of(targets, teacher_logits.shape[-1])
        predictions = objective.predictions(teacher_logits.float())
        labels = objective.targets(targets, predictions.shape[-1], dtype=predictions.dtype)
        check_fit(targets, labels, predictions)
        return self.gamma * labels + (1 - self.gamma) * predictions

    def _teacher_of(self, network: Network) -> EMATeacher:
        if self.ema is None:
            self.ema = EMATeacher(network, momentum=self.momentum, buffer_rule=self.buffer_rule, warmup=self.warmup)
            self._seen = fingerprint(as_module(network))
        return self.ema

    def _follow(self, network: Network) -> EMATeacher:
        """Absorb the optimiser's step since the last call, if there was one and nobody calls ``after_step``."""
        ema = self._teacher_of(network)
        if not self.led and not torch.equal(self._seen, now := fingerprint(as_module(network))):
            if not self._seen.isnan().all():
                ema.update_(as_module(network))
            self._seen = now
        return ema

    def _absorb(self, network: Network) -> None:
        """Follow a step of a loop that tells of every one; whoever goes on from here has seen them all."""
        self._teacher_of(network).update_(as_module(network))
        self._seen.fill_(float("nan"))


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
