"""Accuracy under attack."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from multimix.lab.data import ImageSet, first_of
from multimix.lab.evaluate.adversarial.attacks import Attack, no_attack, one_step
from multimix.lab.evaluate.adversarial.autoattack import autoattack, require_classes, require_package
from multimix.lab.evaluate.adversarial.balls import BALLS
from multimix.lab.evaluate.predict import LabelledBatches
from multimix.lab.evaluate.suite import Normalised, Source, SuiteSettings
from multimix.protocols import SILENT, Monitor, Network

MORE = 5
"""How many times the steps of PGD the checks for masked gradients take."""


@dataclass(frozen=True, kw_only=True)
class AdversarialSettings(SuiteSettings):
    """What attacks may do, in pixels from 0 to 1; the l-inf numbers are those of the paper's protocol."""

    norms: tuple[str, ...] = ("linf", "l2")
    """Which balls to attack in; without linf there is no curve, check or AutoAttack."""
    fgsm_epsilon: float = 8 / 255
    """How far FGSM moves each pixel."""
    pgd_epsilon: float = 4 / 255
    """How far PGD and AutoAttack may move each pixel."""
    pgd_step: float = 2 / 255
    """How far one step of PGD moves each pixel."""
    l2_epsilon: float = 0.5
    """How long the change by l2 FGSM and PGD may be."""
    l2_step: float = 0.05
    """How long one step of l2 PGD is."""
    steps: int = 20
    """Steps of PGD."""
    restarts: int = 1
    """How often PGD tries, each time from another start."""
    random_start: bool = True
    """Start PGD at a random point of the ball rather than at the image."""
    seed: int = 0
    """Fixes the random starts."""
    curve: tuple[float, ...] = (0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255)
    """How far l-inf PGD may go at each point of the curve; its step keeps its share of that. Empty: no curve."""
    curve_examples: int = 500
    """Images behind the curve and the checks for masked gradients, the same share of each class; at most all."""
    autoattack: bool = False
    """Run AutoAttack as well (pip install pyautoattack); far slower than all else together."""
    autoattack_examples: int = 1000
    """Images for AutoAttack, the same share of each class; at most all."""
    autoattack_batch_size: int = 100
    """Images that AutoAttack takes at a time, which its random numbers depend on."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        if not self.norms or len(set(self.norms)) < len(self.norms) or not set(self.norms) <= set(BALLS):
            raise ValueError(f"norms must be one or more of {', '.join(BALLS)}, each once, got {self.norms}")
        if self.autoattack and "linf" not in self.norms:
            raise ValueError(f"autoattack needs linf among norms, got {self.norms}")
        for name in ("fgsm_epsilon", "pgd_epsilon", "pgd_step", "l2_epsilon", "l2_step"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite number above 0, got {value}")
        for name in ("steps", "restarts", "curve_examples", "autoattack_examples", "autoattack_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"restarts must be 1 where no start is random, got {self.restarts}")
        if any(not (math.isfinite(value) and value >= 0) for value in self.curve):
            raise ValueError(f"curve must hold finite numbers of at least 0, got {self.curve}")


@dataclass(frozen=True)
class Score:
    """How a network does under an attack."""

    accuracy: float
    """Fraction of the images that it classifies rightly."""
    loss: float
    """Mean cross-entropy, in nats."""
    examples: int
    """How many images."""


@dataclass(frozen=True)
class Adversarial:
    """Accuracy (fraction) and mean cross-entropy (nats) of attacked images: FGSM and PGD, l-inf and l2.

    Metrics are ``clean``, ``fgsm/linf``, ``fgsm/l2``, ``pgd/linf`` and ``pgd/l2``, each with ``/accuracy`` and
    ``/loss``; with AutoAttack also ``autoattack/linf/accuracy``. Two more are checks for masked gradients, on
    ``curve_examples`` images, both of l-inf PGD with five times the steps: ``pgd/linf/more_steps/accuracy``, which
    should be little below PGD's own, and ``pgd/linf/unbounded/accuracy``, from the image itself and free to go
    anywhere in [0, 1], which should be 0. The figure ``epsilon_curve`` is accuracy over epsilon.
    """

    name: ClassVar[str] = "adversarial"
    Settings: ClassVar[type[SuiteSettings]] = AdversarialSettings

    batches: LabelledBatches
    """Pixels in [0, 1], (b, c, h, w), and class indices, in any number of batches."""
    mean: Sequence[float]
    """Mean of each channel, by which the network's inputs are normalised."""
    std: Sequence[float]
    """Standard deviation of each channel, likewise."""
    settings: AdversarialSettings = field(default_factory=AdversarialSettings)
    few: LabelledBatches | None = field(default=None, kw_only=True)
    """Those of the curve and the checks; by default all."""
    fewest: LabelledBatches | None = field(default=None, kw_only=True)
    """Those of AutoAttack; by default all."""

    @classmethod
    def of(cls, source: Source, settings: Any) -> Self:
        """Return the suite over a run's test set."""
        if settings.autoattack:
            require_package()
            require_classes(source.classes)
        test, mean, std = source.test(settings.examples), source.splits.mean, source.splits.std
        few = source.pixels(_some(test, settings, "curve_examples"))
        fewest = source.pixels(_some(test, settings, "autoattack_examples")) if settings.autoattack else None
        return cls(source.pixels(test), mean, std, settings, few=few, fewest=fewest)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield accuracy and loss of each attack, then the checks."""
        victim = Normalised(network, self.mean, self.std)
        for name, attack in self._attacks().items():
            score = measured(victim, attack, monitor.track(name, self.batches))
            yield f"{name}/accuracy", score.accuracy
            yield f"{name}/loss", score.loss
        if "linf" not in self.settings.norms:
            return
        few = self.batches if self.few is None else self.few
        for name, attack in self._checks().items():
            yield f"{name}/accuracy", measured(victim, attack, monitor.track(name, few)).accuracy
        if self.settings.curve:
            monitor.record("epsilon_curve", self._curve(victim, few, monitor))
        if self.settings.autoattack:
            yield "autoattack/linf/accuracy", self._autoattack(victim, monitor)

    def _attacks(self) -> dict[str, Attack]:
        of = self.settings
        fgsm = {"linf": one_step(of.fgsm_epsilon, "linf"), "l2": one_step(of.l2_epsilon, "l2")}
        pgd = {"linf": self._linf, "l2": replace(self._linf, epsilon=of.l2_epsilon, step=of.l2_step, norm="l2")}
        return {
            "clean": no_attack(),
            **{f"fgsm/{norm}": fgsm[norm] for norm in of.norms},
            **{f"pgd/{norm}": pgd[norm] for norm in of.norms},
        }

    @property
    def _linf(self) -> Attack:
        of = self.settings
        return Attack(of.pgd_epsilon, of.pgd_step, of.steps, of.restarts, "linf", of.random_start, of.seed)

    def _checks(self) -> dict[str, Attack]:
        linf = self._linf
        steps = MORE * linf.steps
        # A random start so far away would fool any network by itself, and hide what its gradients are good for.
        free = replace(linf, epsilon=1.0, steps=steps, restarts=1, random_start=False)
        return {"pgd/linf/more_steps": replace(linf, steps=steps), "pgd/linf/unbounded": free}

    def _curve(self, victim: Normalised, few: LabelledBatches, monitor: Monitor) -> dict[str, Any]:
        linf, points = self._linf, tuple(sorted(set(self.settings.curve)))
        scores = []
        for epsilon in points:
            attack = replace(linf, epsilon=epsilon, step=linf.step * (epsilon / linf.epsilon))
            scores.append(measured(victim, attack, monitor.track(f"pgd/linf, epsilon {epsilon * 255:.3g}/255", few)))
        return {
            "norm": "linf",
            "attack": "pgd",
            "epsilon": list(points),
            "accuracy": [score.accuracy for score in scores],
            "examples": scores[0].examples,
        }

    def _autoattack(self, victim: Normalised, monitor: Monitor) -> float:
        _, fooled = autoattack(
            victim,
            self.batches if self.fewest is None else self.fewest,
            epsilon=self.settings.pgd_epsilon,
            batch_size=self.settings.autoattack_batch_size,
            seed=self.settings.seed,
            monitor=monitor,
        )
        return float((~fooled).double().mean())


def measured(victim: Normalised, attack: Attack, batches: LabelledBatches) -> Score:
    """Return how a network does on the attacked images of all batches.

    Raises:
        ValueError: If there is no batch.
    """
    fooled: list[Tensor] = []
    losses: list[Tensor] = []
    seen = 0
    for pixels, labels in batches:
        verdict = attack(victim, pixels, labels, range(seen, seen + len(labels))).verdict
        seen += len(labels)
        fooled.append(verdict.fooled.cpu())
        losses.append(verdict.loss.cpu())
    if not seen:
        raise ValueError("batches must hold at least one image, got none")
    return Score(float((~torch.cat(fooled)).double().mean()), float(torch.cat(losses).mean()), seen)


def _some(test: ImageSet, settings: AdversarialSettings, what: str) -> ImageSet:
    return first_of(test, min(getattr(settings, what), len(test)), what=what)
