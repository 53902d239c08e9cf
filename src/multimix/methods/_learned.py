"""What the methods share that learn modules of their own beside the network."""

import warnings
from collections.abc import Callable
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from multimix._declared import Checked
from multimix._modules import as_module, fingerprint
from multimix.methods._predict import Predicts
from multimix.protocols import Network, Stateful

Module = TypeVar("Module", bound=nn.Module)


class LearnsBeside(Stateful, Checked, Predicts):
    """Base of the methods whose own parameters somebody has to train."""

    trains_modules: ClassVar[bool] = True

    _before: tuple[Tensor, list[Tensor]] | None
    """The network's fingerprint and the method's own parameters at the last look."""
    _idle: int
    _settled: bool

    forward = Predicts.__call__

    def __post_init__(self) -> None:
        super().__post_init__()
        self._before, self._idle, self._settled = None, 0, False

    @property
    def mixes(self) -> bool:  # type: ignore[override]
        """Whether there are modules: untrained ones mix nothing of use."""
        return next(self.children(), None) is not None

    def build(self, network: Network, make: Callable[[], Module]) -> Module:
        """Return a new module where the network is and in its precision; torch's global random state stays as it is."""
        like = next(as_module(network, type(self).__name__).parameters())
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return make().to(like.device, like.dtype)

    def look_for_an_optimiser(self, network: Network) -> None:
        """Warn once if the network is trained and what is learned beside it is not; a loop that has led is trusted."""
        module = as_module(network, type(self).__name__)
        if not torch.is_grad_enabled() or self._settled or self.led or torch.compiler.is_compiling():
            return
        own = [p.detach().clone() for p in self.parameters() if p.requires_grad]
        if not own:
            return
        before, self._before = self._before, (fingerprint(module), own)
        if before is None:
            return
        if len(before[1]) == len(own) and all(map(_same, before[1], own)):
            self._idle += not _same(before[0], self._before[0])
            if self._idle < 5:  # steps of the network's optimiser: some loops accumulate gradients
                return
            name = type(self).__name__
            warnings.warn(
                f"{name} learns nothing: an optimiser moves the network and not what {name} trains beside it; write"
                " method.prepare(network) and then"
                " torch.optim.SGD([*network.parameters(), *method.parameters()], lr=...)",
                stacklevel=2,
            )
        self._before, self._settled = None, True


def _same(before: Tensor, now: Tensor) -> bool:
    return before.shape == now.shape and before.device == now.device and torch.equal(before, now)
