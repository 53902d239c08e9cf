"""A method on its way through a run that somebody else's loop leads."""

import copy
from typing import Any

import torch
from torch import Generator, Tensor, nn

from multimix.methods import MultiMix
from multimix.protocols import Losses, Method, Network, stateful

Methodical = Method | str | None
"""What the integrations take as a method: one, the name of one, or None for ``MultiMix()``."""


def as_method(method: Methodical) -> Method:
    """Return a method of the caller's own: a copy, so that one object may serve many runs.

    Raises:
        TypeError: If it is neither a method nor a name.
        ValueError: If no method has that name.
    """
    if method is None:
        return MultiMix()
    if isinstance(method, str):
        from multimix.names import method_named

        return method_named(method)
    if isinstance(method, type) or not isinstance(method, Method):
        raise TypeError(f"method must be a method such as MultiMix(), its name, or None, got {method!r}")
    return copy.deepcopy(method)


class Course:
    """A method, what it learns, and where its randomness comes from.

    A host calls :meth:`start` once it knows the device, then for each mini-batch the course itself, ``after_step`` when
    its optimiser has stepped and ``at`` when that changes how far training is.

    Attributes:
        method: The method, a copy of the one given.
        network: What it trains.
        learners: Its parts with a state, outermost first.
        generator: Source of its randomness, from :meth:`start` on.
    """

    def __init__(self, method: Methodical, network: Network) -> None:
        self.method = as_method(method)
        self.network = network
        self.learners = stateful(self.method)
        self.generator: Generator | None = None
        for part in self.learners:
            part.prepare(network)

    def start(self, seed: int, device: torch.device | str) -> None:
        """Move what is learned to a device, and draw from a new generator there."""
        for part in self.learners:
            part.to(device)
        self.generator = Generator(device).manual_seed(seed % 2**63)

    def __call__(self, inputs: Any, targets: Tensor) -> Losses:
        """Return the losses of a mini-batch."""
        return self.method(self.network, inputs, targets, generator=self.generator)

    def at(self, step: int, steps: float) -> None:
        """Tell the method how far training is; nothing where nobody knows how long it takes."""
        if 0 < steps < float("inf"):
            for part in self.learners:
                part.at(min(step / steps, 1.0))

    def after_step(self) -> None:
        """Let the method follow the network once its optimiser has stepped."""
        for part in self.learners:
            part.after_step(self.network)

    def parameters(self) -> list[nn.Parameter]:
        """Return what the method itself wants trained beside the network."""
        every = (p for part in self.learners for p in part.parameters() if p.requires_grad)
        return list({id(p): p for p in every}.values())

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs: tensors, numbers and texts only."""
        return {"learners": [dict(part.state_dict()) for part in self.learners], "generator": self.drawn()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`.

        Raises:
            ValueError: If it is another method's.
        """
        try:
            for part, saved in zip(self.learners, state["learners"], strict=True):
                part.load_state_dict(saved)
            self.draw_from(state["generator"])
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise ValueError(f"checkpoint is of another method: {' '.join(str(error).split())[:160]}") from error

    def drawn(self) -> dict[str, Any] | None:
        """Return the state of the generator, and the kind of device that it is for."""
        if self.generator is None:
            return None
        return {"device": self.generator.device.type, "state": self.generator.get_state()}

    def draw_from(self, drawn: dict[str, Any] | None) -> None:
        """Put the generator where :meth:`drawn` found it; on another kind of device it stays, as no state fits both."""
        if drawn is not None and self.generator is not None and drawn["device"] == self.generator.device.type:
            self.generator.set_state(drawn["state"].cpu())
