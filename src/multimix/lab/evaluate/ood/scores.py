"""Scores of how much an image is like those a network was trained on: the higher, the more so.

All are computed in float64 from what the network says in its own precision, so that confident predictions, which
float32 would round to the same 1, stay apart.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from typing_extensions import Self

from multimix.lab.evaluate.embedding import by_class, nearest, normalised
from multimix.lab.evaluate.passes import not_alone, with_float64
from multimix.protocols import Network

__all__ = ["KNN", "SCORES", "Mahalanobis", "energy", "max_logit", "msp", "nudged", "odin"]

ScoreName = Literal["msp", "max_logit", "energy", "odin", "knn", "mahalanobis"]
SCORES: tuple[ScoreName, ...] = get_args(ScoreName)
"""The name of every score, in the order they are given."""
_NEGLIGIBLE = 1e-12
"""Share of the largest variance that is float32's rounding, whose directions say nothing."""


def msp(logits: Float[Tensor, "b k"], temperature: float = 1.0) -> Float64[Tensor, " b"]:
    """Return the largest softmax probability of ``logits / temperature``.

    Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks",
    ICLR 2017.
    """
    return _double(logits).div(temperature).softmax(1).amax(1)


def max_logit(logits: Float[Tensor, "b k"]) -> Float64[Tensor, " b"]:
    """Return the largest logit.

    Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings", ICML 2022.
    """
    return _double(logits).amax(1)


def energy(logits: Float[Tensor, "b k"], temperature: float = 1.0) -> Float64[Tensor, " b"]:
    """Return the negated free energy, ``T logsumexp(logits / T)``.

    Liu et al., "Energy-based Out-of-distribution Detection", NeurIPS 2020, equation (4).
    """
    return temperature * _double(logits).div(temperature).logsumexp(1)


def odin(
    network: Network,
    inputs: Float[Tensor, "b *input"],
    *,
    step: Float[Tensor, "*channels"] | float,
    temperature: float = 1000.0,
) -> Float64[Tensor, " b"]:
    """Return the largest softmax probability at a high temperature, of inputs that were moved towards the prediction.

    Liang, Li and Srikant, "Enhancing the Reliability of Out-of-distribution Image Detection in Neural Networks", ICLR
    2018, equations (1) and (2). Two forward passes and one backward pass, to the inputs alone.

    Args:
        network: Should be in eval mode.
        inputs: As the network takes them.
        step: How far each value moves. To move pixels in [0, 1] by epsilon, it is epsilon / std for each channel.
        temperature: Divides the logits, in the step and in the score.
    """
    images = len(inputs)
    with torch.enable_grad():
        inputs = not_alone(inputs.detach()).requires_grad_()
        moved = nudged(inputs, network(inputs), step=step, temperature=temperature)
    with torch.no_grad():
        return msp(network(moved[:images]), temperature)


def nudged(
    inputs: Float[Tensor, "b *input"],
    logits: Float[Tensor, "b k"],
    *,
    step: Float[Tensor, "*channels"] | float,
    temperature: float,
) -> Float[Tensor, "b *input"]:
    """Return inputs moved by ``step`` in the direction that makes their predicted class likelier, as a new leaf.

    As in ODIN's own code the result is not clipped to valid pixels. An example's step depends on its own gradient
    alone, so batches do not matter; where the gradient is 0 nothing moves. The inputs are leaves that require a
    gradient, and the logits what the network made of them, with its graph.
    """
    with torch.enable_grad():  # the caller may have switched it off
        likelihood = (logits / temperature).log_softmax(1).gather(1, logits.argmax(1, keepdim=True)).sum()
        # Times the temperature, which the sign does not see: at 1000 a half-precision gradient would vanish.
        (gradient,) = torch.autograd.grad(likelihood * temperature, inputs)
    return inputs.detach() + step * gradient.sign()


@dataclass(frozen=True, eq=False)
class KNN:
    """The negated distance to the k-th nearest training embedding, all of length 1.

    Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022. Exact: every training embedding
    is compared, in float64.
    """

    embeddings: Float64[Tensor, "n d"]
    """Those of training images, of length 1."""
    neighbours: int = 50
    """k: the paper's choice for CIFAR-10."""

    @classmethod
    def fit(cls, embeddings: Float[Tensor, "n d"], neighbours: int = 50) -> Self:
        """Return the score that knows these training embeddings.

        Raises:
            ValueError: If there are fewer than ``neighbours``, or that is below 1.
        """
        if not 1 <= neighbours <= len(embeddings):
            raise ValueError(f"neighbours must lie in 1..{len(embeddings)}, the training embeddings, got {neighbours}")
        return cls(normalised(_double(embeddings)), neighbours)

    def __call__(self, embeddings: Float[Tensor, "b d"]) -> Float64[Tensor, " b"]:
        """Return the scores of embeddings, in [-2, 0]; an embedding of length 0 is at distance 1 from all."""
        distances, _ = nearest(normalised(_double(embeddings)), self.embeddings, self.neighbours)
        return -distances[:, -1]


@dataclass(frozen=True, eq=False)
class Mahalanobis:
    """The negated squared Mahalanobis distance to the nearest class mean, with one covariance for all classes.

    Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS
    2018, equations (1) and (2), on the pooled embedding alone: without input perturbation, without the earlier layers
    and without the regression that weighs them, which is fitted on out-of-distribution images.
    """

    centre: Float64[Tensor, " d"]
    """Mean of the training embeddings."""
    whitening: Float64[Tensor, "d p"]
    """Takes what is centred to where the covariance is the identity."""
    means: Float64[Tensor, "k p"]
    """Of the classes, there."""

    @classmethod
    def fit(cls, embeddings: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], *, shrinkage: float = 0.0) -> Self:
        """Return the score that knows the distribution of these training embeddings.

        The covariance is the mean outer product of what is left when each example's class mean is taken away. It is
        inverted where it has variance (pseudo-inverse): directions with less than 1e-12 of the largest are left out.

        Args:
            embeddings: Of training images.
            labels: Their classes; a class without an example has no mean.
            shrinkage: s in [0, 1]: the covariance becomes (1 - s) of itself and s of the identity times its mean
                variance.

        Raises:
            ValueError: If embeddings do not vary within their classes.
        """
        values = _double(embeddings)
        centre = values.mean(0)
        _, means, own = by_class(values - centre, labels.to(values.device))
        left = values - centre - means[own]
        covariance = left.T @ left / len(left)
        covariance = (1 - shrinkage) * covariance
        covariance.diagonal().add_(shrinkage * left.square().mean())
        variances, directions = torch.linalg.eigh(covariance)
        kept = variances > _NEGLIGIBLE * variances.amax()
        if not kept.any():
            raise ValueError("embeddings must vary within their classes: each equals the mean of its class")
        whitening = directions[:, kept] * variances[kept].rsqrt()
        return cls(centre, whitening, means @ whitening)

    def __call__(self, embeddings: Float[Tensor, "b d"]) -> Float64[Tensor, " b"]:
        """Return the scores of embeddings, at most 0."""
        white = (_double(embeddings) - self.centre) @ self.whitening
        return -nearest(white, self.means)[0][:, 0].square()


def _double(values: Tensor) -> Float64[Tensor, "*any"]:
    return with_float64(values.detach()).double()
