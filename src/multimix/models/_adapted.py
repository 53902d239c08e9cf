"""A model seen as a network: what the adaptors have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multimix.models._check import check_split
from multimix.models._layout import Layout
from multimix.models._network import StagedNetwork


class AdaptedNetwork(StagedNetwork):
    """A model split into embedding, pooling and classifying; the model's parameters are shared, not copied.

    On the first batch its logits are compared with the model's own (see :func:`multimix.models._check.check_split`).

    Attributes:
        model: The model itself.
    """

    model: Any

    def __init__(
        self, model: nn.Module, *, head: str, stages: Sequence[str], width: int | None = None, prefix_tokens: int = 0
    ):
        """Take a model, the names of its head and stages, its features' channels and its number of prefix tokens."""
        super().__init__([f"model.{name}" for name in stages])
        self.model = model
        self.head_name = head
        self._width = width
        self._prefix_tokens = prefix_tokens
        self._layouts: dict[int, Layout] = {}
        self._checked = False

    @property
    def head(self) -> nn.Module | None:  # type: ignore[override]  # looked up by name, so that copies have their own
        """The affine layer behind ``classify``, linear or a 1x1 convolution, or None where it is anything else."""
        module = self.model.get_submodule(self.head_name)
        return module if _is_affine(module) else None

    def embed(self, inputs: Tensor) -> Float[Tensor, "b r d"]:
        """Return the encoder's output, a row for each position or token (prefix tokens included), one row for a vector.

        Raises:
            ValueError: On the first batch, if this is not what the model computes.
        """
        if not (self._checked or torch.compiler.is_compiling()):
            self._check(inputs)
        raw = self._encode(self.inputs(inputs))
        layout = Layout.of(raw, self._width)
        self._layouts[layout.positions] = layout
        return layout.flatten(raw)

    def classify(self, embeddings: Float[Tensor, "*any d"]) -> Float[Tensor, "*any k"]:
        """Return the head's output; one that is not linear sees (rows, d), a convolution (rows, d, 1, 1)."""
        module = self.model.get_submodule(self.head_name)
        if isinstance(module, nn.Linear):
            return module(embeddings)
        rows = embeddings.reshape(-1, embeddings.shape[-1])
        logits = module(rows[..., None, None] if isinstance(module, nn.Conv2d) else rows).flatten(1)
        return logits.reshape(*embeddings.shape[:-1], logits.shape[-1])

    @abstractmethod
    def _encode(self, inputs: Tensor) -> Tensor:
        """Return the encoder's output in the model's own layout."""

    def _check(self, inputs: Tensor) -> None:
        self._checked = True  # the check embeds, too
        try:
            check_split(self, inputs)
        except BaseException:
            self._checked = False
            raise

    def _restore(self, features: Float[Tensor, "b r d"]) -> Tensor:
        """Return positions in the model's own layout; one alone stands in for prefix tokens too."""
        if not self._layouts:
            raise ValueError(
                "features: this network has embedded nothing yet, so it cannot know their layout; call embed first"
            )
        if features.shape[1] == 1 and self._prefix_tokens:
            features = features.expand(-1, 1 + self._prefix_tokens, -1)
        positions = features.shape[1]
        seen = self._layouts.get(positions)
        return (seen or next(iter(self._layouts.values())).resized(positions)).restore(features)


def _is_affine(module: nn.Module) -> bool:
    # A subclass may compute anything else, cosines for one; timm's computes what its base does.
    cls = type(module)
    if "forward" in vars(module):
        return False
    if isinstance(module, nn.Conv2d):
        plain = module.kernel_size == module.stride == (1, 1) and module.groups == 1 and module.padding == (0, 0)
        return plain and cls.forward is nn.Conv2d.forward
    return isinstance(module, nn.Linear) and (
        cls.forward is nn.Linear.forward or cls.__module__ == "timm.layers.linear"
    )
