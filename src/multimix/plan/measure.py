"""Measured times and memory that the model is fitted to and checked against, on this machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import quantiles
from typing import Any, Literal, cast

import torch
from torch import Generator, Tensor, nn

from multimix.bench.cost import cost
from multimix.data import Images, Splits
from multimix.plan.step import Setup, step_works
from multimix.plan.work import Recorder, Work
from multimix.train import Engine, TrainConfig

Clock = Literal["wall", "busy"]
_CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "busy": time.process_time}
_LEAST = 5e-3
"""Seconds that are timed at once: a short case is called so often that it takes as long."""
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """Something to time, whose work is counted."""

    name: str
    works: tuple[Work, ...]
    call: Callable[[], object]


@dataclass(frozen=True)
class Timed:
    """How long a case takes."""

    case: Case
    seconds: float
    """The fifth of the times that is shortest ends here: on a machine that does other things too, longer ones tell of
    those."""
    median: float


def timed(cases: list[Case], *, rounds: int, clock: Clock = "wall") -> list[Timed]:
    """Time cases in turn, the order reversed every other round, after two calls that do not count.

    Args:
        cases: What to time.
        rounds: How often each is timed.
        clock: ``wall``, or ``busy``: the time that this process computes, for one thread on a machine that is shared.

    Raises:
        ValueError: If the busy time of several threads would have to be parted.
    """
    if clock == "busy" and torch.get_num_threads() > 1:
        raise ValueError(f"clock 'busy' needs one thread (OMP_NUM_THREADS=1), got {torch.get_num_threads()}")
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    repeats = {case.name: _repeats(case.call) for case in cases}
    for turn in range(rounds):
        for case in cases if turn % 2 == 0 else reversed(cases):
            times[case.name].append(_clocked(case.call, repeats[case.name], clock))
    return [Timed(case, *_summary(times[case.name])) for case in cases]


def _repeats(call: Callable[[], object]) -> int:
    call()
    return max(1, round(_LEAST / max(_clocked(call, 1, "wall"), 1e-6)))


def _clocked(call: Callable[[], object], repeats: int, clock: Clock) -> float:
    now = _CLOCKS[clock]
    started = now()
    for _ in range(repeats):
        call()
    return (now() - started) / repeats


def _summary(times: list[float]) -> tuple[float, float]:
    if len(times) == 1:
        return times[0], times[0]
    cut = quantiles(times, n=10, method="inclusive")
    return cut[1], cut[4]


def counted(name: str, make: Callable[[str], Callable[[], object]]) -> Case:
    """Return a case that ``make`` builds twice: on a device without values, to count it, and on the CPU."""
    trial = make("meta")
    trial()
    recorder = Recorder()
    with recorder:
        trial()
    return Case(name, tuple(recorder.works), make("cpu"))


def layer(name: str, make: Callable[[], nn.Module], shape: tuple[int, ...], *, backward: bool) -> Case:
    """Return a case of a layer's forward pass, or of both passes."""

    def on(device: str) -> Callable[[], object]:
        with torch.device(device):
            module, inputs = make(), torch.randn(shape).requires_grad_(backward)

        def call() -> None:
            if not backward:
                with torch.no_grad():
                    module(inputs)
                return
            out = module(inputs)
            out.backward(torch.empty_like(out))
            inputs.grad = None
            module.zero_grad()

        return call

    return counted(f"{name} {'both' if backward else 'forward'}", on)


def engine_of(setup: Setup) -> tuple[Engine, Callable[[], object]]:
    """Return an engine that trains as ``setup`` says, and a call that does one step on a mini-batch of noise.

    Serving the mini-batch is not part of the step.
    """
    subject = setup.subject
    generator = Generator().manual_seed(0)
    pixels = torch.randint(256, (2 * subject.batch, *subject.shape), generator=generator, dtype=torch.uint8)
    labels = torch.arange(len(pixels)) % subject.classes
    c = subject.shape[0]
    part = Images(pixels, labels, tuple(map(str, range(subject.classes))))
    config = TrainConfig(
        data="noise",
        method=cast("Any", setup.method),
        model=subject.model,
        width=subject.width,
        strides=subject.strides,
        final_norm=subject.final_norm,
        optimizer=subject.optimizer,
        batch_size=subject.batch,
        device="cpu",
    )
    engine = Engine(config, Splits("noise", part, None, part, (0.5,) * c, (0.25,) * c))
    views = tuple(torch.randn(subject.batch, *subject.shape, generator=generator) for _ in range(config.views))
    targets = labels[: subject.batch]

    def call() -> Tensor:
        total, _ = engine.step(views if config.views == 2 else views[0], targets)
        engine.at.batch = 0
        return total

    return engine, call


def step_case(name: str, setup: Setup) -> Case:
    """Return the case of a whole training step."""
    _, call = engine_of(setup)
    return Case(name, tuple(step_works(setup)), call)


def step_memory(setup: Setup) -> int:
    """Return the most memory in tensors during a step, bytes: what is there before, and what it adds at its peak."""
    engine, call = engine_of(setup)
    call()  # makes the optimiser's state
    state = [v for values in engine.optimizer.state.values() for v in values.values() if isinstance(v, Tensor)]
    tensors = [*engine.network.parameters(), *engine.network.buffers(), *state]
    for part in engine.stateful:
        tensors += [*part.parameters(), *part.buffers()]
    images = 4 * setup.subject.batch * engine.config.views * torch.Size(setup.subject.shape).numel()
    before = sum(tensor.numel() * tensor.element_size() for tensor in tensors) + images
    return before + cost(call, _CPU).peak_bytes
