"""Accuracy under attack: FGSM, PGD and AutoAttack, of the package pyautoattack."""

import importlib.util
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import inf
from typing import Annotated, Any, ClassVar, cast

import torch
from torch import Tensor, nn
from typing_extensions import Self

from multimix._declared import Count, Fraction, Interval, Positive, check
from multimix.lab.data import first_of
from multimix.lab.evaluate.adversarial import attacks
from multimix.lab.evaluate.adversarial.attacks import Attack, Classifier, Distance, Norm
from multimix.lab.evaluate.passes import LabelledBatches, concatenated, evaluating, mean, numbered
from multimix.lab.evaluate.suite import Limit, Normalised, Source, SuiteSettings, Usual, adjusted, check_each_once
from multimix.protocols import SILENT, Monitor, Network

Pixels = Annotated[float, Interval(gt=0, le=1)]
ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")  # AutoAttack's standard version (Croce and Hein, ICML 2020)


@dataclass(frozen=True, kw_only=True)
class AdversarialSettings(SuiteSettings):
    """What attacks may do, in pixels from 0 to 1; the l-inf numbers are those of the paper's protocol."""

    norms: tuple[Norm, ...] = ("linf", "l2")
    """Which balls to attack in; without linf there is no curve, check or AutoAttack."""
    fgsm_epsilon: Pixels = 8 / 255
    """How far FGSM moves each pixel."""
    pgd_epsilon: Pixels = 4 / 255
    """How far PGD and AutoAttack may move each pixel."""
    pgd_step: Positive = 2 / 255
    """How far one step of PGD moves each pixel."""
    l2_epsilon: Positive = 0.5
    """How long the change by l2 FGSM and PGD may be."""
    l2_step: Positive = 0.05
    """How long one step of l2 PGD is."""
    steps: Count = 20
    """Steps of PGD."""
    restarts: Count = 1
    """How often PGD tries, each time from another start."""
    random_start: bool = True
    """Start PGD at a random point of the ball rather than at the image."""
    seed: int = 0
    """Fixes the random starts."""
    curve: tuple[Fraction, ...] = (0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255)
    """How far l-inf PGD may go at each point of the curve; its step keeps its share of that. Empty: no curve."""
    curve_examples: Count = field(default=Usual(500))
    """Images behind the curve and the checks for masked gradients, the same share of each class; at most all."""
    autoattack: bool = False
    """Run AutoAttack as well (pip install pyautoattack); far slower than all else together."""
    autoattack_examples: Count = field(default=Usual(1000))
    """Images for AutoAttack, the same share of each class; at most all."""
    autoattack_batch_size: Count = 100
    """Images that AutoAttack takes at a time, which its random numbers depend on."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        check_each_once(norms=self.norms)
        if self.autoattack and "linf" not in self.norms:
            raise ValueError(f"autoattack needs linf among norms, got {self.norms}")
        self.pgd()

    def limits(self, source: Source) -> Iterator[Limit]:
        """Yield what the number of classes asks for."""
        classes = len(source.splits.test.labels.unique())
        for name in ("curve_examples", "autoattack_examples"):
            yield Limit(name, classes, inf, classes, "one for each class")

    def pgd(self) -> Attack:
        """Return PGD in the l-inf ball."""
        return Attack(self.pgd_epsilon, self.pgd_step, self.steps, self.restarts, "linf", self.random_start, self.seed)


@dataclass(frozen=True)
class Adversarial:
    """Accuracy (fraction) and mean cross-entropy (nats) of attacked images: FGSM and PGD, l-inf and l2.

    Metrics are ``clean``, ``fgsm/linf``, ``fgsm/l2``, ``pgd/linf`` and ``pgd/l2``, each with ``/accuracy`` and
    ``/loss``; with AutoAttack also ``autoattack/linf/accuracy``. Two are checks for masked gradients, of l-inf PGD with
    five times the steps, on ``curve_examples`` images: ``pgd/linf/more_steps/accuracy`` should be little below PGD's
    own, and ``pgd/linf/unbounded/accuracy``, free to go anywhere in [0, 1], should be 0. The figure ``epsilon_curve``
    is accuracy over epsilon.
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
            require_autoattack(len(source.splits.classes))
        settings = adjusted(cls.name, settings, source)
        test, mean, std = source.test(settings.examples), source.splits.mean, source.splits.std
        few, fewest = (
            source.pixels(first_of(test, min(getattr(settings, what), len(test)), what=what)) if wanted else None
            for what, wanted in (("curve_examples", True), ("autoattack_examples", settings.autoattack))
        )
        return cls(source.pixels(test), mean, std, settings, few=few, fewest=fewest)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield accuracy and loss of each attack, then the checks."""
        victim = Normalised(network, self.mean, self.std)
        for name, attack in self._attacks().items():
            fooled, losses = measured(victim, attack, monitor.track(name, self.batches))
            yield f"{name}/accuracy", mean(~fooled)
            yield f"{name}/loss", mean(losses)
        if "linf" not in self.settings.norms:
            return
        few = self.batches if self.few is None else self.few
        for name, attack in self._checks().items():
            yield f"{name}/accuracy", mean(~measured(victim, attack, monitor.track(name, few))[0])
        if self.settings.curve:
            monitor.record("epsilon_curve", self._curve(victim, few, monitor))
        if self.settings.autoattack:
            fewest = self.batches if self.fewest is None else self.fewest
            size, seed = self.settings.autoattack_batch_size, self.settings.seed
            how: dict[str, Any] = {"batch_size": size, "seed": seed, "monitor": monitor}
            _, fooled = autoattack(victim, fewest, epsilon=self.settings.pgd_epsilon, **how)
            yield "autoattack/linf/accuracy", mean(~fooled)

    def _attacks(self) -> dict[str, Attack]:
        of = self.settings
        fgsm = {"linf": attacks.one_step(of.fgsm_epsilon, "linf"), "l2": attacks.one_step(of.l2_epsilon, "l2")}
        pgd = {"linf": of.pgd(), "l2": replace(of.pgd(), epsilon=of.l2_epsilon, step=of.l2_step, norm="l2")}
        return {
            "clean": attacks.no_attack(),
            **{f"fgsm/{norm}": fgsm[norm] for norm in of.norms},
            **{f"pgd/{norm}": pgd[norm] for norm in of.norms},
        }

    def _checks(self) -> dict[str, Attack]:
        linf = self.settings.pgd()
        steps = 5 * linf.steps
        # A random start so far away would fool any network by itself, and hide what its gradients are good for.
        free = replace(linf, epsilon=1.0, steps=steps, restarts=1, random_start=False)
        return {"pgd/linf/more_steps": replace(linf, steps=steps), "pgd/linf/unbounded": free}

    def _curve(self, victim: Normalised, few: LabelledBatches, monitor: Monitor) -> dict[str, Any]:
        linf, points = self.settings.pgd(), sorted(set(self.settings.curve))
        fooled = []
        for epsilon in points:
            attack = replace(linf, epsilon=epsilon, step=linf.step * (epsilon / linf.epsilon))
            batches = monitor.track(f"pgd/linf, epsilon {epsilon * 255:.3g}/255", few)
            fooled.append(measured(victim, attack, batches)[0])
        accuracies = [mean(~each) for each in fooled]
        about = {"norm": "linf", "attack": "pgd"}
        return {**about, "epsilon": points, "accuracy": accuracies, "examples": len(fooled[0])}


def measured(victim: Normalised, attack: Attack, batches: LabelledBatches) -> tuple[Tensor, ...]:
    """Return of all attacked images whether the network is fooled (n,), and the cross-entropy in nats (n,)."""
    found = (attack(victim, pixels, labels, examples) for pixels, labels, examples in numbered(batches))
    return concatenated([(each.fooled.cpu(), each.loss.cpu()) for each in found])


def autoattack(
    network: Classifier,
    batches: LabelledBatches,
    *,
    epsilon: float,
    norm: Norm = "linf",
    batch_size: int = 100,
    seed: int = 0,
    monitor: Monitor = SILENT,
) -> tuple[Tensor, Tensor]:
    """Return the images after AutoAttack's four attacks, one after the other, and whether each is misclassified."""
    check(Distance, epsilon=epsilon)
    check(Norm, norm=norm)
    check(Count, batch_size=batch_size)
    device, classes, clean = torch.device("cpu"), 0, []
    for pixels, targets in monitor.track("AutoAttack, clean", batches):
        judged = attacks.no_attack()(network, pixels, targets)
        device, classes = pixels.device, judged.classes
        clean.append((pixels.cpu().contiguous(), targets.cpu().long(), judged.fooled.cpu()))
    original, labels, fooled = concatenated(clean)
    require_autoattack(classes)
    images = original.clone()
    with evaluating(cast("Network", network)), torch.inference_mode(mode=False), _undisturbed(network, device):
        tool = _tool(network, epsilon, norm, classes, seed, device)
        for name in ATTACKS:
            tool.attacks_to_run = [name]
            rest = (~fooled).nonzero()[:, 0]
            for chosen in monitor.track(f"AutoAttack, {name}", rest.split(batch_size) if len(rest) else ()):
                found, _ = tool.run_standard_evaluation(original[chosen], labels[chosen], batch_size=len(chosen))
                images[chosen] = attacks.BALLS[norm](original[chosen], epsilon).inside(found)
                judged = attacks.no_attack()(network, images[chosen].to(device), labels[chosen].to(device))
                fooled[chosen] = judged.fooled.cpu()
    return images, fooled


def require_autoattack(classes: int) -> None:
    """Raise ValueError if pyautoattack is not installed or there are too few classes for the loss of apgd-t."""
    if importlib.util.find_spec("pyautoattack") is None:
        raise ValueError("autoattack needs the package pyautoattack: pip install pyautoattack")

    if classes < 4:
        raise ValueError(f"autoattack needs at least 4 classes, as its losses do, got {classes}")


def _tool(network: Classifier, epsilon: float, norm: Norm, classes: int, seed: int, device: torch.device) -> Any:
    from pyautoattack import AutoAttack

    tool = AutoAttack(
        attacks.together(network), eps=epsilon, norm=norm.capitalize(), seed=seed, version="standard", device=device
    )
    targets = min(tool.apgd_targeted.n_target_classes, classes - 1)  # by default nine
    tool.apgd_targeted.n_target_classes = tool.fab.n_target_classes = targets
    return tool


@contextmanager
def _undisturbed(network: Classifier, device: torch.device) -> Iterator[None]:
    """Undo what the package does: gradients of parameters (fab-t's), global seeds, the trace function, log lines."""
    parameters = network.parameters() if isinstance(network, nn.Module) else ()
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    logger, trace = logging.getLogger("auto-attack"), sys.gettrace()
    silent = logger.disabled
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        logger.disabled = True
        for parameter in learning:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)
            logger.disabled = silent
            sys.settrace(trace)
