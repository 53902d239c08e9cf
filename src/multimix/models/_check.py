"""The comparison of an adapted network with the model that it was made from."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from multimix.models._layout import Layout
from multimix.models._outputs import logits_of
from multimix.models._state import in_eval, same_random_state

if TYPE_CHECKING:
    from multimix.models._adapted import AdaptedNetwork


def check_split(network: "AdaptedNetwork", inputs: Any) -> None:
    """Raise unless the network's logits of one batch are the model's own.

    Both run in eval mode without gradients, from the same random state, which is then put back, as are the training
    flags; mixing is off. What enters the head is compared too, because a head that starts at zero would hide the rest.
    Where there are logits at every position, they are compared with what leaves the head: the model may enlarge them.

    Raises:
        ValueError: If they differ, with what differs and what to pass.
    """
    with in_eval(network), torch.no_grad():
        with same_random_state(network), passing(network.model.get_submodule(network.head_name)) as (entered, left):
            output = network._whole(inputs)
        with same_random_state(network):
            embeddings = network.pool(network.embed(inputs))
            logits = network.classify(embeddings)
    fed, expected = expected_of(network, output, (entered, left), (embeddings, logits))
    for x in fed:
        _require_equal(embeddings, x, "pool(embed(inputs)) is not what enters the head", network)
    heard = f"it gets {tuple(entered[-1].shape)}" if entered else "it is never called"
    heads = f"{heard} in the model, {tuple(embeddings.shape)} here"
    what = "what leaves its head" if network.dense else "the model's logits"
    if expected is None:
        expected = logits.new_empty(0)
    _require_equal(logits, expected, f"classify(pool(embed(inputs))) is not {what} ({heads})", network)


def expected_of(
    network: "AdaptedNetwork", output: Any, passed: tuple[list[Tensor], list[Tensor]], like: tuple[Tensor, Tensor]
) -> tuple[list[Tensor], Tensor | None]:
    """Return the embeddings (one or, where they have another shape, none) and the logits of the model.

    They come from its output and from what entered and left its head, laid out like the network's own.
    """
    (entered, left), (embeddings, logits) = passed, like
    if not network.dense:
        fed = [x.flatten(1) for x in entered[-1:] if x.ndim and x.flatten(1).shape == embeddings.shape]
        return fed, cast("Tensor", logits_of(output, left[-1] if left else None))
    fed = [_by_position(x, embeddings) for x in entered[-1:]]
    return fed, _by_position(left[-1], logits) if left else None


def _by_position(raw: Tensor, like: Tensor) -> Tensor:
    return Layout.of(raw, like.shape[-1]).flatten(raw)


@contextmanager
def passing(module: nn.Module) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Yield lists of what enters and what leaves a module while the context lasts."""
    entered: list[Tensor] = []
    left: list[Tensor] = []

    def record(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        first = next(iter((*arguments, *keywords.values())), None)
        if isinstance(first, Tensor) and isinstance(output, Tensor):
            entered.append(first)
            left.append(output)

    handle = module.register_forward_hook(record, with_kwargs=True)
    try:
        yield entered, left
    finally:
        handle.remove()


def _require_equal(ours: Tensor, expected: Tensor, subject: str, network: "AdaptedNetwork") -> None:
    if found := difference(ours, expected):
        raise ValueError(
            f"encoder, pool, head: {type(network.model).__name__}, split at its head {network.head_name!r}, is not "
            f"itself: {subject}; {found}. Pass as head= the layer that gives the logits, as encoder= the module "
            "whose output is to be mixed, as pool= a function (b, r, d) -> (b, e) of all that the model does in between"
        )


def difference(ours: Tensor, expected: Tensor) -> str:
    """Return how values differ from those expected, by more than rounding; nothing if they do not."""
    if ours.shape != expected.shape:
        return f"it has shape {tuple(ours.shape)} instead of {tuple(expected.shape)}"
    if not expected.numel():
        return ""
    ours, expected = (x.detach().cpu().double() for x in (ours, expected))  # not every device has this precision
    scale = expected.nan_to_num(0.0, 0.0, 0.0).abs().max().item()
    # Half precision rounds at 0.4 % an operation; a wrong split is off by the size of the values themselves.
    if torch.allclose(ours, expected, rtol=0.0, atol=0.02 * scale + 1e-6, equal_nan=True):
        return ""
    return f"it is off by up to {(ours - expected).abs().max().item():.3g} where values reach {scale:.3g}"
