"""Steps in torch.compile against the same steps as they are: time, and into how many graphs each is broken."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn

from multimix.distill import SelfDistilled
from multimix.lab.bench.timing import Case, Comparison
from multimix.methods import METHODS, DenseMultiMix, MultiMix
from multimix.models import build
from multimix.protocols import Method, Network, stateful

_B, _PX, _CLASSES, _WIDTH = 128, 32, 100, 16
_WARM_UP = 12
"""Steps after which whatever a draw may lead to has been compiled, the stages of manifold mixup among them."""


def compile_comparisons(device: torch.device) -> list[Callable[[], Comparison]]:
    """Return one comparison a method, and the two forms of MultiMix distilled: forward and backward pass, no data.

    Methods that need a vision transformer are left out.
    """
    plain = [cls() for cls in METHODS if not getattr(cls, "needs_attention", False)]
    methods: list[Method] = [*plain, SelfDistilled(MultiMix()), SelfDistilled(DenseMultiMix())]
    return [partial(_comparison, method, device) for method in methods]


def _comparison(method: Method, device: torch.device) -> Comparison:
    graphs: list[nn.Module] = []

    def count(graph: nn.Module, _: list[Tensor]) -> nn.Module:
        graphs.append(graph)
        return graph

    torch.compiler.reset()
    _warm(step_of(method, device, partial(torch.compile, backend=count)))
    inner = getattr(method, "method", None)
    name = method.name if inner is None else f"{method.name} {inner.name}"
    shape = {"model": "preact_resnet18", "width": _WIDTH, "b": _B, "px": _PX, "k": _CLASSES, "graphs": len(graphs)}
    compiled = Case("compiled", _warm(step_of(method, device, partial(torch.compile, dynamic=False))))
    return Comparison(f"step, {name}", shape, Case("as it is", step_of(method, device)), (compiled,))


def _warm(step: Callable[[], object]) -> Callable[[], object]:
    for _ in range(_WARM_UP):
        step()
    return step


def step_of(method: Method, device: torch.device, wrap: Callable[..., Any] | None = None) -> Callable[[], object]:
    """Return a call that takes the gradient of a method's loss, from a generator, compiled as ``wrap`` does it."""
    network = build("preact_resnet18", num_classes=_CLASSES, in_channels=3, width=_WIDTH, image_size=_PX)
    module, own, generator = cast("nn.Module", network).to(device).train(), copy.deepcopy(method), Generator(device)
    images = torch.randn(_B, 3, _PX, _PX, generator=generator, device=device)
    labels = torch.randint(_CLASSES, (_B,), generator=generator, device=device)
    for part in stateful(own):
        part.prepare(cast("Network", network))
        part.led = True
        part.to(device)

    def loss() -> Tensor:
        return own(cast("Network", network), images, labels, generator=generator).total

    forward = loss if wrap is None else wrap(loss)

    def call() -> None:
        module.zero_grad()
        forward().backward()

    return call
