"""Parts of a forward pass: up to a module, or with another function in a module's place."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def run_until(module: nn.Module, run: Callable[[], Any], *, otherwise: str) -> Any:
    """Return the output of a module inside ``run()``, which ends there.

    Raises:
        ValueError: With the text ``otherwise``, if it never runs.
    """
    handle = module.register_forward_hook(_stop)
    try:
        run()
    except _ReachedError as reached:
        return reached.output
    finally:
        handle.remove()
    raise ValueError(otherwise)


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


class _ReachedError(BaseException):
    """Ends a forward pass at the encoder; not an Exception, so that no handler inside the model takes it."""

    def __init__(self, output: Any):
        super().__init__()
        self.output = output


def _stop(module: nn.Module, arguments: object, output: Any) -> None:
    raise _ReachedError(output)
