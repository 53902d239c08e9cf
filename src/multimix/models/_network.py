"""What every network here shares: the split forward pass, and mixing at a stage."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multimix.models._replay import in_checkpoint, require_hooks
from multimix.ops import Gather
from multimix.protocols import EncoderOutput


class StagedNetwork(nn.Module):
    """Base of the networks: ``classify(pool(embed(inputs)))``, with stages that can be mixed at.

    Stage 0 is an identity that ``embed`` passes its inputs through, so that every stage is a module, and mixing a hook.

    Attributes:
        head: The affine layer behind ``classify``, or None where ``classify`` is anything but affine.
        stages: 0 for the inputs, then one for each stage module.
        gather: How tuples take in the examples of the other processes of data-parallel training; None if they do not.
    """

    head: nn.Module | None
    stages: range
    gather: Gather | None = None

    def __init__(self, stages: Sequence[str]):
        """Name the stage modules, in the order in which they run."""
        super().__init__()
        self.inputs = nn.Identity()
        self.stages = range(1 + len(stages))
        self._stage_names = ("inputs", *stages)
        self._may_mix = True

    def forward(self, inputs: Any) -> Float[Tensor, "b *r k"]:
        """Return the logits of a batch of inputs."""
        return self.classify(self.pool(self.embed(inputs)))

    @abstractmethod
    def embed(self, inputs: Any) -> EncoderOutput:
        """Return the embeddings at every position, before pooling."""

    @abstractmethod
    def pool(self, output: EncoderOutput | Tensor) -> Float[Tensor, "b *r e"]:
        """Return one embedding an example of an output of ``embed``, or of features (b, r, d) alone.

        Of a single position (r = 1), it is that position's own.
        """

    @abstractmethod
    def classify(self, embeddings: Float[Tensor, "*any d"]) -> Float[Tensor, "*any k"]:
        """Return the logits of embeddings."""

    @contextmanager
    def mixing_at(self, stage: int, mix: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Apply ``mix`` to the tensor that leaves ``stage`` while the context lasts.

        Raises:
            ValueError: If the network has no such stage.
            TypeError: While running, if what leaves the stage is not a tensor.
            RuntimeError: If the stage is inside a checkpoint; at the end, if the stage never ran: it is not called as a
                module, or the network is compiled.
        """
        if stage not in self.stages:
            raise ValueError(f"stage must be one of {list(self.stages)}, got {stage!r}")
        name = self._stage_names[stage]
        ran = False
        trains = torch.is_grad_enabled()  # out here: re-entrant checkpoints switch gradients off inside

        def hook(module: nn.Module, arguments: object, output: object) -> Tensor | None:
            nonlocal ran
            if not self._may_mix:
                return None
            if trains and in_checkpoint():
                raise RuntimeError(
                    f"stage {stage} ({name}) runs inside torch.utils.checkpoint, which would run it again without "
                    "mixing; switch checkpointing off, or mix at a stage that is not inside (0, the inputs)"
                )
            if not isinstance(output, Tensor):
                raise TypeError(f"stage {stage} ({name}) must leave a tensor to be mixed, got {type(output).__name__}")
            ran = True
            return mix(output)

        module = self.get_submodule(name)
        require_hooks(module)
        handle = module.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()
        if not ran:
            raise RuntimeError(
                f"stage {stage} ({name}) did not run as a module, so nothing was mixed; was the model compiled?"
            )
