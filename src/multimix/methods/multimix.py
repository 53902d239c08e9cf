"""MultiMix and Dense MultiMix: how tuples are drawn, and the training step on them."""

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Generator, Tensor
from typing_extensions import Self

from multimix._declared import Checked, Count, Fraction, Interval
from multimix._modules import outside
from multimix.methods._predict import Step, Steps, on_grid, wanted_of
from multimix.ops import (
    CrossEntropy,
    Impl,
    LazyWeights,
    LossOptions,
    Rows,
    attention,
    check_concentration,
    dirichlet,
    draw_between,
    gathered,
    mixed_losses,
    objective_of,
    processes,
    scatter_tuples,
)
from multimix.protocols import Losses, Network, encode, pool, require_part

Spread = Literal["uniform", "log-uniform"]
TuplesOver = Literal["all", "device"]


class Encoded(NamedTuple):
    """A mini-batch as a method of tuples has a network embed it."""

    values: Tensor
    """What is interpolated: embeddings (b, d), or (b, r, d) at every position."""
    clean: Tensor | None
    """What is classified as it is, (b, d), if anything is."""
    grid: tuple[int, ...] | None = None
    """Height and width of the network's positions."""
    mask: Tensor | None = None
    """Which positions an example has, (b, r); None where all have all."""
    kept: Tensor | None = None
    """Which of the network's positions some example has; None where that is all of them."""
    sets: int | None = None
    """How many sets of weights are drawn; None for one that all positions share."""


@dataclass(frozen=True)
class TupleMethod(Checked, Steps):
    """Base of the methods that interpolate tuples of embeddings."""

    tuples: Count = 1000
    """Interpolated tuples a step, n."""
    tuple_length: Count | None = None
    """Random examples that enter a tuple, m; None means the whole mini-batch."""
    alpha: float | tuple[float, float] | None = None
    """Concentration of the symmetric Dirichlet distribution, or a range from which each tuple draws its own."""
    effective: float | tuple[float, float] | None = None
    """Instead of alpha: examples that effectively enter a tuple, (1 + m alpha) / (1 + alpha), or a range. 2.0 if
    neither is given."""
    balanced: bool = False
    """Rescale the batch-centred gradient on the clean logits to the size it has in plain training."""
    balance_power: Fraction = 1.0
    """Power of the gain that ``balanced`` rescales with: 1 restores all that interpolation takes, 0.5 half of it in
    orders of magnitude. The gain multiplies sampling noise too, which falls with n."""
    confidence: Annotated[float, Interval(gt=0, lt=1)] | None = None
    """Probability of its label that a training example tends to in the limit of many images a tuple, by the scale of
    the logits; None leaves the scale as it is, by which the logits of k classes tend to be k apart."""
    spread: Spread = "uniform"
    """How each tuple draws its own concentration from a range of alpha or effective."""
    clean: Fraction = 0.0
    """Weight of the plain cross-entropy on the clean mini-batch, which costs no second pass; tuples weigh the rest."""
    impl: Impl = "auto"
    """How the loss is computed, as :func:`multimix.ops.mixed_cross_entropy` has it; it changes nothing but speed."""
    tuples_over: TuplesOver = "all"
    """In data-parallel training, ``all``: tuples over the examples of all processes, where the network gathers them;
    ``device``, as the paper has it: each process draws n tuples of its own over its share of the mini-batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha is not None and self.effective is not None:
            raise ValueError(f"give alpha or effective, not both, got alpha={self.alpha}, effective={self.effective}")
        for name, value, above in (("alpha", self.alpha, 0.0), ("effective", self.effective, 1.0)):
            if value is not None:
                check_concentration(name, value, above=above)

    def losses(self, step: Step) -> Losses:
        """Return the mean loss of the interpolated tuples and, with ``clean``, of the mini-batch as it is."""
        network, teacher = step.network, step.teacher
        own = self.encode(network, step.inputs)
        with torch.no_grad():
            theirs = None if teacher is None else self.encode(teacher.network, teacher.inputs)
        losses = mixed_losses(*self._interpolated(step, own, None if theirs is None else theirs.values))
        if own.clean is None:
            return losses
        logits, taught = network.classify(own.clean), None
        if teacher is not None and theirs is not None and theirs.clean is not None:
            with torch.no_grad():
                taught = teacher.network.classify(theirs.clean), teacher.gamma
        wanted = wanted_of(network, step.targets, logits, grid=own.grid, label_maps=True)
        plain = objective_of(network).losses(logits, wanted, taught)
        total = (1 - self.clean) * losses.total + self.clean * plain.total
        return Losses(total, {**losses.terms, **{f"clean_{name}": term for name, term in plain.terms.items()}})

    @abstractmethod
    def encode(self, network: Network, inputs: Any) -> Encoded:
        """Return what is interpolated and what is classified as it is."""

    @abstractmethod
    def attend(self, network: Network, own: Encoded, targets: Tensor) -> Tensor | None:
        """Return the attention of every example over its positions, (b, r); None where there is none."""

    def _interpolated(
        self, step: Step, own: Encoded, taught: Tensor | None
    ) -> tuple[Tensor, Tensor, LazyWeights | Tensor, LossOptions]:
        """Return the arguments of a mixed loss, of the examples of all processes if the network gathers them."""
        network, teacher, targets = step.network, step.teacher, step.targets
        objective, generator = objective_of(network), step.generator
        if self.confidence is not None and not isinstance(getattr(objective, "objective", objective), CrossEntropy):
            raise ValueError(f"confidence must be None for {objective!r}: it is the probability of one class of k")
        over = network if self.tuples_over == "all" else None
        gather = getattr(over, "gather", None)
        if own.mask is not None and gather is not None:
            raise ValueError("masked positions cannot be gathered across processes; give tuples_over='device'")
        values, b = own.values, len(own.values)
        b = b if gather is None else gather.size(b, values.device)
        if over is None and processes() > 1:
            generator = _own_generator(generator, values.device)
        weights: LazyWeights | Tensor
        if generator is not None and torch.compiler.is_compiling():  # no graph holds a generator
            weights = outside(self._all_weights, b, values, generator, own.sets)
        else:
            weights = self.weights(b, like=values, generator=generator, sets=own.sets)
        attention = self.attend(network, own, targets)
        supervisor, gamma = (network, 1.0) if teacher is None else (teacher.network, teacher.gamma)
        classify = partial(self._classify, network)

        def teach(embeddings: Tensor) -> Tensor:
            with torch.no_grad():
                return self._classify(supervisor, embeddings)

        affine = network.head is not None and supervisor.head is not None
        if affine:  # then classifying commutes with interpolation, and takes place once, on the clean embeddings
            values = classify(values)
            taught = None if taught is None else teach(taught)
        options = LossOptions(
            teacher_logits=None if taught is None else gathered(over, taught),
            gamma=gamma,
            balanced=self.balance_power if self.balanced else 0.0,
            impl=self.impl,
            attention=None if attention is None else gathered(over, attention),
            mask=own.mask,
            objective=objective,
            classify=None if affine else classify,
            teach=None if affine else teach,
        )
        if own.kept is not None and objective.is_map(targets):
            targets = targets[:, own.kept]
        targets = gathered(over, on_grid(own.grid, targets, own.values))
        if isinstance(step.targets, Rows):
            targets = targets.as_subclass(Rows)
        return gathered(over, values), targets, weights, options

    def _classify(self, network: Network, embeddings: Tensor) -> Tensor:
        """Return logits by the scale that ``confidence`` asks for, of which a balanced gradient knows nothing."""
        logits = network.classify(embeddings)
        if self.confidence is None:
            return logits
        scale = limit_scale(self.confidence, logits.shape[-1])
        return logits + (scale - 1) * logits.detach() if self.balanced else scale * logits

    def weights(
        self, b: int, *, like: Tensor, generator: Generator | None = None, sets: int | None = None
    ) -> LazyWeights:
        """Return the weights of a step over a mini-batch of b, drawn by the loss: one set, or ``sets`` of them."""
        return LazyWeights(self.tuples, partial(self.draw_weights, b, like=like.detach(), generator=generator), sets)

    def _all_weights(self, b: int, like: Tensor, generator: Generator, sets: int | None) -> Tensor:
        return self.weights(b, like=like, generator=generator, sets=sets).all()

    def draw_weights(
        self, b: int, rows: int | None = None, *, like: Tensor, generator: Generator | None = None
    ) -> Tensor:
        """Return interpolation vectors over a mini-batch of b, where ``like`` lies: (rows, b), n rows if not said."""
        m = min(self.tuple_length or b, b)
        n = self.tuples if rows is None else rows
        alpha = self._concentrations(n, m, generator, like.device)
        weights = dirichlet(n, m, alpha, generator=generator, device=like.device)
        return weights if m == b else scatter_tuples(weights, b, generator=generator)

    def _concentrations(self, n: int, m: int, generator: Generator | None, device: torch.device) -> float | Tensor:
        """Return the concentration of n tuples of m, a number if they have one, or each one's own, (n,)."""
        given = self.alpha if self.alpha is not None else 2.0 if self.effective is None else self.effective
        drawn: float | Tensor
        if not isinstance(given, tuple):
            drawn = given
        elif self.spread == "uniform":
            drawn = draw_between(given, n, generator=generator, device=device)
        else:
            low, high = (math.log(value) for value in given)
            drawn = draw_between((low, high), n, generator=generator, device=device).exp()
        if self.alpha is not None:
            return drawn
        # a tuple of no more images than that is drawn from the flat distribution
        if isinstance(drawn, Tensor):
            return torch.where(drawn < m, (drawn - 1) / (m - drawn).clamp_min(1e-6), 1.0)
        return (drawn - 1) / (m - drawn) if drawn < m else 1.0


def _own_generator(generator: Generator | None, device: torch.device) -> Generator:
    """Return this process' own generator for one step, though all processes may have the same one."""
    home = device if generator is None else generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=home))
    return Generator(home).manual_seed(seed + dist.get_rank())


def limit_scale(confidence: float, num_classes: int) -> float:
    """Return what to multiply logits by so that tuples of very many images lead to a confidence."""
    if num_classes == 1:
        return 1.0
    # In that limit the loss is the squared error of the centred logits, whose optimum is k apart between the class of
    # the label and each of the k - 1 others. Logits that this multiplies are there at the confidence asked for.
    gap = math.log(num_classes - 1) + math.log(confidence / (1 - confidence))
    if gap <= 0:
        raise ValueError(f"confidence must be above chance, 1 / {num_classes}, got {confidence}")
    return num_classes / gap


@dataclass(frozen=True)
class MultiMix(TupleMethod):
    """Interpolate n tuples of the whole mini-batch's embeddings, right before the classifier.

    The paper's own setting is ``MultiMix(alpha=(0.5, 2.0), balanced=False, tuples_over="device")``, some of the steps
    (half of them, as far as we know) being input mixup instead: ``method_named("multimix-paper")``. The defaults
    differ: a tuple of the published concentration averages 43 to 86 images of a mini-batch of 128, which leaves the
    network little gradient. Ours average 2, and ``balanced`` gives the gradient back what that takes; without it, the
    gradient is that of the equations.

    With an affine head nothing of size n x d is formed (:func:`multimix.ops.mixed_cross_entropy`); with any other head
    the embeddings are interpolated and classified as the equations say, and ``balanced`` acts on the gradient of the
    embeddings.

    Reference:
        Venkataramanan et al., "Teach me how to interpolate a myriad of embeddings", arXiv 2206.14868, equations (6) to
        (9).
    """

    name: ClassVar[str] = "multimix"

    balanced: bool = True
    """Rescale the batch-centred gradient on the clean logits to the size it has in plain training. Without it, tuples
    regularise more: better where plain training over-fits, worse where training is short."""

    @classmethod
    def recommended(cls) -> Self:
        """Return the form to start with, which the defaults are.

        Source: the studies ``defaults-few``, ``defaults-short`` and ``defaults-photos-short``.
        """
        return cls()

    def encode(self, network: Network, inputs: Any) -> Encoded:
        """Return the pooled embeddings, (b, d), which are interpolated and, with ``clean``, classified as they are."""
        output = encode(network, inputs)
        embeddings = pool(network, output)
        return Encoded(embeddings, embeddings if self.clean > 0 else None, output.grid)

    def attend(self, network: Network, own: Encoded, targets: Tensor) -> None:
        """Return nothing: pooled embeddings have no positions."""


@dataclass(frozen=True)
class DenseMultiMix(TupleMethod):
    """Interpolate embeddings at every spatial position, with attention as confidence in the image's label there.

    Every position of every image is classified as if the image were pooled to it alone; a teacher is interpolated with
    the student's weights, attention included. The loss is the mean over tuples and positions.

    Reference:
        Venkataramanan et al., "Embedding space interpolation beyond mini-batch, beyond pairs and beyond examples",
        NeurIPS 2023, arXiv 2311.05538, equations (9) to (14).
    """

    name: ClassVar[str] = "dense-multimix"
    needs_positions: ClassVar[bool] = True

    query: Literal["gap", "cam", "uniform"] = "gap"
    """What attention compares positions with: the pooled embedding, the classifier's weights of the class, or
    nothing."""
    activation: Literal["relu", "softmax"] = "relu"
    """What makes attention positive: ReLU, then l1 normalisation over positions, or a softmax."""
    shared: bool = False
    """One interpolation vector a tuple for all positions, instead of one for each."""
    detach: bool = True
    """Keep the gradient out of the attention."""

    def encode(self, network: Network, inputs: Any) -> Encoded:
        """Return embeddings at every position that some example has, (b, r, d), and those of whole images, (b, d)."""
        require_part(network, "positions")
        output = encode(network, inputs)
        clean = pool(network, output) if self.clean > 0 else None
        mask, kept = output.mask, None
        if mask is not None and bool(mask.all()):
            mask = None
        if mask is not None:
            kept = mask.any(0)
            mask = mask[:, kept]
            output = replace(output, features=output.features[:, kept], mask=mask)
        b, r, _ = output.features.shape
        values = pool(network, output.each_position()).reshape(b, r, -1)  # as the classifier knows them
        return Encoded(values, clean, output.grid, mask, kept, None if self.shared else r)

    def attend(self, network: Network, own: Encoded, targets: Tensor) -> Tensor | None:
        """Return the attention of every image over its positions, (b, r); None for label maps, which need none."""
        if objective_of(network).is_map(targets):
            return None
        features, weights = own.values, None
        if self.query == "cam":
            if network.head is None:
                raise ValueError("query='cam' needs a network with an affine head, whose weights are the class queries")
            rows = cast("Tensor", network.head.weight).flatten(1)
            objective, k = objective_of(network), len(rows)
            weights = objective.settled(objective.targets(targets, k, dtype=rows.dtype), k)[..., -k:] @ rows
        if self.detach:
            features, weights = features.detach(), None if weights is None else weights.detach()
        return attention(features, query=self.query, activation=self.activation, class_weights=weights, mask=own.mask)
