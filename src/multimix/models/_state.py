"""Running a network without a trace: random state, training flags, parameters and buffers are put back or left out."""

import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

if TYPE_CHECKING:
    from multimix.models._adapted import AdaptedNetwork


@contextmanager
def in_eval(network: "AdaptedNetwork") -> Iterator[None]:
    """Set every module to eval mode, and mix nothing, while the context lasts."""
    # Flags are set one by one: train() and eval() may be overridden to do more than that.
    flags = {module: module.training for module in network.modules()}
    try:
        for module in flags:
            module.training = False
        with unmixed(network):
            yield
    finally:
        for module, training in flags.items():
            module.training = training


@contextmanager
def unmixed(network: "AdaptedNetwork") -> Iterator[None]:
    """Mix at no stage while the context lasts."""
    network._may_mix = False
    try:
        yield
    finally:
        network._may_mix = True


@contextmanager
def same_random_state(network: nn.Module) -> Iterator[None]:
    """Put the state of every generator back at the end: torch's where the network lies, Python's and NumPy's."""
    devices = {parameter.device for parameter in network.parameters()}
    with ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        if "numpy" in sys.modules:
            generator = sys.modules["numpy"].random
            stack.callback(generator.set_state, generator.get_state())
        if any(device.type == "mps" for device in devices):
            stack.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
        stack.enter_context(torch.random.fork_rng(sorted((d for d in devices if d.type == "cuda"), key=str)))
        yield


def random_states(network: nn.Module) -> list[Tensor]:
    """Return the states of torch's generators where the network lies, and on the CPU."""
    devices = {parameter.device for parameter in network.parameters() if parameter.is_cuda}
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in sorted(devices, key=str))]


def can_be_apart(network: nn.Module) -> bool:
    """Whether parameters are torch's own, so that others can stand in for them: not sharded, offloaded or scripted."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        return False
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return all(type(p) is nn.Parameter and not p.is_meta and not hasattr(p, "ds_id") for p in trained)


@contextmanager
def apart(network: nn.Module) -> Iterator[dict[str, nn.Parameter]]:
    """Let a network run on parameters and buffers that have its values, and yield the parameters that are trained.

    Gradients and running statistics go to those, and no hook on the network's own parameters runs.
    """
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    twins: dict[Tensor, Any] = {p: nn.Parameter(p.detach()) for p in trained.values()}
    twins |= {buffer: buffer.clone() for buffer in network.buffers()}
    places: list[dict[str, Any]] = [
        own for module in network.modules() for own in (module._parameters, module._buffers)
    ]
    before = [dict(own) for own in places]
    gradients = [(parameter, parameter.grad) for parameter in trained.values()]
    try:
        for own in places:
            own.update({name: twins[value] for name, value in own.items() if value is not None and value in twins})
        yield {name: twins[parameter] for name, parameter in trained.items()}
    finally:
        for own, values in zip(places, before, strict=True):
            own.clear()
            own.update(values)
        for parameter, gradient in gradients:  # of one that a model holds in a list, too
            parameter.grad = gradient


def detached(inputs: Any) -> Any:
    """Return inputs cut off from what they were computed from."""
    if isinstance(inputs, Tensor):
        return inputs.detach()
    if isinstance(inputs, PackedSequence):
        return inputs._replace(data=inputs.data.detach())
    if isinstance(inputs, Mapping):
        return {name: detached(value) for name, value in inputs.items()}
    return inputs
