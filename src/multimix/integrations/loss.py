"""MultiMix in a loop of one's own, as the loss in place of cross-entropy."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from multimix.integrations._course import as_method
from multimix.methods import MultiMix
from multimix.ops import as_probabilities


class MultiMixLoss(nn.Module):
    """MultiMix as a loss of clean logits, in place of cross-entropy: ``loss = MultiMixLoss()(model(images), targets)``.

    Where the classifier is affine, as nearly every one is, the logits of interpolated embeddings are the interpolated
    logits, so that a script need not know of embeddings; nothing else in it changes. In eval mode it is cross-entropy.
    With a classifier that ends otherwise (a cosine, say), call the method on ``multimix.adapt(model)`` instead, and for
    every other method, too.
    """

    def __init__(
        self, method: MultiMix | str | None = None, *, label_smoothing: float = 0.0, seed: int | None = None
    ) -> None:
        """Take MultiMix's settings.

        Args:
            method: A ``MultiMix``, or the name of one; None for ``MultiMix()``.
            label_smoothing: Share of a label that is spread over all classes.
            seed: Of the interpolation; None for torch's own seed.

        Raises:
            TypeError: If it is any other method.
            ValueError: If a setting is impossible.
        """
        super().__init__()
        chosen = as_method(method)
        if not isinstance(chosen, MultiMix):
            raise TypeError(f"method must be MultiMix, the only one whose loss is one of logits, got {method!r}")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must lie in [0, 1], got {label_smoothing}")
        self.method, self.label_smoothing, self.seed = chosen, label_smoothing, seed
        self._generators: dict[torch.device, Generator] = {}

    def forward(self, logits: Float[Tensor, "b k"], targets: Tensor) -> Float[Tensor, ""]:
        """Return the mean loss of interpolated logits, for class indices (b,) or probabilities (b, k)."""
        soft = smooth(as_probabilities(targets, logits.shape[-1]), self.label_smoothing)
        if not self.training:
            return nn.functional.cross_entropy(logits.float(), soft)
        return self.method(_Logits(), logits, soft, generator=self._generator(logits.device)).total

    def _generator(self, device: torch.device) -> Generator:
        if device not in self._generators:
            seed = torch.initial_seed() if self.seed is None else self.seed
            self._generators[device] = Generator(device).manual_seed(seed % 2**63)
        return self._generators[device]

    def __getstate__(self) -> dict[str, Any]:
        """Leave generators behind, which cannot be pickled."""
        return {**self.__dict__, "_generators": {}}


class _Logits:
    """A network whose embeddings are its logits already: the affine head has been applied, and it is the identity."""

    head: nn.Module | None = nn.Identity()
    stages = range(1)

    def __call__(self, inputs: Tensor) -> Tensor:
        return inputs

    def embed(self, inputs: Tensor) -> Tensor:
        return inputs.unsqueeze(1)

    def pool(self, features: Tensor) -> Tensor:
        return features.mean(1)

    def classify(self, embeddings: Tensor) -> Tensor:
        return embeddings

    def mixing_at(self, stage: int, mix: Any) -> Any:
        raise ValueError(f"stage must be that of a model, got {stage}: there are only logits")


def smooth(probabilities: Tensor, share: float) -> Tensor:
    """Return class probabilities of which a share is spread over all classes, as timm spreads it."""
    return (1 - share) * probabilities + share / probabilities.shape[-1] if share else probabilities
