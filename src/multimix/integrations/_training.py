"""What the hosts share: a method by name or object, its training in another library's loop, and mixing inputs alone."""

import copy
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from multimix._declared import Count, check
from multimix._modules import evaluating
from multimix.integrations._batches import weighted
from multimix.methods import ERM, Mixup, MultiMix
from multimix.models import adapt
from multimix.names import method_named
from multimix.ops import CROSS_ENTROPY, Objective, check_objective, objective_of
from multimix.protocols import Losses, Method, Network, Stateful, stateful, submethods

MethodLike = Method | str | None
"""What the integrations take as a method: one, the name of one, or None for the default."""


def as_method(method: MethodLike, default: type = MultiMix) -> Any:
    """Return a method of the caller's own: a copy, so that one object may serve many runs."""
    if method is None:
        return default()
    if isinstance(method, str):
        return method_named(method)
    if isinstance(method, type) or not isinstance(method, Method):
        raise TypeError(f"method must be a method such as {default.__name__}(), its name, or None, got {method!r}")
    return copy.deepcopy(method)


class _AlsoLater(LambdaLR):
    """A schedule of all groups of an optimiser, those that are added later, too."""

    def get_lr(self) -> list[Any]:
        groups = self.optimizer.param_groups
        self.base_lrs += [group["lr"] for group in groups[len(self.base_lrs) :]]
        self.lr_lambdas = self.lr_lambdas[:1] * len(groups)
        return super().get_lr()


def cosine_schedule(optimizer: Optimizer, steps: float) -> LambdaLR:
    """Return a schedule that lowers the learning rate to 0 along half a cosine."""
    return _AlsoLater(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))


def adapted(model: nn.Module, objective: Objective | None, **split: Any) -> Any:
    """Return a model as a network; one that is a network already takes on an objective, unless it has another."""
    if objective is None or not isinstance(model, Network):
        return adapt(model, objective=objective, **split)
    network: Any = adapt(model, **split)
    if objective_of(network) not in (CROSS_ENTROPY, check_objective(objective)):
        raise ValueError(f"objective {objective!r} contradicts that of the network, {objective_of(network)!r}")
    network.objective = objective
    return network


@contextmanager
def trained_for(network: Any, objective: Objective) -> Iterator[None]:
    """Let a network be trained for another objective while the context lasts."""
    own = getattr(network, "objective", None)
    network.objective = objective
    try:
        yield
    finally:
        network.objective = own


class TrainingMethod:
    """A method, the network that it trains, its own state, and its generator: what a host's loop calls in turn."""

    def __init__(self, method: MethodLike, network: Network) -> None:
        self.method = as_method(method)
        self.network: Any = network
        self.learners = stateful(self.method)
        self.generator: Generator | None = None
        self._loaded: dict[str, Any] | None = None
        self._outputs = 0
        for part in self.learners:
            part.prepare(network)

    def start(self, seed: int, device: torch.device | str) -> None:
        """Move the method's state to a device, once it is known, and make a generator there, in the loaded state."""
        for part in self.learners:
            part.to(device)
        self.generator = Generator(device).manual_seed(seed % 2**63)
        loaded, self._loaded = self._loaded, None
        if loaded and loaded["device"] == self.generator.device.type:
            self.generator.set_state(loaded["state"].cpu())

    def progress(self, step: int, steps: float) -> None:
        """Tell the method how much of training is done, where the number of steps is known."""
        if 0 < steps < math.inf:
            for part in self.learners:
                part.at(min(step / steps, 1.0))

    def __call__(self, inputs: Any, targets: Tensor, weights: Tensor | None = None) -> Losses:
        """Return the losses of a mini-batch, whose examples may have weights (b,)."""
        if weights is None:
            return self.method(self.network, inputs, targets, generator=self.generator)
        if not self._outputs:
            view = inputs[0] if isinstance(inputs, (tuple, list)) else inputs
            with evaluating(self.network), torch.no_grad():
                self._outputs = self.network(view).shape[-1]
        objective, rows = weighted(objective_of(self.network), targets, weights, self._outputs)
        with trained_for(self.network, objective):
            return self.method(self.network, inputs, rows, generator=self.generator)

    def after_step(self) -> None:
        """Let the method follow the network once the optimiser has stepped."""
        for part in self.learners:
            part.after_step(self.network)

    def parameters(self) -> list[nn.Parameter]:
        """Return the method's own parameters, to be trained beside the network's."""
        return list(dict.fromkeys(p for part in self.learners for p in part.parameters() if p.requires_grad))

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds: tensors, numbers and texts only."""
        drawn = self.generator and {"device": self.generator.device.type, "state": self.generator.get_state()}
        learned = [dict(part.state_dict()) for part in self.learners]
        return {"method": _named(self.method), "learners": learned, "generator": drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what a checkpoint holds; the generator's state counts from the next :meth:`start` on.

        Raises:
            ValueError: If it is of another method, and either of the two learns; of others a warning says so.
        """
        own = _named(self.method)
        saved = state.get("method", own)  # which older checkpoints do not name
        if saved != own and (self.learners or state["learners"]):
            raise ValueError(f"checkpoint is of another method: of {saved}, not of {own}")
        if saved != own:
            warnings.warn(f"the checkpoint is of {saved}, and training goes on with {own}", stacklevel=2)
        try:
            for part, learned in zip(self.learners, state["learners"], strict=True):
                part.load_state_dict(learned)
            self._loaded = state["generator"]
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise ValueError(f"checkpoint is of another method: {' '.join(str(error).split())[:160]}") from error


def _named(method: Method) -> str:
    """Return the name of a method with those inside it."""
    return " of ".join(type(part).__name__ for part in submethods(method))


class InputMixer:
    """A method that mixes inputs, or an ``Alternate`` of such, for hosts that compute the loss themselves."""

    def __init__(
        self,
        method: MethodLike,
        num_classes: int | None,
        *,
        objective: Objective | None = None,
        seed: int | None = None,
        network: Network | None = None,
    ) -> None:
        self.method = as_method(method, Mixup)
        for part in submethods(self.method):
            if isinstance(part, Stateful) and type(part).at is not Stateful.at:
                raise TypeError(
                    f"method must do without knowing how far training is, got {type(part).__name__}, which nobody"
                    " tells that here; call the method itself in place of the loss, and its at() before each step"
                )
            if not (getattr(part, "mixes_inputs", False) or hasattr(part, "choose")):
                raise TypeError(
                    f"method must mix inputs, such as Mixup() or CutMix(), got {type(part).__name__}, whose loss needs"
                    " the network; call the method itself in place of the loss"
                )
            if getattr(part, "trains_modules", False) and not getattr(part, "mixes", False):
                raise ValueError(
                    f"method must have been trained, got a new {type(part).__name__}, whose own module nothing trains"
                    " here; call the method itself in place of the loss"
                )
            if getattr(part, "needs_network", False) and network is None:
                raise ValueError(f"network must be given: {type(part).__name__} mixes by what it makes of the inputs")
        check(Count | None, num_classes=num_classes)
        check(int | None, seed=seed)
        self.objective = _form_of_targets(objective)
        self.num_classes, self.seed, self.network = num_classes, seed, network
        self._generators: dict[tuple[int, torch.device], Generator] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave generators behind, which cannot be pickled and would be the same in every worker."""
        return {**self.__dict__, "_generators": {}}

    def __call__(self, inputs: Tensor, targets: Any, *, share: float = 1.0, **others: Any) -> tuple[Tensor, Any]:
        """Return mixed inputs and targets (b, k), with probability ``share``, by options of ``mix``; else unmixed."""
        generator = self.generator(inputs.device)
        mixes = share >= 1 or bool(torch.rand((), generator=generator, device=inputs.device) < share)
        method = self.method if mixes else ERM()
        while hasattr(method, "choose"):
            method = method.choose(generator)
        options = {"num_classes": self.num_classes, "network": self.network, "generator": generator, **others}
        if self.objective is not None:
            options["objective"] = self.objective
        if inputs.dtype != torch.uint8:
            return method.mix(inputs, targets, **options)
        if blending := [part for part in submethods(self.method) if not (_pastes(part) or hasattr(part, "choose"))]:
            name = type(blending[0]).__name__
            raise TypeError(f"inputs must be floating-point for {name}, got torch.uint8: only what pastes takes bytes")
        mixed, rows = method.mix(inputs.float(), targets, **options)
        return mixed.to(torch.uint8), rows

    def generator(self, device: torch.device) -> Generator:
        """Return the source of randomness on a device, in this process; torch's own is asked for its seed only."""
        worker = torch.utils.data.get_worker_info()
        own = worker.seed if worker else -1  # differs between workers, and between epochs unless they are kept
        if (own, device) not in self._generators:
            seed = (self.seed or 0) + own if worker else torch.initial_seed() if self.seed is None else self.seed
            self._generators[own, device] = Generator(device).manual_seed(seed % 2**63)
        return self._generators[own, device]


def _pastes(method: Method) -> bool:
    """Return whether every pixel that a method makes is one of a given image, and has its value."""
    return getattr(method, "pastes", False) and getattr(method, "interpolation", "nearest") == "nearest"


def _form_of_targets(objective: Objective | None) -> Objective | None:
    """Return an objective that says what targets are, and nothing of a loss that is somebody else's."""
    settings = vars(objective) if objective is not None and is_dataclass(check_objective(objective)) else {}
    for name in ("class_weights", "positive_weights", "label_smoothing"):
        if settings.get(name):
            raise ValueError(
                f"objective must say what targets are only, got {objective!r}: {name} is for the loss that is given"
                " the mixed targets"
            )
    if "objective" in settings:  # of SampleWeighted
        _form_of_targets(settings["objective"])
    return objective
