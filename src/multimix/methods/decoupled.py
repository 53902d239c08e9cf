"""Decoupled mixup: a loss around any method that mixes pairs."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from multimix._declared import Checked, shown
from multimix.methods._images import Weight
from multimix.methods._predict import MixesInputs, Mixing, PairMixing, Predicts, Step, wanted_of
from multimix.methods.mixup import Mixup
from multimix.ops import CrossEntropy, Objective, SampleWeighted, accurate, objective_of
from multimix.protocols import Losses, Network


@dataclass(frozen=True)
class DecoupledMixup(Checked, Predicts):
    r"""Any method that mixes pairs, with a second loss in which the two classes of a pair do not compete.

    Cross-entropy with mixed targets asks for probabilities of lambda and 1 - lambda, so that being sure of one class
    counts against the other. The second loss, times ``eta``, takes out the other class of the pair:

    .. math::
        -w_a \log \frac{p_a}{1 - p_b} - w_b \log \frac{p_b}{1 - p_a}

    for a mixed example of classes a and b with probabilities p, and nothing where both have the same class or lambda is
    0 or 1. Soft labels count in proportion, in every pair of two classes. Mixed examples count as they do in the first
    loss, to which this one is added, with a teacher too.

    Whatever else the method has in its loss, such as ``clean``, is left out. ``DecoupledMixup(CutMix())`` is made
    before training as any method is; in ``Chain`` it comes second.

    Reference:
        Liu et al., "Harnessing hard mixed samples with decoupled regularizer", NeurIPS 2023, arXiv 2203.10761;
        abstract read, the loss from the authors' code, openmixup, whose configurations have ``eta=0.1`` and the soft
        form for most methods. That code leaves the second loss out where lambda is exactly a half, and can apply it to
        the heavier or the lighter class only.
    """

    name: ClassVar[str] = "decoupled-mixup"

    method: Predicts = field(default_factory=Mixup)
    """What mixes pairs: Mixup, CutMix, ManifoldMixup, PuzzleMix and others."""
    eta: Weight = 0.1
    """Weight of the second loss."""
    form: Literal["soft", "hard"] = "soft"
    """What the two classes weigh in it: ``soft``, lambda and 1 - lambda, as in the mixed targets; ``hard``, 1 each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.method, Predicts) or getattr(self.method, "trains_modules", False):
            self._refuse()

    @property
    def calls_only(self) -> bool:  # type: ignore[override]
        """Whether the network's forward pass is all that the method inside asks for."""
        return self.method.calls_only

    @property
    def traced(self) -> bool:  # type: ignore[override]
        """Whether torch.compile follows the draw of the method inside."""
        return self.method.traced

    def check(self, inputs: Tensor, targets: Tensor) -> None:
        """Raise unless this is a mini-batch that the method inside can take."""
        self.method.check(inputs, targets)

    def draw(self, network: Network, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Mixing:
        """Draw what the method inside draws."""
        mixing = self.method.draw(network, inputs, targets, generator)
        if not isinstance(mixing, PairMixing) and type(mixing) is not Mixing:  # which leaves a step as it is
            self._refuse()
        return mixing

    def mix_ahead(self, step: Step) -> tuple[Step, Mixing]:
        """Return a step whose inputs are mixed, if they are to be, a teacher's too, and the mixing of its targets."""
        mixing, teacher = self.draw(*step[:4]), step.teacher
        if not isinstance(self.method, MixesInputs) or not isinstance(mixing, PairMixing):
            return step, mixing
        if teacher is not None:
            teacher = replace(teacher, inputs=mixing.mix(teacher.inputs))
        return step._replace(inputs=mixing.mix(step.inputs), teacher=teacher), _MixedPairs(mixing)

    def compare(self, step: Step, mixing: Mixing, logits: Tensor, grid: tuple[int, ...] | None = None) -> Losses:
        """Return the losses of the method inside, and the second loss."""
        objective = objective_of(step.network)
        check_classes(objective)
        losses = self.method.compare(step, mixing, logits, grid)
        if not isinstance(mixing, PairMixing):
            return losses
        partners = mixing.partners
        logits = accurate(logits[: len(partners)])  # clean ones may follow
        wanted = wanted_of(step.network, step.targets, logits, grid=grid, label_maps=self.method.label_maps)
        _, counted = objective.terms(logits, mixing.mix_targets(wanted)[: len(partners)])
        lam = mixing.lam.detach().to(logits).reshape(-1, *[1] * (logits.ndim - 2))
        own = wanted[..., -logits.shape[-1] :].to(logits)
        first, second = decoupled_losses(logits, own, own[partners])
        both = lam * first + (1 - lam) * second if self.form == "soft" else first + second
        both = both * ((lam > 0) & (lam < 1)) * counted
        term = both.sum() / counted.sum().clamp_min(torch.finfo(counted.dtype).tiny)
        return Losses(losses.total + self.eta * term, {**losses.terms, "decoupled": term.detach()})

    def _refuse(self) -> None:
        raise TypeError(
            "method must mix pairs of examples, such as Mixup() or CutMix(), and train nothing of its own, got"
            f" {shown(self.method)}"
        )


class _MixedPairs(PairMixing):
    """Pairs whose inputs are mixed already."""

    def __init__(self, pairs: PairMixing) -> None:
        super().__init__(pairs.partners, pairs.lam)
        self.mix_targets = pairs.mix_targets  # type: ignore[method-assign]

    def mix(self, inputs: Tensor) -> Tensor:
        return inputs


def check_classes(objective: Objective) -> None:
    """Raise ValueError unless a network is trained for one class of k, whose probabilities compete."""
    inner = objective.objective if isinstance(objective, SampleWeighted) else objective
    if not isinstance(inner, CrossEntropy):
        raise ValueError(f"objective must be CrossEntropy for DecoupledMixup, whose classes compete, got {inner!r}")


def decoupled_losses(
    logits: Float[Tensor, "*n k"], first: Float[Tensor, "*n k"], second: Float[Tensor, "*n k"]
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    r"""Return the loss of each of two class distributions when the classes of the other one do not compete.

    Of the first, y, it is :math:`-\sum_{i \ne j} y_i y'_j \log (p_i / (1 - p_j))`; of the second, y', with both
    exchanged.
    """
    log_p = logits.log_softmax(-1)
    top = log_p.argmax(-1, keepdim=True)
    # Of the most probable class 1 - p would lose all digits: there it is the sum of the other probabilities.
    others = log_p.scatter(-1, top, torch.finfo(log_p.dtype).min).logsumexp(-1, keepdim=True)
    rest = log_p.exp().scatter(-1, top, 0.0).neg().log1p().scatter(-1, top, others)
    alike = (first * second * (log_p - rest)).sum(-1)
    one, two = first.sum(-1), second.sum(-1)
    return (
        one * (second * rest).sum(-1) - two * (first * log_p).sum(-1) + alike,
        two * (first * rest).sum(-1) - one * (second * log_p).sum(-1) + alike,
    )
