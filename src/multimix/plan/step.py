"""A whole training step: its time, memory and traffic."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from multimix.plan.forms import Form, forms
from multimix.plan.network import NetworkCount, Subject, count_network
from multimix.plan.rates import Rates
from multimix.plan.traffic import Traffic, step_traffic
from multimix.plan.tuples import TupleProblem, tuple_works
from multimix.plan.work import Work
from multimix.protocols import Method

_FLOAT = 4
_LOSS_PASSES = 6
"""Of plain cross-entropy, forward and backward, over (b, k)."""
_MIX_PASSES = 4
"""Of mixing pairs, over the images: two read and added up, one reordered."""


@dataclass(frozen=True)
class Setup:
    """A training step on one of several devices."""

    subject: Subject
    """Its batch is that of one device."""
    method: Method
    devices: int = 1
    device: str = "cpu"
    """cpu or cuda, which compute the loss in chunks of different size."""
    half: bool = False
    """The network is in half precision: activations take half the bytes; weights, gradients and losses do not."""
    sync_batchnorm: bool = False
    fsdp: bool = False
    """Weights, gradients and the optimiser's state are shared out among all devices."""
    overlap: float = 0.0
    """Share of the backward pass behind which the traffic of gradients can hide."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if self.devices < 1:
            raise ValueError(f"devices must be at least 1, got {self.devices}")
        if not 0 <= self.overlap <= 1:
            raise ValueError(f"overlap must lie in [0, 1], got {self.overlap}")


@dataclass(frozen=True)
class StepCost:
    """What a step takes on each device."""

    seconds: dict[str, float]
    """By part; communication is what of it is not hidden."""
    memory: dict[str, float]
    """Bytes at the moment when most are held, by what holds them."""
    traffic: dict[str, float]
    """Bytes sent by a device, by purpose."""
    flops: float

    @property
    def time(self) -> float:
        """Return seconds a step."""
        return sum(self.seconds.values())

    @property
    def peak_bytes(self) -> float:
        """Return the most memory held."""
        return sum(self.memory.values())

    @property
    def sent_bytes(self) -> float:
        """Return the bytes that a device sends."""
        return sum(self.traffic.values())


def step_cost(setup: Setup, rates: Rates) -> StepCost:
    """Return what a step takes: of methods that alternate the mean, of memory the most."""
    shares = [(share, _cost(setup, form, rates)) for share, form in forms(setup.method) if share > 0]
    if len(shares) == 1:
        return shares[0][1]
    most = max((cost for _, cost in shares), key=lambda cost: cost.peak_bytes)
    return StepCost(
        seconds=_mean((share, cost.seconds) for share, cost in shares),
        memory=most.memory,
        traffic=_mean((share, cost.traffic) for share, cost in shares),
        flops=sum(share * cost.flops for share, cost in shares),
    )


def step_works(setup: Setup) -> list[Work]:
    """Return the operations of one device's step, for a method that does the same in every step."""
    ((_, form),) = forms(setup.method)
    return _works(setup, form, _counted(setup, form))


def _mean(parts: Iterable[tuple[float, dict[str, float]]]) -> dict[str, float]:
    summed: dict[str, float] = {}
    for share, part in parts:
        for name, value in part.items():
            summed[name] = summed.get(name, 0.0) + share * value
    return summed


def _counted(setup: Setup, form: Form) -> NetworkCount:
    return count_network(replace(setup.subject, dense=form.dense, teacher=form.teacher))


def _problem(setup: Setup, form: Form, count: NetworkCount) -> TupleProblem | None:
    if form.tuples is None:
        return None
    return TupleProblem(
        form.tuples,
        examples=setup.devices * setup.subject.batch,
        classes=setup.subject.classes,
        positions=count.positions if form.dense else 1,
        width=count.width,
        own=setup.subject.batch,
        taught=form.teacher,
        device=setup.device,
    )


def _works(setup: Setup, form: Form, count: NetworkCount) -> list[Work]:
    b, k = setup.subject.batch, setup.subject.classes
    works = [_halved(work) for work in count.works] if setup.half else list(count.works)
    updates = count.updates if setup.device == "cpu" else [_shared_start(work, count) for work in count.updates]
    works += [replace(work, bytes=work.bytes // setup.devices) for work in updates] if setup.fsdp else updates
    problem = _problem(setup, form, count)
    if problem is not None:
        works += tuple_works(problem)
    if form.tuples is None or form.tuples.clean > 0:
        size = _FLOAT * b * k * (1 + form.teacher)
        works.append(Work("classifier", "move", 0, _LOSS_PASSES * size, 2 * size, _LOSS_PASSES))
    if form.mixes:
        size = _FLOAT * b * setup.subject.shape[0] * setup.subject.shape[1] * setup.subject.shape[2]
        works.append(Work("encoder forward", "move", 0, _MIX_PASSES * size, size, _MIX_PASSES))
    return works


def _halved(work: Work) -> Work:
    return replace(work, bytes=work.bytes // 2)


def _shared_start(work: Work, count: NetworkCount) -> Work:
    """On an accelerator, one kernel does to all tensors what takes a call for each on a CPU."""
    return replace(work, calls=work.calls / count.tensors)


def _cost(setup: Setup, form: Form, rates: Rates) -> StepCost:
    count = _counted(setup, form)
    works = _works(setup, form, count)
    seconds: dict[str, float] = {}
    for work in works:
        seconds[work.part] = seconds.get(work.part, 0.0) + rates.seconds(work)
    sent = step_traffic(
        count,
        form,
        batch=setup.subject.batch,
        classes=setup.subject.classes,
        devices=setup.devices,
        sync_batchnorm=setup.sync_batchnorm,
        fsdp=setup.fsdp,
    )
    seconds["communication"] = _exposed(setup, sent, rates, seconds.get("encoder backward", 0.0))
    return StepCost(
        seconds=seconds,
        memory=_memory(setup, form, count),
        traffic={traffic.purpose: traffic.bytes for traffic in sent},
        flops=sum(work.flops for work in works),
    )


def _exposed(setup: Setup, sent: list[Traffic], rates: Rates, backward: float) -> float:
    """Return the time of all traffic, less what of the gradients' hides behind the backward pass."""
    times = [(traffic.purpose, rates.link.seconds(traffic, setup.devices)) for traffic in sent]
    hidden = sum(time for purpose, time in times if purpose == "gradients")
    return sum(time for _, time in times) - min(hidden, setup.overlap * backward)


def _memory(setup: Setup, form: Form, count: NetworkCount) -> dict[str, float]:
    """Return what is held when most is.

    That is in the loss, when all activations are there and no gradients of parameters yet, or in the backward pass, or
    when all gradients are there and the optimiser steps.
    """
    images = _FLOAT * setup.subject.batch * setup.subject.shape[0] * setup.subject.shape[1] * setup.subject.shape[2]
    share = setup.devices if setup.fsdp else 1
    parameters = _FLOAT * (count.parameters / share + count.buffers)
    together = 0 if share == 1 else _put_together(count, form)
    problem = _problem(setup, form, count)
    tuples = 0 if problem is None else problem.peak_bytes
    scale = 0.5 if setup.half else 1.0
    gradients = _FLOAT * count.parameters
    let_go = 0.0 if share == 1 else max(0.0, gradients * (1 - 1 / share) - _put_together(count))
    passing = max(count.forward_bytes, count.saved_bytes + count.teacher_bytes, count.saved_bytes)
    back = max(0.0, count.backward_bytes - count.saved_bytes - let_go)
    held = max(
        (scale * passing, 0.0, 0.0),
        (scale * count.saved_bytes, 0.0, float(tuples)),
        (scale * count.saved_bytes, back, 0.0),
        (0.0, max(gradients, count.update_bytes) / share, 0.0),
        key=sum,
    )
    return {
        "parameters": parameters,
        "teacher": parameters if form.teacher else 0.0,
        "put together": together,
        "optimiser state": count.state_bytes / share,
        "images": images * (2 if form.teacher else 1),
        "activations": held[0],
        "gradients": held[1],
        "tuples": held[2],
    }


def _put_together(count: NetworkCount, form: Form | None = None) -> float:
    """Return the bytes of shared parameters that are whole at a time: what is in no block, and the largest block.

    Of weights, for which a form is given, the next block is put together ahead, and a teacher has some of its own.
    """
    rest, largest = count.parameters - sum(count.blocks), max(count.blocks, default=0)
    if form is None:
        return _FLOAT * (rest + largest)
    return _FLOAT * (rest * (1 + form.teacher) + 2 * largest)
