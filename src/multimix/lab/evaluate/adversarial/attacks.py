"""FGSM and PGD: images within epsilon of others that a network takes for something else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimix.lab.data import seed_of
from multimix.lab.evaluate.adversarial.balls import BALLS
from multimix.lab.evaluate.adversarial.victim import Classifier, Verdict, Victim
from multimix.lab.evaluate.predict import NonFiniteError, evaluating, per_example
from multimix.protocols import Network


def fgsm(
    network: Classifier,
    pixels: Float[Tensor, "b *any"],
    labels: Int[Tensor, " b"],
    *,
    epsilon: float,
    norm: str = "linf",
) -> Float[Tensor, "b *any"]:
    """Return images that are one step of epsilon along the gradient of their loss away (Goodfellow et al., ICLR 2015).

    Args:
        network: From pixels in [0, 1] to logits (b, k), its normalisation inside. A module answers in eval mode and is
            left as it was.
        pixels: Images, in [0, 1]; float32 or float64.
        labels: Class indices.
        epsilon: How far to go, in pixels: 8/255 is eight grey levels.
        norm: ``linf``, along the signs, or ``l2``, along the gradient itself.

    Returns:
        Images within epsilon of the given ones and in [0, 1].

    Raises:
        ValueError: If an argument does not fit.
        NonFiniteError: If logits or gradients are NaN or infinite.
    """
    return one_step(epsilon, norm)(network, pixels, labels).pixels


def pgd(
    network: Classifier,
    pixels: Float[Tensor, "b *any"],
    labels: Int[Tensor, " b"],
    *,
    epsilon: float,
    step: float,
    steps: int,
    restarts: int = 1,
    norm: str = "linf",
    random_start: bool = True,
    seed: int = 0,
    examples: Sequence[int] | range | None = None,
) -> Float[Tensor, "b *any"]:
    """Return images after projected gradient ascent on their loss (Madry et al., ICLR 2018).

    From a random point of the ball, ``steps`` times a step along the gradient and back into the ball and [0, 1]; where
    that ends is the result, be it better or worse than what lay before. Of several restarts an image keeps the first
    end that is misclassified, and with none of the kind the one of the greatest loss.

    Args:
        network: From pixels in [0, 1] to logits (b, k), its normalisation inside. A module answers in eval mode and is
            left as it was.
        pixels: Images, in [0, 1]; float32 or float64.
        labels: Class indices.
        epsilon: Radius of the ball, in pixels: 4/255 is four grey levels.
        step: Length of a step, likewise.
        steps: How many.
        restarts: How often to try, each time from another start.
        norm: ``linf`` or ``l2``.
        random_start: Whether to start at a random point of the ball, uniformly, rather than at the image.
        seed: Of the starts.
        examples: The number of each image in its set, which fixes its starts whatever batch it comes in; by default
            0 to b - 1.

    Returns:
        Images within epsilon of the given ones and in [0, 1].

    Raises:
        ValueError: If an argument does not fit.
        NonFiniteError: If logits or gradients are NaN or infinite.
    """
    attack = Attack(epsilon, step, steps, restarts, norm, random_start, seed)
    return attack(network, pixels, labels, examples).pixels


@dataclass(frozen=True)
class Attacked:
    """What an attack leaves behind."""

    pixels: Float[Tensor, "b *any"]
    verdict: Verdict
    """What the network makes of them."""

    def tried_again(self, chosen: Int[Tensor, " s"], other: "Attacked") -> "Attacked":
        """Return the worse, for the network, of two results of the chosen images, none of which was fooled before."""
        ours, theirs = self.verdict, other.verdict
        worse = theirs.fooled | (theirs.margin > ours.margin[chosen])
        where = chosen[worse]
        return Attacked(
            self.pixels.index_copy(0, where, other.pixels[worse]),
            Verdict(
                ours.margin.index_copy(0, where, theirs.margin[worse]),
                ours.fooled.index_copy(0, where, theirs.fooled[worse]),
                ours.classes,
            ),
        )


@dataclass(frozen=True)
class Attack:
    """Projected gradient ascent; its fields are the arguments of :func:`pgd`."""

    epsilon: float
    step: float
    steps: int
    restarts: int = 1
    norm: str = "linf"
    random_start: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise ValueError(f"epsilon must be a finite number of at least 0, got {self.epsilon}")
        if not (math.isfinite(self.step) and (self.step > 0 or self.epsilon == 0)):
            raise ValueError(f"step must be a finite number above 0, got {self.step}")
        for name, value in (("steps", self.steps), ("restarts", self.restarts)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.norm not in BALLS:
            raise ValueError(f"norm must be one of {', '.join(BALLS)}, got {self.norm!r}")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"restarts must be 1 where no start is random, got {self.restarts}")

    def __call__(
        self,
        network: Classifier,
        pixels: Float[Tensor, "b *any"],
        labels: Int[Tensor, " b"],
        examples: Sequence[int] | range | None = None,
    ) -> Attacked:
        """Return where the images end, as :func:`pgd` does."""
        examples = range(len(pixels)) if examples is None else examples
        _require_images(pixels, labels, examples)
        with evaluating(cast("Network", network)), torch.inference_mode(mode=False), torch.no_grad():
            # Copies: what was made in inference mode could not enter a gradient.
            pixels, labels = pixels.clone(), labels.long()
            victim = Victim(network, labels.clone(), int(labels.max()))
            found = self._once(victim, pixels, examples, 0)
            for restart in range(1, self.restarts if self.epsilon else 1):
                rest = (~found.verdict.fooled).nonzero()[:, 0]
                if len(rest) == 0:
                    break
                numbers = [examples[i] for i in rest.tolist()]
                found = found.tried_again(rest, self._once(victim.only(rest), pixels[rest], numbers, restart))
        return found

    def _once(self, victim: Victim, pixels: Tensor, examples: Sequence[int] | range, restart: int) -> Attacked:
        if self.epsilon == 0:
            return _finished(victim, pixels, torch.zeros((), device=pixels.device))
        ball = BALLS[self.norm](pixels, self.epsilon)
        moved = ball.inside(pixels + self._start(pixels, examples, restart)) if self.random_start else pixels
        total = torch.zeros((), device=pixels.device)
        for _ in range(self.steps):
            gradient = victim.gradient(moved)
            total = total + gradient.sum()  # NaN once, NaN for good: looked at in the end, so that no step waits
            moved = ball.inside(moved + self.step * ball.direction(gradient))
        return _finished(victim, moved, total)

    def _start(self, pixels: Tensor, examples: Sequence[int] | range, restart: int) -> Tensor:
        shape, draw = pixels.shape[1:], BALLS[self.norm].draw
        seed = seed_of("start", self.seed, restart)
        drawn = per_example(lambda generator: draw(generator, shape), examples, seed=seed, device=pixels.device)
        return drawn.to(pixels.dtype) * self.epsilon


def one_step(epsilon: float, norm: str) -> Attack:
    """Return FGSM: a single step of length epsilon, from the image itself."""
    return Attack(epsilon, step=epsilon, steps=1, norm=norm, random_start=False)


def no_attack() -> Attack:
    """Return what leaves images as they are, and says what the network makes of them."""
    return Attack(epsilon=0.0, step=0.0, steps=1, random_start=False)


def _finished(victim: Victim, pixels: Tensor, total: Tensor) -> Attacked:
    verdict = victim.judge(pixels)
    if not (total + verdict.margin.sum()).isfinite():
        raise NonFiniteError(
            "the network's logits, or their gradients on pixels, are NaN or infinite: they cannot be attacked"
        )
    return Attacked(pixels, verdict)


def _require_images(pixels: Tensor, labels: Tensor, examples: Sequence[int] | range) -> None:
    if pixels.dtype not in (torch.float32, torch.float64):
        # A bfloat16 near 1 cannot even be moved by 1/255.
        raise ValueError(f"pixels must be float32 or float64, got {pixels.dtype}")
    if pixels.ndim < 2 or len(pixels) < 1:
        raise ValueError(f"pixels must be at least one image (b, c, h, w), got {tuple(pixels.shape)}")
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError(f"pixels must lie in [0, 1], got {float(pixels.min()):g} to {float(pixels.max()):g}")
    if labels.shape != pixels.shape[:1] or labels.is_floating_point() or labels.min() < 0:
        raise ValueError(f"labels must be {len(pixels)} class indices, got {labels.dtype} {tuple(labels.shape)}")
    if len(examples) != len(pixels):
        raise ValueError(f"examples must be one number for each of {len(pixels)} images, got {len(examples)}")
