"""A network under attack: how wrong it is about images, and which way it becomes more so."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from multimix.lab.evaluate.predict import not_alone

Classifier = Callable[[Tensor], Tensor]
"""From pixels in [0, 1], (b, ...), to logits (b, k)."""


@dataclass(frozen=True)
class Verdict:
    """What a network makes of images."""

    margin: Float[Tensor, " b"]
    """logsumexp over the wrong classes minus the right one's logit: the log of the odds against the right class."""
    fooled: Bool[Tensor, " b"]
    """Whether the greatest logit, the first of several, is that of a wrong class."""
    classes: int
    """How many logits there are, k."""

    @property
    def loss(self) -> Float[Tensor, " b"]:
        """Cross-entropy, in nats."""
        return softplus(self.margin.double())


@dataclass(frozen=True)
class Victim:
    """A network and what the images that it shall take for something else really are."""

    network: Classifier
    labels: Int[Tensor, " b"]
    """Class indices."""
    highest: int
    """The greatest label there may be, known beforehand, so that looking for it does not hold up a GPU."""

    def only(self, chosen: Int[Tensor, " s"]) -> "Victim":
        """Return the same with some of the images."""
        return Victim(self.network, self.labels[chosen], self.highest)

    def judge(self, pixels: Float[Tensor, "b *any"]) -> Verdict:
        """Return what the network makes of images."""
        logits = self._logits(pixels)
        return Verdict(self._margin(logits), logits.argmax(1) != self.labels, logits.shape[1])

    def gradient(self, pixels: Float[Tensor, "b *any"]) -> Float[Tensor, "b *any"]:
        """Return the gradient of each image's margin.

        Cross-entropy is softplus(margin), so that its gradient is this one times the probability of being wrong. That
        factor turns no direction, but it is 0 in float32 for an image that the network is sure of, and then nothing is
        left to follow. Each image's gradient is its own: the margins are added, not averaged.

        Raises:
            ValueError: If the network passes no gradient to its pixels.
        """
        with torch.enable_grad():
            leaf = pixels.detach().requires_grad_()
            total = self._margin(self._logits(leaf)).sum()
            found = torch.autograd.grad(total, leaf, allow_unused=True)[0] if total.requires_grad else None
        if found is None:
            raise ValueError("network must pass a gradient to its pixels, got logits that do not depend on them")
        return found

    def _logits(self, pixels: Tensor) -> Tensor:
        """Return the logits, in float32 at least."""
        logits = together(self.network)(pixels)
        if logits.ndim != 2 or len(logits) != len(self.labels) or logits.shape[1] < 2:
            raise ValueError(
                f"network must return logits (b, k) of b = {len(self.labels)} images and at least 2 classes, "
                f"got {tuple(logits.shape)}"
            )
        if self.highest >= logits.shape[1]:
            raise ValueError(f"labels must be below the network's {logits.shape[1]} classes, got {self.highest}")
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _margin(self, logits: Tensor) -> Tensor:
        labels = self.labels[:, None]
        wrong = logits.scatter(1, labels, -torch.inf).logsumexp(1)
        return wrong - logits.gather(1, labels)[:, 0]


def together(network: Classifier) -> Classifier:
    """Return the network as one that never sees a single image, whose gradient may be wrong."""
    return lambda pixels: network(not_alone(pixels))[: len(pixels)]
