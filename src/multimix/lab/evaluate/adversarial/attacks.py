"""FGSM and PGD: images within epsilon of others that a network takes for something else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Annotated, Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Size, Tensor
from torch.nn.functional import softplus
from typing_extensions import Required, TypedDict, Unpack

from multimix._declared import Checked, Count, Interval
from multimix.lab.data import seed_of
from multimix.lab.evaluate.passes import NonFiniteError, class_indices, evaluating, not_alone, per_example
from multimix.protocols import Network

Classifier = Callable[[Tensor], Tensor]  # from pixels in [0, 1], (b, ...), to logits (b, k)
Distance = Annotated[float, Interval(ge=0, lt=inf)]
Norm = Literal["linf", "l2"]


class PGDOptions(TypedDict, total=False):
    """The options of :func:`pgd`."""

    epsilon: Required[float]
    step: Required[float]
    steps: Required[int]
    restarts: int
    norm: Norm
    random_start: bool
    seed: int


def fgsm(
    network: Classifier,
    pixels: Float[Tensor, " b *any"],
    labels: Int[Tensor, " b"],
    *,
    epsilon: float,
    norm: Norm = "linf",
) -> Float[Tensor, " b *any"]:
    """Return images that are one step of epsilon along the gradient of their loss away (Goodfellow et al., ICLR 2015).

    ``epsilon`` is how far to go, in pixels: along the signs of the gradient (``linf``) or the gradient itself (``l2``).
    All else is as of :func:`pgd`.
    """
    return one_step(epsilon, norm)(network, pixels, labels).pixels


def pgd(
    network: Classifier,
    pixels: Float[Tensor, " b *any"],
    labels: Int[Tensor, " b"],
    *,
    examples: Sequence[int] | range | None = None,
    **options: Unpack[PGDOptions],
) -> Float[Tensor, " b *any"]:
    """Return images after projected gradient ascent on their loss (Madry et al., ICLR 2018).

    From a random point of the ball, ``steps`` times a step along the gradient and back into the ball and [0, 1]. Of
    several restarts an image keeps the first end that is misclassified, else the one of the greatest loss.

    Args:
        network: From pixels in [0, 1] to logits (b, k), its normalisation inside. A module answers in eval mode.
        pixels: Images, in [0, 1]; float32 or float64.
        labels: Class indices.
        examples: Each image's number in its set, which fixes its starts in any batch; by default 0 to b - 1.
        **options: ``epsilon``, radius of the ball, in pixels: 4/255 is four grey levels, and ``linf`` takes at most 1.
            ``step``, length of a step, likewise, and ``steps``, how many. ``restarts`` (1), how often to try, each time
            from another start. ``norm``, ``linf`` (the default) or ``l2``. ``random_start`` (True), whether to start at
            a random point of the ball, uniformly, rather than at the image. ``seed`` (0) of the starts.

    Returns:
        Images within epsilon of the given ones and in [0, 1].

    Raises:
        ValueError: If an argument does not fit.
        NonFiniteError: If logits or gradients are NaN or infinite.
    """
    return Attack(**options)(network, pixels, labels, examples).pixels


class Attacked(NamedTuple):
    """Images after an attack, and what the network makes of them."""

    pixels: Float[Tensor, " b *any"]
    margin: Float[Tensor, " b"]
    """logsumexp over the wrong classes minus the right one's logit: the log of the odds against the right class."""
    fooled: Bool[Tensor, " b"]
    """Whether the greatest logit is that of a wrong class."""
    classes: int

    @property
    def loss(self) -> Float[Tensor, " b"]:
        """Cross-entropy, in nats."""
        return softplus(self.margin.double())

    def keep_worse(self, chosen: Int[Tensor, " s"], other: "Attacked") -> None:
        """Take over what is worse for the network of another try at images that did not fool it."""
        worse = other.fooled | (other.margin > self.margin[chosen])
        where = chosen[worse]
        self.pixels[where], self.margin[where] = other.pixels[worse], other.margin[worse]
        self.fooled[where] = other.fooled[worse]


@dataclass(frozen=True)
class Attack(Checked):
    """Projected gradient ascent; its fields are the options of :func:`pgd`."""

    epsilon: Distance
    step: Distance
    steps: Count
    restarts: Count = 1
    norm: Norm = "linf"
    random_start: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        super().__post_init__()
        if self.norm == "linf" and self.epsilon > 1:
            raise ValueError(
                f"epsilon must lie in [0, 1], as pixels do (8/255 is eight grey levels), got {self.epsilon}"
            )
        if self.step == 0 and self.epsilon > 0:
            raise ValueError(f"step must be above 0, got {self.step}")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"restarts must be 1 where no start is random, got {self.restarts}")

    def __call__(
        self, network: Classifier, pixels: Tensor, labels: Tensor, examples: Sequence[int] | range | None = None
    ) -> Attacked:
        """Return where the images end, as :func:`pgd` does."""
        examples = range(len(pixels)) if examples is None else examples
        _check_images(pixels, labels, examples)
        with evaluating(cast("Network", network)), torch.inference_mode(mode=False), torch.no_grad():
            # Copies: what was made in inference mode could not enter a gradient.
            pixels, labels = pixels.clone(), labels.clone().long()
            found = self._once(Victim(network, labels), pixels, examples, 0)
            for restart in range(1, self.restarts if self.epsilon else 1):
                rest = (~found.fooled).nonzero()[:, 0]
                if len(rest) == 0:
                    break
                numbers = [examples[i] for i in rest.tolist()]
                found.keep_worse(rest, self._once(Victim(network, labels[rest]), pixels[rest], numbers, restart))
        return found

    def _once(self, victim: "Victim", pixels: Tensor, examples: Sequence[int] | range, restart: int) -> Attacked:
        total = torch.zeros((), device=pixels.device)
        if self.epsilon:
            ball = BALLS[self.norm](pixels, self.epsilon)
            pixels = ball.inside(pixels + self._start(pixels, examples, restart)) if self.random_start else pixels
            for _ in range(self.steps):
                gradient = victim.gradient(pixels)
                total = total + gradient.sum()  # NaN once, NaN for good: looked at in the end, so that no step waits
                pixels = ball.inside(pixels + self.step * ball.direction(gradient))
        found = victim.judge(pixels)
        if not (total + found.margin.sum()).isfinite():
            raise NonFiniteError(
                "the network's logits, or their gradients on pixels, are NaN or infinite: they cannot be attacked"
            )
        return found

    def _start(self, pixels: Tensor, examples: Sequence[int] | range, restart: int) -> Tensor:
        draw = partial(BALLS[self.norm].draw, shape=pixels.shape[1:])
        drawn = per_example(draw, examples, seed=seed_of("start", self.seed, restart), device=pixels.device)
        return drawn.to(pixels.dtype) * self.epsilon


def one_step(epsilon: float, norm: Norm) -> Attack:
    """Return FGSM: a single step of length epsilon, from the image itself."""
    return Attack(epsilon, step=epsilon, steps=1, norm=norm, random_start=False)


def no_attack() -> Attack:
    """Return what leaves images as they are, and says what the network makes of them."""
    return Attack(epsilon=0.0, step=0.0, steps=1, random_start=False)


class Victim:
    """A network under attack and the classes (b,) of the images: how wrong it is, and how it becomes more so."""

    def __init__(self, network: Classifier, labels: Int[Tensor, " b"]) -> None:
        self._network, self._labels = together(network), labels
        self._highest = int(labels.max())  # known beforehand, so that looking for it does not hold up a GPU

    def judge(self, pixels: Float[Tensor, " b *any"]) -> Attacked:
        """Return the images with what the network makes of them."""
        logits = self._logits(pixels)
        return Attacked(pixels, self._margin(logits), logits.argmax(1) != self._labels, logits.shape[1])

    def gradient(self, pixels: Float[Tensor, " b *any"]) -> Float[Tensor, " b *any"]:
        """Return the gradient of each image's margin; cross-entropy's vanishes in float32 where the network is sure."""
        with torch.enable_grad():
            leaf = pixels.detach().requires_grad_()
            total = self._margin(self._logits(leaf)).sum()
            found = torch.autograd.grad(total, leaf, allow_unused=True)[0] if total.requires_grad else None
        if found is None:
            raise ValueError("network must pass a gradient to its pixels, got logits that do not depend on them")
        return found

    def _logits(self, pixels: Tensor) -> Tensor:
        logits = self._network(pixels)
        if logits.ndim != 2 or len(logits) != len(self._labels) or logits.shape[1] < 2:
            raise ValueError(
                f"network must return logits (b, k) of b = {len(self._labels)} images and at least 2 classes, "
                f"got {tuple(logits.shape)}"
            )
        if self._highest >= logits.shape[1]:
            raise ValueError(f"labels must be below the network's {logits.shape[1]} classes, got {self._highest}")
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _margin(self, logits: Tensor) -> Tensor:
        labels = self._labels[:, None]
        return logits.scatter(1, labels, -torch.inf).logsumexp(1) - logits.gather(1, labels)[:, 0]


def together(network: Classifier) -> Classifier:
    """Return the network as one that never sees a single image, whose gradient may be wrong."""
    return lambda pixels: network(not_alone(pixels))[: len(pixels)]


class Linf:
    """The images whose every value is within epsilon of the given one, cut by [0, 1]."""

    def __init__(self, centre: Float[Tensor, " b *any"], epsilon: float) -> None:
        self._low, self._high = (centre - epsilon).clamp_(min=0), (centre + epsilon).clamp_(max=1)

    def inside(self, moved: Float[Tensor, " b *any"]) -> Float[Tensor, " b *any"]:
        """Return the nearest images of the ball and [0, 1]."""
        return moved.clamp(self._low, self._high)

    @staticmethod
    def direction(gradient: Float[Tensor, " b *any"]) -> Float[Tensor, " b *any"]:
        """Return the steps of length 1 that follow the gradients farthest."""
        return gradient.sign()

    @staticmethod
    def draw(generator: Generator, shape: Size) -> Float[Tensor, "*any"]:
        """Return a point of the ball of radius 1 around 0, uniformly."""
        return torch.rand(shape, generator=generator) * 2 - 1


class L2:
    """The images within a Euclidean distance epsilon, over all values, cut by [0, 1]."""

    def __init__(self, centre: Float[Tensor, " b *any"], epsilon: float) -> None:
        self._centre, self._epsilon = centre, epsilon

    def inside(self, moved: Float[Tensor, " b *any"]) -> Float[Tensor, " b *any"]:
        """Return the nearest images of the ball, their pixels then clipped to [0, 1], which only shortens a change."""
        change = moved - self._centre
        shrink = (self._epsilon / _length(change).clamp_(min=_tiny(change))).clamp_(max=1)
        return (self._centre + change * shrink).clamp_(0, 1)

    @staticmethod
    def direction(gradient: Float[Tensor, " b *any"]) -> Float[Tensor, " b *any"]:
        """Return the gradients at length 1; none where there is no gradient."""
        # The largest entry comes first: squares of tiny gradients would be lost.
        largest = gradient.abs().amax(tuple(range(1, gradient.ndim)), keepdim=True)
        scaled = gradient / largest.clamp_(min=_tiny(gradient))
        return scaled / _length(scaled).clamp_(min=_tiny(gradient))

    @staticmethod
    def draw(generator: Generator, shape: Size) -> Float[Tensor, "*any"]:
        """Return a normal direction at a length whose distribution makes the volume uniform."""
        normal = torch.randn(shape, generator=generator)
        radius = torch.rand((), generator=generator) ** (1 / max(1, shape.numel()))
        return normal / torch.linalg.vector_norm(normal).clamp_(min=_tiny(normal)) * radius


BALLS: dict[str, type[Linf] | type[L2]] = {"linf": Linf, "l2": L2}


def _length(images: Tensor) -> Tensor:
    """Return each image's Euclidean length, (b, 1, ...)."""
    return torch.linalg.vector_norm(images, dim=tuple(range(1, images.ndim)), keepdim=True)


def _tiny(images: Tensor) -> float:
    return torch.finfo(images.dtype).tiny


def _check_images(pixels: Tensor, labels: Tensor, examples: Sequence[int] | range) -> None:
    if pixels.dtype not in (torch.float32, torch.float64):
        # A bfloat16 near 1 cannot even be moved by 1/255.
        raise ValueError(f"pixels must be float32 or float64, got {pixels.dtype}")
    if pixels.ndim < 2 or len(pixels) < 1:
        raise ValueError(f"pixels must be at least one image (b, c, h, w), got {tuple(pixels.shape)}")
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError(f"pixels must lie in [0, 1], got {float(pixels.min()):g} to {float(pixels.max()):g}")
    class_indices(labels, len(pixels))
    if len(examples) != len(pixels):
        raise ValueError(f"examples must be one number for each of {len(pixels)} images, got {len(examples)}")
