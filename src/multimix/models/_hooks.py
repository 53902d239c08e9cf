"""Running a model part of the way, with another function in a module's place, or without a trace."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn


def run_to(module: nn.Module, run: Callable[[], Any], *, otherwise: str, before: bool = False) -> Any:
    """Return the output of a module inside ``run()``, or what it is called with (``before``); the run ends there."""
    require_hooks(module)
    # Hooks that change what enters the module run again when it is called on its own: ours comes before them.
    if before:
        handle = module.register_forward_pre_hook(_stop, with_kwargs=True, prepend=True)
    else:
        handle = module.register_forward_hook(_stop, with_kwargs=True)
    try:
        run()
    except _ReachedError as reached:
        return reached.value
    finally:
        handle.remove()
    raise ValueError(otherwise)


class _ReachedError(BaseException):
    """Ends a forward pass at a module; not an Exception, so that no handler inside the model takes it."""

    def __init__(self, value: Any):
        super().__init__()
        self.value = value


def _stop(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], *output: Any) -> None:
    raise _ReachedError(output[0] if output else _first_of(arguments, keywords))


def _first_of(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Return the first argument of a call, None if there is none."""
    return next(iter((*arguments, *keywords.values())), None)


def require_hooks(module: nn.Module) -> None:
    """Raise if a module takes no hooks: it is scripted, or its hooks are compiled with it."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError("model: this module is a ScriptModule, which takes no hooks; name one that is not scripted")
    if getattr(module, "_compiled_call_impl", None) is not None:
        raise ValueError(
            f"model: this {type(module).__name__} was compiled in place, by its compile(), which no hook sees; put "
            "torch.compile(module) in the module's place instead, or compile the modules inside it"
        )


def in_checkpoint() -> bool:
    """Whether this is called from a part of a model that torch.utils.checkpoint will run again."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_code.co_filename == torch.utils.checkpoint.__file__:
            return True
        frame = frame.f_back
    return False


@contextmanager
def replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module compute something else while the context lasts; its hooks still run."""
    own = vars(module)
    before = own.get("forward")  # accelerate and others leave a forward there
    own["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del own["forward"]
        else:
            own["forward"] = before


@contextmanager
def passing(module: nn.Module) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Yield lists of what enters and what leaves a module while the context lasts."""
    entered: list[Tensor] = []
    left: list[Tensor] = []

    def record(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        first = _first_of(arguments, keywords)
        if isinstance(first, Tensor) and isinstance(output, Tensor):
            entered.append(first)
            left.append(output)

    handle = module.register_forward_hook(record, with_kwargs=True)
    try:
        yield entered, left
    finally:
        handle.remove()


@contextmanager
def in_eval(module: nn.Module) -> Iterator[None]:
    """Set every module to eval mode while the context lasts."""
    # Flags are set one by one: train() and eval() may be overridden to do more than that.
    flags = {part: part.training for part in module.modules()}
    try:
        for part in flags:
            part.training = False
        yield
    finally:
        for part, training in flags.items():
            part.training = training


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
