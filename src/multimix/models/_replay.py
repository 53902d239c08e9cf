"""Parts of a forward pass: up to a module, or with another function in a module's place."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.utils.checkpoint
from torch import nn


def run_until(module: nn.Module, run: Callable[[], Any], *, otherwise: str) -> Any:
    """Return the output of a module inside ``run()``, which ends there.

    Raises:
        ValueError: With the text ``otherwise``, if it never runs; if the module itself was compiled in place.
    """
    return _run(lambda: module.register_forward_hook(_stop), module, run, otherwise)


def run_into(module: nn.Module, run: Callable[[], Any], *, otherwise: str) -> Any:
    """Return the first argument that a module is called with inside ``run()``, which ends there.

    Raises:
        ValueError: With the text ``otherwise``, if it never runs; if the module itself was compiled in place.
    """
    # Hooks that change what enters the module run again when it is called on its own.
    hook = lambda: module.register_forward_pre_hook(_stop_before, with_kwargs=True, prepend=True)  # noqa: E731
    return _run(hook, module, run, otherwise)


def require_hooks(module: nn.Module) -> None:
    """Raise if a module takes no hooks: it is scripted, or its hooks are compiled with it.

    Raises:
        ValueError: With what to write instead.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError("model: this module is a ScriptModule, which takes no hooks; name one that is not scripted")
    if getattr(module, "_compiled_call_impl", None) is not None:
        raise ValueError(
            f"model: this {type(module).__name__} was compiled in place, by its compile(), which no hook sees; put "
            "torch.compile(module) in the module's place instead, or compile the modules inside it"
        )


def in_checkpoint() -> bool:
    """Whether this is called from a part of a model that torch.utils.checkpoint will run again."""
    file = torch.utils.checkpoint.__file__
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_code.co_filename == file:
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


def _run(register: Callable[[], Any], module: nn.Module, run: Callable[[], Any], otherwise: str) -> Any:
    require_hooks(module)
    handle = register()
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


def _stop(module: nn.Module, arguments: object, output: Any) -> None:
    raise _ReachedError(output)


def _stop_before(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    raise _ReachedError(next(iter((*arguments, *keywords.values())), None))
