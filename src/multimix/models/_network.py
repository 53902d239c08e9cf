"""The split forward pass that every network here has, mixing at a stage, and a model seen as such a network."""

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from typing_extensions import Self

from multimix._modules import evaluating, leaves_of
from multimix.models._attention import grid_of, watching
from multimix.models._modules import axes_of, in_checkpoint, is_affine, replaced, require_hooks, uncompiled
from multimix.models._values import Layout, innermost, keywords, mask_of_lengths, padded, with_innermost
from multimix.ops import CROSS_ENTROPY, Gather, Objective
from multimix.protocols import EncoderOutput, require_part


class StagedNetwork(nn.Module):
    """Base of the networks: ``classify(pool(embed(inputs)))``, with stages that can be mixed at.

    Stage 0 is an identity that ``embed`` passes its inputs through, so that every stage is a module, and mixing a hook.

    Attributes:
        head: The affine layer behind ``classify``, or None where ``classify`` is anything but affine.
        stages: 0 for the inputs, then one for each stage module.
        gather: How tuples take in the examples of the other processes of data-parallel training; None if they do not.
        mixes: Whether ``mixing_at`` mixes, which is off while a network is checked.
    """

    head: nn.Module | None
    stages: range
    gather: Gather | None = None
    _mixes_in_tuples = False  # whether stages may leave tuples, whose first value is mixed

    def __init__(self, stages: Sequence[str]):
        """Name the stage modules, in the order in which they run."""
        super().__init__()
        self.inputs = nn.Identity()
        self.stages = range(1 + len(stages))
        self._stage_names = ("inputs", *stages)
        self.mixes = True

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
        name, ran = self._stage_names[stage], False
        trains = torch.is_grad_enabled()  # out here: re-entrant checkpoints switch gradients off inside

        def hook(module: nn.Module, arguments: object, output: Any) -> Any:
            nonlocal ran
            if not self.mixes:
                return output
            if trains and not torch.compiler.is_compiling() and in_checkpoint():
                raise RuntimeError(
                    f"stage {stage} ({name}) runs inside torch.utils.checkpoint, which would run it again without "
                    "mixing; switch checkpointing off, or mix at a stage that is not inside (0, the inputs)"
                )
            tensor = innermost(output) if self._mixes_in_tuples else output
            if not isinstance(tensor, Tensor):
                raise TypeError(f"stage {stage} ({name}) must leave a tensor to be mixed, got {type(tensor).__name__}")
            ran = True
            return with_innermost(output, mix(tensor))

        module = self.get_submodule(name)
        require_hooks(module)
        if torch.compiler.is_compiling():  # a hook would break the graph
            own = module.forward
            with replaced(module, lambda *given, **named: hook(module, given, own(*given, **named))):
                yield
        else:
            with module.register_forward_hook(hook):
                yield
        if not ran:
            raise RuntimeError(f"stage {stage} ({name}) did not run as a module; was the model compiled?")


@dataclass(frozen=True)
class Context:
    """What pooling has to know of a mini-batch: its features' layout, and what the model's family keeps of it."""

    layout: Layout
    seen: Any = None


class AdaptedNetwork(StagedNetwork):
    """A model split into embedding, pooling and classifying; the model's parameters are shared, not copied."""

    model: Any
    encoder_name: str | None = None  # of the module whose output is embedded, where the user named one
    runs_to_head = False  # whether all that comes before the head is the model's own forward pass
    pools_by_mean = False  # whether the user named an encoder, and nothing to be done between it and the head

    def __init__(
        self, model: nn.Module, *, head: str, stages: Sequence[str], width: int | None = None, prefix_tokens: int = 0
    ):
        super().__init__([f"model.{name}" for name in stages])
        self.model = model
        self.head_name = head
        self.objective: Objective = CROSS_ENTROPY
        self.dense = False  # whether there are logits at every position, instead of pooling
        # What compares the next batch with the model, and returns what is left to compare; None once that is done.
        self.check: Callable[[AdaptedNetwork, Any], Any] | None = None
        self._width = width
        self._prefix_tokens = prefix_tokens
        self._reads_class_token: bool | None = None  # found out when attention is first asked for

    @property
    def head(self) -> nn.Module | None:  # type: ignore[override]  # looked up by name, so that copies have their own
        """The affine layer behind ``classify``, or None where it is anything else."""
        head = uncompiled(self.head_module)
        return head if is_affine(head) else None

    @property
    def head_module(self) -> nn.Module:
        """The module that gives the logits, affine or not."""
        return self.model.get_submodule(self.head_name)

    @property
    def missing(self) -> dict[str, str]:
        """What there is not, ``positions`` or ``stages`` to mix or ``attention`` to ask for, and how to have it."""
        return self._missing()

    def _missing(self) -> dict[str, str]:
        advice = "name the modules to mix at, in the order in which they run: adapt(model, ..., stages=[NAME, ...])"
        found = {} if len(self.stages) > 1 else {"stages": f"network: it has no stages but its inputs; {advice}"}
        if not self._tokens_in_front() or self._reads_class_token is False:
            found["attention"] = (
                f"network: {type(self.model).__name__} has no class token that its head reads, whose attention says "
                "where it looks; take a vision transformer of timm or transformers that has one, by adapt(model)"
            )
        return found

    def _tokens_in_front(self) -> int:
        """Return how many tokens stand before those of the patches, the class token first."""
        return self._prefix_tokens

    def attention_of(
        self, images: Float[Tensor, "b c h w"], by: Literal["class", "patches"] = "class"
    ) -> tuple[EncoderOutput, Float[Tensor, "b rows columns"]]:
        """Return what ``embed`` gives, and how much attention its last block pays to each patch, without a gradient.

        The patches are the last positions of the features, row by row. Nothing is computed anew but the rows of the
        attention that are asked for, of the queries and keys that the model computes.

        Args:
            images: What to embed.
            by: Whose attention, the mean over all heads: that of the class token, or the mean over the patches', which
                is the class token's where it alone asks in the last block.

        Raises:
            ValueError: If the head reads no class token, or the last attention is not one over all positions.
        """
        if by == "class":
            require_part(self, "attention")
        if not torch.compiler.is_compiling():
            self.run_check(images)  # whose passes are not to be watched
        with watching(self._last_stage()) as watch:
            output = self.embed(images)
        if by == "class" and self._reads_class_token is None:
            self._reads_class_token = self._pools_first(output)
            require_part(self, "attention")
        b, r, _ = output.features.shape
        front = self._tokens_in_front()
        rows = watch.rows(slice(0, 1) if by == "class" else slice(None))
        grid = grid_of(r - front, *images.shape[-2:])
        if rows is None or grid is None or (len(rows), rows.shape[-1]) != (b, r) or rows.shape[2] not in (1, r):
            raise ValueError(
                f"network: {type(self.model).__name__} ends in no attention over all of its {r} positions, {front} in"
                f" front of the patches of an image of {tuple(images.shape[-2:])}, row by row"
            )
        asked = rows if rows.shape[2] == 1 else rows[:, :, front:]
        return output, asked[..., front:].mean((1, 2)).unflatten(1, grid)

    def _last_stage(self) -> nn.Module | None:
        """Return the module of the last stage; None if there is none, or something around it is compiled."""
        if len(self.stages) == 1 or hasattr(self.embed, "_torchdynamo_orig_callable"):
            return None
        module: nn.Module = self
        for name in self._stage_names[-1].split("."):
            if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
                return None
            module = getattr(module, name)
        return module

    @torch.no_grad()
    def _pools_first(self, output: EncoderOutput) -> bool:
        """Whether what enters the head depends on the first position."""
        features = output.features.clone()
        features[:, 0] += 1
        with evaluating(self):
            return not torch.equal(self.pool(replace(output, features=features)), self.pool(output))

    def embed(self, inputs: Any) -> EncoderOutput:
        """Return the encoder's output, a row for each position or token (prefix tokens, too), one row for a vector."""
        if not (torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack()):
            self.run_check(inputs)
        encoded, seen = self._encode(self.inputs(inputs))
        raw, mask = padded(encoded)
        layout = Layout.of(raw, self._width_of(raw))
        features = layout.flatten(raw)
        given = self._mask_of(inputs, features)
        return EncoderOutput(features, mask if given is None else given, layout.grid, Context(layout, seen))

    def classify(self, embeddings: Float[Tensor, "*any d"]) -> Float[Tensor, "*any k"]:
        """Return the head's output; one that is not linear sees (rows, d), a convolution (rows, d, 1, 1)."""
        module = self.head_module
        if isinstance(module, nn.Linear):
            return module(embeddings)
        rows = embeddings.reshape(-1, embeddings.shape[-1])
        plain = uncompiled(module)
        axes = axes_of(plain)
        if axes and embeddings.ndim > 2 and is_affine(plain):  # all rows as positions of one map, which is far faster
            logits = module(rows.T.reshape(1, -1, len(rows), *[1] * (axes - 1))).flatten(2).squeeze(0).T
        else:
            logits = module(rows[(..., *[None] * axes)]).flatten(1)
        return logits.reshape(*embeddings.shape[:-1], logits.shape[-1])

    def run(self, inputs: Any) -> Any:
        """Return what the model itself makes of the inputs; a mapping's items are keyword arguments, without labels."""
        return self.model(**keywords(inputs)) if isinstance(inputs, Mapping) else self.model(inputs)

    def run_check(self, inputs: Any) -> None:
        """Compare a batch with the model, as long as that is to be done; an error leaves it to be done."""
        check, self.check = self.check, None  # it embeds, too
        try:
            self.check = check(self, inputs) if check else None
        except BaseException:
            self.check = check
            raise

    def first_batch(self, inputs: Any) -> None:
        """Raise if the model takes no inputs like those of the first batch."""
        if isinstance(inputs, Mapping):
            raise TypeError(
                f"inputs must be a tensor for {type(self.model).__name__}, got a mapping of {', '.join(inputs)}"
            )

    @abstractmethod
    def _encode(self, inputs: Any) -> tuple[Tensor | PackedSequence, Any]:
        """Return the encoder's output in the model's own layout, and what else pooling has to know of the batch."""

    def _width_of(self, raw: Tensor) -> int | None:
        return self._width

    def _mask_of(self, inputs: Any, features: Float[Tensor, "b r d"]) -> Tensor | None:
        return mask_of_lengths(inputs, features.shape[1])

    def _context(self, output: EncoderOutput | Tensor) -> Context:
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
        return layout.restore(features)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy; weights that old-style weight or spectral normalisation computed come along as values."""
        memo.update(leaves_of(self))
        memo[id(self)] = twin = type(self).__new__(type(self))
        twin.__setstate__(copy.deepcopy(self.__dict__, memo))
        return twin
