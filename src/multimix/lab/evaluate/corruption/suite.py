"""The fifteen common corruptions by name, and accuracy under them."""

from ast import literal_eval
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Self

from multimix._declared import check
from multimix.lab.data import seed_of
from multimix.lab.evaluate.corruption import effects
from multimix.lab.evaluate.corruption.effects import Level
from multimix.lab.evaluate.passes import LabelledBatches, accuracy, numbered, per_example, predict
from multimix.lab.evaluate.suite import Normalised, Source, SuiteSettings, check_each_once
from multimix.protocols import SILENT, Monitor, Network

_SMALLEST = 4  # images have to be larger than what is moved about in them

_LEVELS = """
gaussian_noise 32: 0.04; 0.06; 0.08; 0.09; 0.1
gaussian_noise 64: 0.04; 0.08; 0.12; 0.15; 0.18
gaussian_noise 224: 0.08; 0.12; 0.18; 0.26; 0.38
shot_noise 32: 500; 250; 100; 75; 50
shot_noise 64: 250; 100; 50; 30; 15
shot_noise 224: 60; 25; 12; 5; 3
impulse_noise 32: 0.01; 0.02; 0.03; 0.05; 0.07
impulse_noise 64: 0.01; 0.02; 0.05; 0.08; 0.14
impulse_noise 224: 0.03; 0.06; 0.09; 0.17; 0.27
defocus_blur 32: 0.3 0.4; 0.4 0.5; 0.5 0.6; 1 0.2; 1.5 0.1
defocus_blur 64: 0.5 0.6; 1 0.1; 1.5 0.1; 2.5 0.01; 3 0.1
defocus_blur 224: 3 0.1; 4 0.5; 6 0.5; 8 0.5; 10 0.5
glass_blur 32: 0.05 1 1; 0.25 1 1; 0.4 1 1; 0.25 1 2; 0.4 1 2
glass_blur 64: 0.1 1 1; 0.5 1 1; 0.6 1 2; 0.7 2 1; 0.9 2 2
glass_blur 224: 0.7 1 2; 0.9 2 1; 1 2 3; 1.1 3 2; 1.5 4 2
motion_blur 32: 6 1; 6 1.5; 6 2; 8 2; 9 2.5
motion_blur 64: 10 1; 10 1.5; 10 2; 10 2.5; 12 3
motion_blur 224: 10 3; 15 5; 15 8; 15 12; 20 15
zoom_blur 32,64: 0.01 7; 0.01 12; 0.01 16; 0.01 21; 0.01 26
zoom_blur 224: 0.01 12; 0.01 16; 0.02 11; 0.02 13; 0.03 11
snow 32: 0.1 0.2 1 0.6 8 3 0.95; 0.1 0.2 1 0.5 10 4 0.9;
    0.15 0.3 1.75 0.55 10 4 0.9; 0.25 0.3 2.25 0.6 12 6 0.85; 0.3 0.3 1.25 0.65 14 12 0.8
snow 64: 0.1 0.2 1 0.6 8 3 0.8; 0.1 0.2 1 0.5 10 4 0.8;
    0.15 0.3 1.75 0.55 10 4 0.7; 0.25 0.3 2.25 0.6 12 6 0.65; 0.3 0.3 1.25 0.65 14 12 0.6
snow 224: 0.1 0.3 3 0.5 10 4 0.8; 0.2 0.3 2 0.5 12 4 0.7;
    0.55 0.3 4 0.9 12 8 0.7; 0.55 0.3 4.5 0.85 12 8 0.65; 0.55 0.3 2.5 0.85 12 12 0.55
frost 32: 1 0.2 0.2; 1 0.3 0.2; 0.9 0.4 0.2; 0.85 0.4 0.2; 0.75 0.45 0.2
frost 64: 1 0.3 0.3; 0.9 0.4 0.3; 0.8 0.45 0.3; 0.75 0.5 0.3; 0.7 0.55 0.3
frost 224: 1 0.4 1; 0.8 0.6 1; 0.7 0.7 1; 0.65 0.7 1; 0.6 0.75 1
fog 32: 0.2 3; 0.5 3; 0.75 2.5; 1 2; 1.5 1.75
fog 64: 0.4 3; 0.7 3; 1 2.5; 1.5 2; 2 1.75
fog 224: 1.5 2; 2 2; 2.5 1.7; 2.5 1.5; 3 1.4
brightness 32: 0.05; 0.1; 0.15; 0.2; 0.3
brightness 64,224: 0.1; 0.2; 0.3; 0.4; 0.5
contrast 32: 0.75; 0.5; 0.4; 0.3; 0.15
contrast 64,224: 0.4; 0.3; 0.2; 0.1; 0.05
elastic_transform 32: 0 0 0.08; 0.05 0.2 0.07; 0.08 0.06 0.06; 0.1 0.04 0.05; 0.1 0.03 0.03
elastic_transform 64: 0 0 0.08; 0.05 0.3 0.06; 0.1 0.08 0.06; 0.1 0.03 0.03; 0.16 0.03 0.02
elastic_transform 224: 2 0.7 0.1; 2 0.08 0.2; 0.05 0.01 0.02; 0.07 0.01 0.02; 0.12 0.01 0.02
pixelate 32: 0.95; 0.9; 0.85; 0.75; 0.65
pixelate 64: 0.9; 0.8; 0.7; 0.6; 0.5
pixelate 224: 0.6; 0.5; 0.4; 0.3; 0.25
jpeg_compression 32: 80; 65; 58; 50; 40
jpeg_compression 64: 65; 58; 50; 40; 25
jpeg_compression 224: 25; 18; 15; 10; 7
"""
"""Of a corruption and benchmarks, by the pixels of their sides, the parameters of each severity."""


def _levels() -> dict[str, dict[int, tuple[Level, ...]]]:
    found: dict[str, dict[int, tuple[Level, ...]]] = {}
    for row in _LEVELS.replace("\n    ", " ").strip().splitlines():
        about, _, levels = row.partition(": ")
        name, sizes = about.split()
        parameters = tuple(tuple(map(literal_eval, level.split())) for level in levels.split(";"))
        found.setdefault(name, {}).update(dict.fromkeys(map(int, sizes.split(",")), parameters))
    # Shares of the image's side. The benchmark's code multiplies by 244 where 224 was meant, and so do these.
    elastic = found["elastic_transform"]
    elastic[224] = tuple(tuple(244 / 224 * value for value in level) for level in elastic[224])
    return found


LEVELS = _levels()
"""The parameters of five severities at three sizes: those of CIFAR-10-C, Tiny-ImageNet-C and ImageNet-C, by the code
that made them (github.com/hendrycks/robustness). What each means is said where it is used."""
CORRUPTIONS: dict[str, Callable[[Tensor, Level, effects.Draw], Tensor]] = {n: getattr(effects, n) for n in LEVELS}
"""Every corruption by its name, in the order of Hendrycks and Dietterich (ICLR 2019, arXiv 1903.12261)."""

Severity = Literal[1, 2, 3, 4, 5]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)  # from hardly to strongly corrupted


@torch.no_grad()
def corrupt(
    pixels: Float[Tensor, "b c h w"], name: str, severity: int, *, examples: Sequence[int] | range, seed: int = 0
) -> Float[Tensor, "b c h w"]:
    """Return images under one of the fifteen common corruptions.

    What is random belongs to the seed, the corruption and the example, not to the batch, nor to the device, nor to the
    severity: of one example, all severities share their random numbers.

    Args:
        pixels: Images in [0, 1]; RGB where c is 3.
        name: One of ``CORRUPTIONS``.
        severity: 1 to 5. What they mean depends on the images' size (``LEVELS``).
        examples: Each image's position in its set.
        seed: Of all that is random.

    Returns:
        Images in [0, 1] in the dtype of ``pixels``, without gradient.

    Raises:
        ValueError: If there is no such corruption or severity, or pixels are not images in [0, 1], one an example.
    """
    _check_name(name)
    check(Severity, severity=severity)
    _check_pixels(pixels, len(examples))
    if not len(pixels):
        return pixels
    draw = partial(per_example, examples=examples, seed=seed_of("corruption", name, seed), device=pixels.device)
    exact = pixels.to(torch.promote_types(pixels.dtype, torch.float32))
    corrupted = CORRUPTIONS[name](exact, level_of(name, severity, *pixels.shape[2:]), draw)
    return corrupted.clamp(0, 1).to(pixels.dtype)


def level_of(name: str, severity: int, height: int, width: int) -> Level:
    """Return a corruption's parameters for images of a size: the nearest benchmark's, by the shorter side."""
    shorter = min(height, width)
    return LEVELS[name][32 if shorter <= 45 else 64 if shorter <= 120 else 224][severity - 1]


def _check_name(name: str) -> None:
    if name not in CORRUPTIONS:
        raise ValueError(f"corruptions: unknown corruption {name}; known are {', '.join(CORRUPTIONS)}")


def _check_pixels(pixels: Tensor, examples: int) -> None:
    if pixels.ndim != 4 or not (pixels.is_floating_point() and pixels.shape[1]) or min(pixels.shape[2:]) < _SMALLEST:
        raise ValueError(
            f"pixels must be floating-point images (b, c, h, w) of at least {_SMALLEST} x {_SMALLEST} pixels, "
            f"got {pixels.dtype} {tuple(pixels.shape)}"
        )
    if len(pixels) != examples:
        raise ValueError(f"examples must name one position an image, got {examples} for {len(pixels)} images")
    if len(pixels) and not (pixels.amin() >= 0 and pixels.amax() <= 1):
        raise ValueError(f"pixels must lie in [0, 1], got {float(pixels.amin()):g} to {float(pixels.amax()):g}")


@dataclass(frozen=True, kw_only=True)
class CorruptionSettings(SuiteSettings):
    """What can be set of the corruption suite."""

    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    """Which of the fifteen common corruptions."""
    severities: tuple[Severity, ...] = SEVERITIES
    """How strong, from 1 to 5."""
    seed: int = 0
    """Of all that is random in the corruptions."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        check_each_once(corruptions=self.corruptions, severities=self.severities)
        for name in self.corruptions:
            _check_name(name)


@dataclass(frozen=True)
class Corruption:
    """Top-1 accuracies (fractions) under corruptions that are made on the fly.

    ``clean/accuracy``; then ``CORRUPTION/SEVERITY/accuracy``, ``CORRUPTION/accuracy``, the mean over the severities,
    and ``mean/accuracy``, the mean over all corruptions and severities. One minus the latter is the mean corruption
    error, without the division by AlexNet's errors that the benchmark's mCE on ImageNet has.
    """

    name: ClassVar[str] = "corruption"
    Settings: ClassVar[type[SuiteSettings]] = CorruptionSettings

    pixels: LabelledBatches
    """Images in [0, 1] and class indices."""
    mean: tuple[float, ...]
    """What the network's inputs are normalised by: the mean of each channel,"""
    std: tuple[float, ...]
    """and the standard deviation of each channel."""
    settings: CorruptionSettings = field(default_factory=CorruptionSettings)

    @classmethod
    def of(cls, source: Source, settings: Any) -> Self:
        """Return the suite over a run's test set."""
        if (side := min(source.splits.shape[1:])) < _SMALLEST:
            raise ValueError(
                f"images must have at least {_SMALLEST} pixels a side, got {side}: train with --image-size 32"
            )
        pixels = source.pixels(source.test(settings.examples))
        return cls(pixels, source.splits.mean, source.splits.std, settings)

    def __call__(self, network: Network, monitor: Monitor = SILENT) -> Iterator[tuple[str, float]]:
        """Yield the clean accuracy, those of each corruption and the mean."""
        names, severities = self.settings.corruptions, self.settings.severities
        whole = cast("Network", Normalised(network, self.mean, self.std))
        logits, labels = predict(whole, monitor.track("clean", self.pixels))
        clean, table = accuracy(logits, labels), []
        yield "clean/accuracy", clean
        for name in names:
            row = []
            for severity in severities:
                clean_ones = numbered(monitor.track(f"{name} {severity}", self.pixels))
                how: dict[str, Any] = {"name": name, "severity": severity, "seed": self.settings.seed}
                corrupted = ((corrupt(pixels, examples=i, **how), labels) for pixels, labels, i in clean_ones)
                row.append(accuracy(*predict(whole, corrupted)))
                yield f"{name}/{severity}/accuracy", row[-1]
            yield f"{name}/accuracy", sum(row) / len(row)
            table.append(row)
        yield "mean/accuracy", sum(map(sum, table)) / (len(table) * len(severities))
        about = {"corruptions": list(names), "severities": list(severities)}
        monitor.record("corruption", {**about, "accuracy": table, "clean": clean, "examples": len(labels)})
