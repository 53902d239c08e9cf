"""What the parts of MultiMix know of each other.

Axis letters, used in every shape string and nowhere else with another meaning:

====  =============================================
b     examples of a mini-batch
n     interpolated tuples
m     examples that enter one tuple
r     positions (of a feature map or a token sequence)
d     size of an embedding
k     classes
c h w channels, height and width of an image
====  =============================================
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Protocol, TypeVar, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn
from typing_extensions import Self, TypedDict

from multimix._declared import shown

_T = TypeVar("_T")


@dataclass(frozen=True)
class EncoderOutput:
    """What a network embeds a mini-batch as."""

    features: Float[Tensor, "b r d"]
    """The embeddings at every position, before pooling."""
    mask: Bool[Tensor, "b r"] | None = None
    """Which positions each example has; None where all have all."""
    grid: tuple[int, ...] | None = None
    """Height and width of the positions; (length,) of a sequence, () of a vector; None if unknown."""
    context: Any = None
    """What else the network's ``pool`` has to know."""

    @classmethod
    def of(cls, output: "EncoderOutput | Tensor") -> "EncoderOutput":
        """Return an output as it is, and plain features (b, r, d) as one without mask, grid and context."""
        return output if isinstance(output, cls) else cls(cast("Tensor", output))

    def each_position(self) -> "EncoderOutput":
        """Return every position as an example of one position: features (b * r, 1, d), without a mask."""
        return EncoderOutput(self.features.flatten(0, 1).unsqueeze(1), context=self.context)


@runtime_checkable
class Network(Protocol):
    """What a method may ask of a model: ``classify(pool(embed(inputs)))`` is its forward pass.

    Attributes:
        head: The affine layer behind ``classify``, or None where ``classify`` is anything but affine.
        stages: Where ``mixing_at`` can interpolate: 0 is the input, the last one the deepest.

    A network may also have ``objective``, what it is trained for (:class:`multimix.ops.Objective`, else cross-entropy);
    ``gather``, how tuples take in the examples of other processes (:class:`multimix.ops.Gather`, or None); ``missing``,
    why there are no ``positions`` or no ``stages`` to mix, or no class token's ``attention``; and, of images that are
    cut into patches, ``attention_of(images, by)``, which returns what ``embed`` gives, an ``EncoderOutput`` whose last
    positions are the patches, and how much attention the last block pays to each of them, (b, rows, columns) without a
    gradient: that of the class token (``by="class"``) or the mean over the patches' (``"patches"``).

    The inputs are a tensor, or what else the network takes: a mapping of tensors, a packed sequence. A network whose
    positions need no mask and no grid may ``embed`` as a plain tensor (b, r, d); its ``pool`` then gets plain tensors,
    too.
    """

    head: nn.Module | None
    stages: range

    def __call__(self, inputs: Tensor) -> Float[Tensor, "b k"]:
        """Return the logits of a batch of inputs."""
        ...

    def embed(self, inputs: Tensor) -> EncoderOutput | Float[Tensor, "b r d"]:
        """Return the embeddings at every position, before pooling."""
        ...

    def pool(self, output: Any) -> Float[Tensor, "b e"]:
        """Return one embedding an example of what ``embed`` gives; of a single position (r = 1), that position's."""
        ...

    def classify(self, embeddings: Float[Tensor, "*any d"]) -> Float[Tensor, "*any k"]:
        """Return the logits of embeddings."""
        ...

    def mixing_at(self, stage: int, mix: Callable[[Tensor], Tensor]) -> AbstractContextManager[None]:
        """Apply ``mix`` to the tensor that leaves ``stage`` while the context lasts."""
        ...


@dataclass(frozen=True)
class Losses:
    """What one training step minimises, and the parts it is made of."""

    total: Float[Tensor, ""]
    """The scalar to call ``backward`` on."""
    terms: dict[str, Tensor] = field(default_factory=dict)
    """Named scalars for the log, detached and before weighting."""


@dataclass(frozen=True)
class Teacher:
    """A second network whose predictions a method takes as soft targets."""

    network: Network
    """The teacher, which never receives a gradient."""
    inputs: Tensor
    """The teacher's own view of the mini-batch."""
    gamma: float
    """Weight of the labels; the teacher's predictions weigh ``1 - gamma``."""


class StepOptions(TypedDict, total=False):
    """What a method may be given beside network, inputs and targets."""

    generator: Generator | None
    teacher: Teacher | None


@runtime_checkable
class Method(Protocol):
    """One training step's losses from one mini-batch; all randomness comes from ``generator``.

    Further attributes say what a method does and needs. They are looked at where it has them (:func:`declares`):

    ===================  ==============================================================================
    ``mixes``            it mixes something; of one that mixes by a module of its own, once that is there
    ``mixes_inputs``     it has ``mix``, which returns mixed inputs and targets for somebody else's loss
    ``needs_network``    its ``mix`` depends on the network
    ``needs_images``     it refuses inputs that are no images (b, c, h, w)
    ``needs_stages``     it mixes inside the network, by hooks at its stages
    ``needs_positions``  it mixes embeddings at every position
    ``needs_attention``  it asks a vision transformer where it looks, by the network's ``attention_of``
    ``needs_gradients``  it takes gradients of its own in a step
    ``trains_modules``   it trains modules of its own, and not all of them in every step
    ``views``            how many views of a mini-batch it takes, 1 if not said
    ===================  ==============================================================================
    """

    name: ClassVar[str]
    """What command line and tables call it."""

    def __call__(
        self,
        network: Network,
        inputs: Any,
        targets: Tensor,
        *,
        generator: Generator | None = None,
        teacher: Teacher | None = None,
    ) -> Losses:
        """Return the losses; ``inputs`` and ``targets`` are left as they were."""
        ...


class Monitor:
    """Hears from a suite how far it is, and the data of its figures; this one does nothing with them."""

    def track(self, what: str, batches: Iterable[_T]) -> Iterator[_T]:
        """Yield ``batches``, a pass over data that is called ``what``; a subclass shows how far it is."""
        yield from batches

    def record(self, name: str, data: dict[str, Any]) -> None:
        """Take the data of a figure: lists of numbers and texts by name, ready for JSON."""


SILENT = Monitor()
"""The monitor of suites that are given none."""


@dataclass(frozen=True)
class _Partner:
    """The network that a method has learned with, which a deep copy of the method knows, too, and a pickle does not."""

    network: Callable[[], object]
    copied: bool = False

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Partner":
        twin = memo.get(id(self.network()))
        return _Partner(self.network, copied=True) if twin is None else _Partner(weakref.ref(twin))

    def __reduce__(self) -> Any:
        return type(None), ()


class Stateful(nn.Module):
    """Base of the methods that learn, or that know how far training is: ``dataclass(eq=False)`` of their settings.

    The training loop calls the three hooks below; a hand-written loop may do without them where the subclass says so.
    A loop that calls them may set ``led`` before its first step.

    What is learned belongs to one network. A subclass that builds something for it calls ``meet(network, anew=True)``
    first in its ``prepare``, ``met(network)`` last, and ``ready(network)`` in every step.
    """

    led: bool = False
    """Whether the training loop is known to call ``after_step``."""
    _partner: _Partner | None = None

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Set the module up before the dataclass assigns its fields."""
        self = super().__new__(cls)
        nn.Module.__init__(self)
        return self

    def prepare(self, network: Network) -> None:
        """Build what depends on the network, before the first step or before a checkpoint is loaded.

        What is there already stays, unless it was learned with another network. Methods inside are prepared alike.
        """
        for part in stateful(cast("Method", self))[1:]:
            part.prepare(network)

    def meet(self, network: Network, *, anew: bool = False) -> None:
        """Raise ValueError if another network was learned with, or forget what was learned, if this is to begin anew.

        A deep copy may go on with another network, a copy of the first one, and what was unpickled with any.
        """
        known = self._partner
        if known is None or known.network() is network:
            return
        if anew:
            self.led = False
            cast("Any", self).__post_init__()
        elif not known.copied:
            raise ValueError(
                f"network must be the one that this {type(self).__name__} has learned with, got another"
                f" {type(network).__name__}: method.prepare(network) begins anew, method.pair(network) goes on with it"
            )

    def met(self, network: Network) -> None:
        """Remember with which network is learned from now on."""
        self._partner = _Partner(weakref.ref(network))

    def pair(self, network: Network) -> None:
        """Go on with another network, a copy of the first one, say; the methods inside do, too."""
        for part in stateful(cast("Method", self)):
            part.met(network)

    def ready(self, network: Network) -> None:
        """Prepare for a step with a network and follow it to its device; raise ValueError if it is another's turn."""
        self.meet(network)
        self._partner = None  # a copy that may go on has nothing to forget
        self.prepare(network)
        if isinstance(network, nn.Module):
            home, own = (next(module.parameters(), None) for module in (network, self))
            if home is not None and own is not None and own.device != home.device:
                self.to(home.device)

    def after_step(self, network: Network) -> None:
        """Follow the network once its optimiser has stepped."""

    def at(self, progress: float) -> None:
        """Hear how much of training is done, from 0 to 1."""


_COMPILED = "OptimizedModule"
_INSTEAD = {
    **dict.fromkeys(
        ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel"),
        "wrap a module of your own that holds net and calls the method on it in its forward pass",
    ),
    "AveragedModel": "give the network inside it, averaged.module",
    _COMPILED: "give net as it is and compile its encoder: net.embed = torch.compile(net.embed)",
}
"""What to write in place of a wrapper around a network, by the wrapper's name."""


def check_network(network: object, *also: str, called: bool = False) -> None:
    """Raise TypeError unless a method can take ``network``: an instance of :class:`Network`, and no wrapper around one.

    Args:
        network: What a method was called with.
        also: Parts that not every method asks for.
        called: The method asks for the forward pass only, which may be compiled.
    """
    if torch.compiler.is_compiling():
        return
    cls = network if isinstance(network, type) else type(network)
    wrapper = next((base.__name__ for base in cls.__mro__ if base.__name__ in _INSTEAD), None)
    instead = "" if wrapper is None or (called and wrapper == _COMPILED) else f"; {_INSTEAD[wrapper]}"
    lacking = [part for part in ("embed", "pool", "classify", "head", *also) if not hasattr(network, part)]
    if cls is network:
        got = f"the class {cls.__name__}{instead}"
    elif lacking or instead:
        got = f"{cls.__name__}{instead or ', which has no ' + ', '.join(lacking)}"
    else:
        return
    raise TypeError(f"network must be an adapted network, net = mm.adapt(model), got {got}")


_PLAIN = "plain tensor"
"""The context of an output of a network whose ``embed`` and ``pool`` know tensors only."""


def encode(network: Network, inputs: Any) -> EncoderOutput:
    """Return what a network embeds inputs as, also of one that embeds as a plain tensor."""
    output = network.embed(inputs)
    return output if isinstance(output, EncoderOutput) else EncoderOutput(output, context=_PLAIN)


def pool(network: Network, output: EncoderOutput) -> Float[Tensor, "b *r e"]:
    """Return what a network pools an output of :func:`encode` to, whatever became of its features since."""
    return network.pool(output.features if output.context == _PLAIN else output)


def check_method(name: str, method: object) -> None:
    """Raise TypeError unless ``method``, the argument of this name, is an instance of a method."""
    no_method = isinstance(method, nn.Module) and not hasattr(type(method), "name")  # a network, for one
    if isinstance(method, type) or not callable(method) or no_method:
        raise TypeError(f"{name} must be a method such as MultiMix(), got {shown(method)}")


def require_part(network: object, part: str) -> None:
    """Raise ValueError with ``missing[part]`` if a network has no ``positions``, no ``stages`` or no ``attention``."""
    if why := getattr(network, "missing", {}).get(part):
        raise ValueError(why)


def submethods(method: Method, *, _around: tuple[Method, ...] = ()) -> Iterator[Method]:
    """Yield a method and every method inside it, outermost first.

    They are looked for in the fields of a dataclass, in the attributes of any other object, and in the tuples, lists
    and dictionaries there.
    """
    yield method
    around = (*_around, method)
    names = [f.name for f in fields(method)] if is_dataclass(method) else getattr(method, "__dict__", {})
    for value in [getattr(method, name) for name in names]:
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else (value,)
        for item in inside:
            if _is_inner(item) and all(item is not outer for outer in around):
                yield from submethods(item, _around=around)


def _is_inner(item: object) -> bool:
    """Whether this is a method; a network that has a name of its own is none."""
    return isinstance(item, Method) and hasattr(type(item), "name") and not isinstance(item, type)


def declares(method: Method, name: str) -> bool:
    """Return whether a method, or one inside it, has an attribute of this name that is true."""
    return any(getattr(inner, name, False) for inner in submethods(method))


def stateful(method: Method) -> list[Stateful]:
    """Return those of a method and the methods inside it that are stateful, outermost first, each of them once."""
    return list(dict.fromkeys(inner for inner in submethods(method) if isinstance(inner, Stateful)))
