"""A model seen as a network: what the adaptors have in common."""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from typing_extensions import Self

from multimix.models._affine import axes_of, is_affine
from multimix.models._check import check_split
from multimix.models._check_training import check_training
from multimix.models._inputs import mask_of_lengths, padded, run
from multimix.models._layout import Layout
from multimix.models._network import StagedNetwork
from multimix.ops import CROSS_ENTROPY, Objective
from multimix.protocols import EncoderOutput


@dataclass(frozen=True)
class Context:
    """What pooling has to know of a mini-batch."""

    layout: Layout
    seen: Any = None
    """What the model's family keeps besides."""


class AdaptedNetwork(StagedNetwork):
    """A model split into embedding, pooling and classifying; the model's parameters are shared, not copied.

    On the first batch its logits are compared with the model's own (see :func:`multimix.models._check.check_split`), on
    the first one in training mode what enters the head and all gradients, too
    (:func:`multimix.models._check_training.check_training`).

    Attributes:
        model: The model itself.
        objective: What it is trained for.
        dense: Whether there are logits at every position, instead of pooling.
        encoder_name: The module whose output is embedded, where the user named one.
    """

    model: Any
    encoder_name: str | None = None

    def __init__(
        self, model: nn.Module, *, head: str, stages: Sequence[str], width: int | None = None, prefix_tokens: int = 0
    ):
        """Take a model, the names of its head and stages, its features' channels and its number of prefix tokens."""
        super().__init__([f"model.{name}" for name in stages])
        self.model = model
        self.head_name = head
        self._width = width
        self._prefix_tokens = prefix_tokens
        self._checked = False
        self._checked_training = False
        self.objective: Objective = CROSS_ENTROPY
        self.dense = False

    @property
    def head(self) -> nn.Module | None:  # type: ignore[override]  # looked up by name, so that copies have their own
        """The affine layer behind ``classify``, linear or a 1x1 convolution, or None where it is anything else."""
        module = self.model.get_submodule(self.head_name)
        return module if is_affine(module) else None

    @property
    def missing(self) -> dict[str, str]:
        """What cannot be mixed here, ``positions`` or ``stages``, and what to write to have it."""
        return {} if len(self.stages) > 1 else {"stages": _NO_STAGES}

    def embed(self, inputs: Any) -> EncoderOutput:
        """Return the encoder's output, a row for each position or token (prefix tokens included), one row for a vector.

        Raises:
            ValueError: On the first batch, if this is not what the model computes or how it trains.
        """
        if not torch.compiler.is_compiling():
            self._check_once(inputs)
        encoded, seen = self._encode(self.inputs(inputs))
        raw, mask = padded(encoded)
        layout = Layout.of(raw, self._width_of(raw))
        features = layout.flatten(raw)
        given = self._mask_of(inputs, features)
        return EncoderOutput(features, mask if given is None else given, layout.grid, Context(layout, seen))

    def classify(self, embeddings: Float[Tensor, "*any d"]) -> Float[Tensor, "*any k"]:
        """Return the head's output; one that is not linear sees (rows, d), a convolution (rows, d, 1, 1)."""
        module = self.model.get_submodule(self.head_name)
        if isinstance(module, nn.Linear):
            return module(embeddings)
        rows = embeddings.reshape(-1, embeddings.shape[-1])
        axes = axes_of(module)
        if axes and embeddings.ndim > 2 and is_affine(module):  # all rows as positions of one map, which is far faster
            logits = module(rows.T.reshape(1, -1, len(rows), *[1] * (axes - 1))).flatten(2).squeeze(0).T
        else:
            logits = module(rows[(..., *[None] * axes)]).flatten(1)
        return logits.reshape(*embeddings.shape[:-1], logits.shape[-1])

    @abstractmethod
    def _encode(self, inputs: Any) -> tuple[Tensor | PackedSequence, Any]:
        """Return the encoder's output in the model's own layout, and what else pooling has to know of the batch."""

    def _width_of(self, raw: Tensor) -> int | None:
        return self._width

    def _whole(self, inputs: Any) -> Any:
        """Return what the model itself makes of the inputs."""
        return run(self.model, inputs)

    def _refuse(self, inputs: Any) -> None:
        """Raise if the model does not take inputs of this kind."""
        if isinstance(inputs, Mapping):
            raise TypeError(
                f"inputs must be a tensor for {type(self.model).__name__}, got a mapping of {', '.join(inputs)}"
            )

    def _mask_of(self, inputs: Any, features: Float[Tensor, "b r d"]) -> Tensor | None:
        """Return which positions each example has, (b, r), where the inputs say so."""
        return mask_of_lengths(inputs, features.shape[1])

    def _check_once(self, inputs: Any) -> None:
        # Checks embed, too: they count as done while they run.
        if not self._checked:
            self._refuse(inputs)
            self._checked = True
            with self._unless_it_fails("_checked"):
                self._check(inputs)
        if not self._checked_training and self.model.training and self._may_mix and torch.is_grad_enabled():
            self._checked_training = True
            with self._unless_it_fails("_checked_training"):
                check_training(self, inputs)

    @contextmanager
    def _unless_it_fails(self, flag: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            setattr(self, flag, False)
            raise

    def _check(self, inputs: Any) -> None:
        check_split(self, inputs)

    def _context(self, output: EncoderOutput | Tensor) -> Context:
        """Return what ``embed`` left in its output for ``pool``.

        Raises:
            ValueError: If the output is not from ``embed``.
        """
        context = EncoderOutput.of(output).context
        if not isinstance(context, Context):
            raise ValueError(
                "output: this network pools features by what embed knows of their batch; pass what embed gives, "
                "features of your own by dataclasses.replace(output, features=...)"
            )
        return context

    def _restore(self, output: EncoderOutput | Tensor) -> Tensor:
        """Return positions in the model's own layout; one alone stands in for prefix tokens too."""
        layout, features = self._context(output).layout, EncoderOutput.of(output).features
        if features.shape[1] == 1 and self._prefix_tokens:
            features = features.expand(-1, 1 + self._prefix_tokens, -1)
        positions = features.shape[1]
        return (layout if layout.positions == positions else layout.resized(positions)).restore(features)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy; weights that old-style weight or spectral normalisation computed come along as values."""
        for module in self.modules():
            for value in vars(module).values():
                if isinstance(value, Tensor) and not value.is_leaf:  # torch copies leaves only
                    memo[id(value)] = value.detach().clone()
        memo[id(self)] = twin = type(self).__new__(type(self))
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin


_NO_STAGES = (
    "network: it has no stages but its inputs; name the modules to mix at, in the order in which they run: "
    "adapt(model, ..., stages=[NAME, ...])"
)
