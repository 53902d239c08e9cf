"""What is measured of a network at one point of its training."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, cast

import torch
from torch import Generator, Tensor

from anatomy.law import (
    centred,
    cosine,
    expected_cosine,
    law_gradient,
    norm_ratio,
    quadratic_gradient,
    relative_error,
    relative_variance,
    shrinkage,
)
from anatomy.probe import TOTAL, Probe
from multimix.methods import DenseMultiMix, MultiMix

Alpha = float | tuple[float, float]
Finding = dict[str, Any]
"""A metric's name, its value (a number, or numbers by name) and what it was measured with."""

PUBLISHED: Alpha = (0.5, 2.0)
"""The published concentration."""


@dataclass(frozen=True, kw_only=True)
class AnatomySettings:
    """How thoroughly the gradient is measured."""

    points: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Fractions of training to measure at, besides the start and the end of the first epoch."""
    batches: int = 2
    """Fixed mini-batches; ratios and cosines are means over them."""
    tuples: int = 4000
    """Interpolated tuples of a gradient, n."""
    dense_tuples: int = 1000
    """Those of Dense MultiMix, at each position."""
    expected_tuples: int = 20_000
    """Those of a gradient that stands for the expected one."""
    noise_tuples: tuple[int, ...] = (10, 100, 1000, 10_000)
    """Numbers of tuples whose sampling noise is measured."""
    noise_draws: int = 4
    """Independent gradients of each of these."""
    examples: int = 1000
    """Training images that the geometry of classes is measured on, at most."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if not all(0 < point <= 1 for point in self.points):
            raise ValueError(f"points must be fractions of training in (0, 1], got {self.points}")
        for name, least in (("batches", 1), ("tuples", 1), ("dense_tuples", 1), ("expected_tuples", 2)):
            _check_least(name, getattr(self, name), least)
        for n in self.noise_tuples:
            _check_least("noise_tuples", n, 1)
        _check_least("noise_draws", self.noise_draws, 2)
        _check_least("examples", self.examples, 2)


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def concentrations(m: int) -> tuple[Alpha, ...]:
    """Return the concentrations that are measured at a mini-batch of m: the published, and 1, 4 and 16 over m."""
    return tuple(dict.fromkeys((PUBLISHED, 0.5, 1 / m, 4 / m, 16 / m)))  # 16 / 32 is 0.5


def findings(probes: list[Probe], settings: AnatomySettings, generator: Generator) -> list[Finding]:
    """Return all that is found out about the gradients of some mini-batches.

    Args:
        probes: One for each mini-batch. Noise and Dense MultiMix, which take most time, are measured on the first.
        settings: How thoroughly.
        generator: Draws the weights.
    """
    each = [list(batch_findings(probe, settings, generator)) for probe in probes]
    shared = [_averaged(same) for same in zip(*each, strict=True)]
    first = probes[0]
    return [*shared, *noise_findings(first, settings, generator), *dense_findings(first, settings, generator)]


def batch_findings(probe: Probe, settings: AnatomySettings, generator: Generator) -> Iterator[Finding]:
    """Yield how MultiMix's gradient compares with plain training's, the law's and the quadratic's, on one mini-batch.

    Norm ratios and cosines are by name: ``logits_centred``, ``logits_mean``, each layer's, and ``total``.
    """
    plain = probe.plain()
    against = _everywhere(probe, plain)
    for alpha in concentrations(len(plain)):
        shrink = shrinkage(alpha, len(plain))
        law = _everywhere(probe, law_gradient(plain, shrink))
        for balanced in (False, True):
            method = MultiMix(settings.tuples, alpha=alpha, balanced=balanced)
            found = _everywhere(probe, probe.mixed(method, generator))
            about = {"measured": "multimix", "alpha": alpha, "n": settings.tuples, "balanced": balanced}
            yield {"metric": "norm_ratio", "value": _each(norm_ratio, found, against), **about}
            yield {"metric": "cosine", "value": _each(cosine, found, against), **about}
            if not balanced:  # a balanced gradient's law is the plain one
                yield {"metric": "law_norm_ratio", "value": _each(norm_ratio, law, against), "alpha": alpha}
                yield {"metric": "law_cosine", "value": _each(cosine, found, law), **about}
        yield from _predictions(probe, alpha, shrink, settings, generator)


def _predictions(
    probe: Probe, alpha: Alpha, shrink: float, settings: AnatomySettings, generator: Generator
) -> Iterator[Finding]:
    """Yield how well law and quadratic predict the expected gradient on the logits, as a whole and its centred part."""
    n = settings.expected_tuples
    method = MultiMix(n // 2, alpha=alpha, balanced=False)
    one, other = probe.mixed(method, generator), probe.mixed(method, generator)
    predicted = {
        "law": law_gradient(probe.plain(), shrink),
        "quadratic": quadratic_gradient(probe.logits, probe.targets, shrink),
    }
    for metric, compare in (("prediction_error", relative_error), ("prediction_cosine", expected_cosine)):
        value = {name: compare(gradient, one, other) for name, gradient in predicted.items()}
        for name, gradient in predicted.items():
            value[f"{name}_centred"] = compare(centred(gradient), centred(one), centred(other))
        yield {"metric": metric, "value": value, "measured": "multimix", "alpha": alpha, "n": n, "balanced": False}


def noise_findings(probe: Probe, settings: AnatomySettings, generator: Generator) -> Iterator[Finding]:
    """Yield the relative variance of the total parameter gradient over draws of the weights, by number of tuples."""
    for alpha in (PUBLISHED, 1 / len(probe.logits)):
        for balanced in (False, True):
            method = MultiMix(settings.expected_tuples, alpha=alpha, balanced=balanced)
            expected = probe.pull_back(probe.mixed(method, generator))[TOTAL]
            value = {
                str(n): relative_variance(_draws(probe, replace(method, tuples=n), settings, generator), expected)
                for n in settings.noise_tuples
            }
            about = {"measured": "multimix", "alpha": alpha, "balanced": balanced}
            yield {"metric": "relative_variance", "value": value, "layer": TOTAL, **about}


def _draws(probe: Probe, method: MultiMix, settings: AnatomySettings, generator: Generator) -> Tensor:
    draws = (probe.pull_back(probe.mixed(method, generator))[TOTAL] for _ in range(settings.noise_draws))
    return torch.stack(list(draws))


def dense_findings(probe: Probe, settings: AnatomySettings, generator: Generator) -> Iterator[Finding]:
    """Yield how the parameter gradient of Dense MultiMix compares with plain training's, shared weights or not."""
    plain = probe.pull_back(probe.plain())[TOTAL]
    concentrations: tuple[dict[str, Any], ...] = ({"alpha": PUBLISHED}, {"effective": 2.0})
    for spread in concentrations:
        for balanced in (False, True):
            ratio, angle = {}, {}
            for name, shared in (("own", False), ("shared", True)):
                method = DenseMultiMix(settings.dense_tuples, balanced=balanced, shared=shared, **spread)
                found = probe.through(method, generator)[TOTAL]
                ratio[name], angle[name] = norm_ratio(found, plain), cosine(found, plain)
            about = {"measured": "dense-multimix", "layer": TOTAL, "n": settings.dense_tuples, "balanced": balanced}
            yield {"metric": "norm_ratio", "value": ratio, **about, **spread}
            yield {"metric": "cosine", "value": angle, **about, **spread}


def _everywhere(probe: Probe, gradient: Tensor) -> dict[str, Tensor]:
    """Return both parts of a gradient on the logits, and what it makes of the parameters."""
    parts = {"logits_centred": centred(gradient), "logits_mean": gradient.mean(0)}
    return parts | probe.pull_back(gradient)


def _each(compare: Any, found: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: compare(found[name], reference[name]) for name in reference}


def _averaged(same: tuple[Finding, ...]) -> Finding:
    """Return one finding with the means of all over mini-batches."""
    values = [cast("dict[str, float]", finding["value"]) for finding in same]
    return {**same[0], "value": {name: fmean(value[name] for value in values) for name in values[0]}}
