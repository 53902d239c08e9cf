"""Methods made of methods."""

import math
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Generator, Tensor
from typing_extensions import Unpack

from multimix._declared import Checked, Fraction, check
from multimix._modules import outside
from multimix.methods._predict import NO_MAPS, MixesInputs, Mixing, Step, begin
from multimix.methods.mixup import ERM
from multimix.ops import Rows, accurate, check_generator, objective_of
from multimix.protocols import Losses, Method, Network, Stateful, StepOptions, check_method


@dataclass(frozen=True)
class Alternate(Checked):
    """Each step, one of several methods, drawn with the given probabilities.

    ``Alternate((MultiMix(alpha=(0.5, 2.0), tuples_over="device"), Mixup(alpha=2.0)), (0.5, 0.5))`` is MultiMix as
    published, as far as that is known.
    """

    name: ClassVar[str] = "alternate"

    methods: tuple[Method, ...]
    """What to choose from."""
    probabilities: tuple[Fraction, ...] | None = None
    """One for each method; equal by default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.methods, tuple):
            raise TypeError(f"methods must be a tuple of methods, got {self.methods!r}")
        if not self.methods:
            raise ValueError("methods must hold at least one method, got none")
        for method in self.methods:
            check_method("methods", method)
        p = self.probabilities
        if p is not None and (len(p) != len(self.methods) or abs(sum(p) - 1) > 1e-6):
            raise ValueError(f"probabilities must be {len(self.methods)} numbers that sum to 1, got {p}")

    def __call__(self, network: Network, inputs: Any, targets: Tensor, **options: Unpack[StepOptions]) -> Losses:
        """Return the losses of the method drawn, the same in all processes if their examples are gathered."""
        method = outside(self._agreed, network, targets, options.get("generator"))
        return method(network, inputs, targets, **options)

    def _agreed(self, network: Network, targets: Tensor, generator: Generator | None) -> Method:
        return self._chosen(_agreed_coin(network, targets, generator))

    @property
    def mixes_inputs(self) -> bool:
        """Return whether every method to choose from mixes inputs."""
        return all(getattr(method, "mixes_inputs", False) for method in self.methods)

    def mix(self, inputs: Tensor, targets: Any, **options: Any) -> tuple[Tensor, Any]:
        """Return the inputs and targets that the method drawn has mixed, with the options of :meth:`Mixup.mix`."""
        chosen: Any = self.choose(options.get("generator"))
        return cast("tuple[Tensor, Any]", chosen.mix(inputs, targets, **options))

    def choose(self, generator: Generator | None = None) -> Method:
        """Return the method of one step."""
        return self._chosen(_coin(generator))

    def _chosen(self, coin: Tensor) -> Method:
        share = torch.tensor(self.probabilities or [1 / len(self.methods)] * len(self.methods))
        return self.methods[min(int((share.cumsum(0) <= coin).sum()), len(self.methods) - 1)]


def _coin(generator: Generator | None) -> Tensor:
    """Return a number uniform in [0, 1), on the CPU."""
    check_generator(generator)
    return torch.rand((), generator=generator, device=generator.device if generator else None).cpu()


def _agreed_coin(network: Network, targets: Tensor, generator: Generator | None) -> Tensor:
    """Return a coin that is the same in all processes if their examples are gathered."""
    coin = _coin(generator)
    if (gather := getattr(network, "gather", None)) is not None:
        coin = gather.agree(coin.to(targets.device)).cpu()
    return coin


@dataclass(frozen=True)
class Chain(Checked):
    """Mix the inputs by one method, and go on with another one as if the mixed examples were the mini-batch.

    ``Chain(Mixup(), MultiMix())`` interpolates the embeddings of mixed images, with their mixed labels: input mixing
    and embedding mixing in every step, where ``Alternate`` has one of them in each. A teacher sees its own view, mixed
    by the same draw. Of the first method there is the mixing only, and no further term of its loss, such as ``clean``.

    Source: our own; findings of it are in the studies.
    """

    name: ClassVar[str] = "chain"

    first: MixesInputs
    """What mixes the inputs."""
    then: Method
    """What the mixed inputs and their class probabilities are given to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.first, MixesInputs):
            raise TypeError(f"first must be a method that mixes inputs, such as Mixup(), got {self.first!r}")
        if getattr(self.first, "trains_modules", False):
            raise TypeError(
                f"first must be trained by no loss of its own, which Chain would leave out, got {self.first!r}"
            )
        check_method("then", self.then)

    def __call__(self, network: Network, inputs: Tensor, targets: Tensor, **options: Unpack[StepOptions]) -> Losses:
        """Return the losses of the second method on what the first has mixed."""
        generator, teacher = options.get("generator"), options.get("teacher")
        targets = begin(network, targets, generator, called=True)
        self.first.check(inputs, targets)
        step, mixing = self.first.drawn(Step(network, inputs, targets, generator, teacher))
        objective, targets, k = objective_of(network), step.targets, None
        if objective.is_map(targets) and not (self.first.label_maps or type(mixing) is Mixing):
            raise ValueError(NO_MAPS)
        if targets.is_floating_point() and targets.ndim > 1:
            k = targets.shape[-1] - objective.before(targets)
        if k is None and network.head is None:
            raise ValueError(
                "targets must be class probabilities (b, k) where the network's head is not affine (head is None):"
                " class indices do not say how many classes there are"
            )
        k = len(cast("Any", network.head).weight) if k is None else k
        rows = objective.settled(objective.targets(targets, k, dtype=accurate(inputs[:0]).dtype), k)
        mixed = mixing.mix_targets(rows).as_subclass(Rows)
        if step.teacher is not None:
            options["teacher"] = replace(step.teacher, inputs=mixing.mix(step.teacher.inputs))
        return self.then(network, mixing.mix(step.inputs), mixed, **options)


@dataclass(eq=False)
class Until(Checked, Stateful):
    """One method until a fraction of training is done, another one after it.

    The training engine tells how far training is; in a loop of your own, call ``method.at(step / steps)``.
    """

    name: ClassVar[str] = "until"

    method: Method
    """What to use first."""
    fraction: Fraction = 0.9
    """Share of training after which it gives way."""
    then: Method = field(default_factory=ERM)
    """What to use from there on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_method("method", self.method)
        check_method("then", self.then)
        self.at(0.0)

    def prepare(self, network: Network) -> None:
        """Begin with the first method."""
        super().prepare(network)
        self.at(0.0)

    def at(self, progress: float) -> None:
        """Hear how much of training is done, from 0 to 1; raise ValueError if that is an epoch, say."""
        check(Fraction, progress=progress)
        self._gives_way = progress >= self.fraction  # in compiled code, a number would be another graph each time

    def forward(self, network: Network, inputs: Any, targets: Tensor, **options: Unpack[StepOptions]) -> Losses:
        """Return the losses of the method in force."""
        method = self.then if self._gives_way else self.method
        return method(network, inputs, targets, **options)


@dataclass(eq=False)
class Ramp(Checked, Stateful):
    """One method in a share of the steps that changes over training, another one in the rest.

    ``Ramp(Mixup())`` begins with plain training and ends with mixing in every step, ``Ramp(Mixup(), (1.0, 0.0))`` the
    other way round. ``Ramp(Mixup(), strength=("alpha", 0.1, 1.0))`` mixes in every step, and more strongly as time goes
    by. The training engine tells how far training is; in a loop of your own, call ``method.at(step / steps)``.

    Source: our own.
    """

    name: ClassVar[str] = "ramp"

    method: Method
    """What to use in a share of the steps that changes."""
    prob: tuple[Fraction, Fraction] | None = None
    """Probability of the method in a step, when training begins and when it ends; by default from 0 to 1, or 1
    throughout where ``strength`` is given."""
    strength: tuple[str, float, float] | None = None
    """Name of a setting of the method, and its values when training begins and when it ends; of a method that keeps no
    state, and a setting that may be any number between."""
    shape: Literal["linear", "cosine"] = "linear"
    """How to go from one end to the other: at an even pace, or along half a cosine, slowly at both ends."""
    otherwise: Method = field(default_factory=ERM)
    """What to use in all other steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_method("method", self.method)
        check_method("otherwise", self.otherwise)
        self._strong: Method | None = None
        if self.strength is not None:
            setting, *ends = self.strength
            settled = is_dataclass(self.method) and not isinstance(self.method, Stateful)
            known = [f.name for f in fields(cast("Any", self.method))] if settled else []
            if setting not in known:
                name, has = type(self.method).__name__, ", ".join(known) or "none that can change"
                raise ValueError(f"strength must begin with a setting of {name}, which has {has}; got {self.strength}")
            check(tuple[float, float], strength=tuple(ends))
            self.at(1.0)  # which refuses a last value that the method does
        self.at(0.0)

    def prepare(self, network: Network) -> None:
        """Begin where training does."""
        super().prepare(network)
        self.at(0.0)

    def at(self, progress: float) -> None:
        """Hear how much of training is done, from 0 to 1; raise ValueError if that is an epoch, say."""
        check(Fraction, progress=progress)
        share = progress if self.shape == "linear" else (1 - math.cos(math.pi * progress)) / 2
        start, end = self.prob or ((0.0, 1.0) if self.strength is None else (1.0, 1.0))
        self._prob = _between(start, end, share)
        if self.strength is not None:
            setting, start, end = self.strength
            self._strong = replace(cast("Any", self.method), **{setting: _between(start, end, share)})

    def forward(self, network: Network, inputs: Any, targets: Tensor, **options: Unpack[StepOptions]) -> Losses:
        """Return the losses of the method drawn, the same in all processes if their examples are gathered."""
        method = outside(self._agreed, network, targets, options.get("generator"))
        return method(network, inputs, targets, **options)

    def _agreed(self, network: Network, targets: Tensor, generator: Generator | None) -> Method:
        """Return the method of a step; a coin is thrown only where it may fall either way."""
        p = self._prob
        if p < 1 and (p == 0 or _agreed_coin(network, targets, generator) >= p):
            return self.otherwise
        return self.method if self._strong is None else self._strong


def _between(start: float, end: float, share: float) -> float:
    """Return what lies between two numbers, which come out exactly at both ends."""
    return start + share * (end - start) if share < 0.5 else end - (1 - share) * (end - start)
