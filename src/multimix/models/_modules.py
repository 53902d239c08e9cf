"""The modules of a model: found by name, run part of the way, with another function in one's place, without a trace."""

import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from fnmatch import fnmatch
from types import FrameType
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

_CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def axes_of(module: nn.Module) -> int:
    """Return how many axes a convolution slides along, 0 for any other layer."""
    return next((axes for axes, cls in enumerate(_CONVOLUTIONS, 1) if isinstance(module, cls)), 0)


def uncompiled(module: nn.Module) -> nn.Module:
    """Return what ``torch.compile`` has wrapped, or the module as it is."""
    return getattr(module, "_orig_mod", module)


def is_affine(module: nn.Module) -> bool:
    """Whether a layer is linear or a 1x1 convolution and computes what torch's do."""
    # A subclass may compute anything else, cosines for one; timm's computes what its base does.
    cls = type(module)
    if "forward" in vars(module):
        return False
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        single = {*module.kernel_size, *module.stride} == {1} and module.groups == 1 and not any(module.padding)
        return single and cls.forward is _CONVOLUTIONS[axes_of(module) - 1].forward
    is_plain = cls.forward is nn.Linear.forward or cls.__module__ == "timm.layers.linear"
    return isinstance(module, nn.Linear) and is_plain


@torch.no_grad()
def acts_affine(layer: Callable[[Tensor], Tensor], rows: Tensor) -> bool:
    """Whether a layer, hooks and all, adds up as a linear one does; one with LoRA around it, for example."""
    x = rows * (30 / rows.abs().amax().clamp_min(1e-6))  # far enough out for a softmax to bend
    y = -2 * x.flip(0)
    one, other, both, none = (layer(values) for values in (x, y, x + y, torch.zeros_like(x)))
    scale = float(both.abs().max()) + float(none.abs().max())
    return bool(((one + other - both - none).abs() <= 0.01 * scale).all())


def require_module(model: nn.Module, name: str, argument: str) -> None:
    """Raise unless a module has this dotted name."""
    known = dict(model.named_modules())
    if not isinstance(name, str):
        raise TypeError(f"{argument} must be the dotted name of a module, got {type(name).__name__}")
    if not name or name not in known:
        raise ValueError(f"{argument} must name a module of {type(model).__name__}, got {name!r}; {near(name, known)}")


def near(name: str, known: Iterable[str]) -> str:
    """Return a remark on the known names nearest to one that is not known."""
    names = [other for other in known if other]
    found = get_close_matches(name, names, n=4, cutoff=0.5) or [other for other in names if name and name in other][:4]
    return f"did you mean {', '.join(map(repr, found))}?" if found else f"there are {listed(names)}"


def listed(names: Sequence[str], most: int = 12) -> str:
    """Return names as text, cut after the first few."""
    shown = ", ".join(map(repr, names[:most])) or "none"
    return f"{shown}, ... ({len(names)} in all)" if len(names) > most else shown


def matching(model: nn.Module, patterns: str) -> list[str]:
    """Return the names that match one of the patterns, such as ``layer[1-4]`` or ``stages.*``: ``*`` is one level."""
    # A container that only holds modules is never called itself.
    names = [name.split(".") for name, module in model.named_modules() if not isinstance(module, nn.ModuleList)]
    levels = [pattern.split(".") for pattern in patterns.split()]
    return [".".join(n) for each in levels for n in names if len(n) == len(each) and all(map(fnmatch, n, each))]


def linear_layers(model: nn.Module) -> list[str]:
    """Return the names of a model's linear layers, the last one first."""
    return [name for name, module in model.named_modules() if name and isinstance(module, nn.Linear)][::-1]


def run_to(module: nn.Module, run: Callable[[], Any], *, otherwise: str, before: bool = False) -> Any:
    """Return the output of a module inside ``run()``, or what it is called with (``before``); the run ends there."""
    require_hooks(module)
    if torch.compiler.is_compiling() and not (module._forward_hooks or module._forward_pre_hooks):
        own = module.forward  # a hook would break the graph

        def forward(*arguments: Any, **keywords: Any) -> None:
            raise _ReachedError(first_of(arguments, keywords) if before else own(*arguments, **keywords))

        with replaced(module, forward):
            return _reached(run, otherwise)
    # Hooks that change what enters the module run again when it is called on its own: ours comes before them.
    register = module.register_forward_pre_hook if before else module.register_forward_hook
    with register(_stop, with_kwargs=True, prepend=before):
        return _reached(run, otherwise)


def _reached(run: Callable[[], Any], otherwise: str) -> Any:
    try:
        run()
    except _ReachedError as reached:
        return reached.args[0]
    raise ValueError(otherwise)


class _ReachedError(BaseException):
    """Ends a forward pass at a module; not an Exception, so that no handler inside the model takes it."""


def _stop(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], *output: Any) -> None:
    raise _ReachedError(output[0] if output else first_of(arguments, keywords))


def first_of(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
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
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != torch.utils.checkpoint.__file__:
        frame = frame.f_back
    return frame is not None


@contextmanager
def replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module compute something else while the context lasts; its hooks still run."""
    own = vars(module)
    before = {"forward": own["forward"]} if "forward" in own else {}  # accelerate and others leave a forward there
    own["forward"] = forward
    try:
        yield
    finally:
        del own["forward"]
        own.update(before)


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
def apart(network: Any) -> Iterator[dict[str, nn.Parameter]]:
    """Let a network run unmixed and without a trace; yield what is trained meanwhile: stand-ins, with gradients on."""
    devices = {parameter.device for parameter in network.parameters()}
    with ExitStack() as stack:
        stack.callback(setattr, network, "mixes", True)
        stack.callback(random.setstate, random.getstate())
        if "numpy" in sys.modules:
            generator = sys.modules["numpy"].random
            stack.callback(generator.set_state, generator.get_state())
        if any(device.type == "mps" for device in devices):
            stack.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
        stack.enter_context(torch.random.fork_rng(sorted((d for d in devices if d.type == "cuda"), key=str)))
        network.mixes = False
        yield stack.enter_context(_stand_ins(network))


@contextmanager
def _stand_ins(network: nn.Module) -> Iterator[dict[str, nn.Parameter]]:
    """Put buffers of equal values, and with gradients on parameters, without hooks, in the place of the network's."""
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    if not torch.is_grad_enabled():
        trained = {}
    modules = [module for module in network.modules() if not isinstance(module, torch.jit.ScriptModule)]
    twins: dict[Tensor, Any] = {p: nn.Parameter(p.detach()) for p in trained.values()}
    twins |= {buffer: buffer.clone() for module in modules for buffer in module.buffers(recurse=False)}
    places: list[dict[str, Any]] = [own for m in modules for own in (m._parameters, m._buffers)]
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
