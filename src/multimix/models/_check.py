"""The comparison of an adapted network with the model that it was made from."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from multimix.models._adapted import AdaptedNetwork


def check_split(network: "AdaptedNetwork", inputs: Tensor) -> None:
    """Raise unless the network's logits of one batch are the model's own.

    Both run in eval mode without gradients, from the same random state, which is then put back, as are the training
    flags; mixing is off. What enters the head is compared too, because a head that starts at zero would hide the rest.

    Raises:
        ValueError: If they differ, with what differs and what to pass.
    """
    with _in_eval(network), torch.no_grad():
        with _same_random_state(inputs), _entering(network.model.get_submodule(network.head_name)) as entered:
            expected = first_tensor(network.model(inputs))
        with _same_random_state(inputs):
            embeddings = network.pool(network.embed(inputs))
            logits = network.classify(embeddings)
    if entered and entered[-1].flatten(1).shape == embeddings.shape:
        _require_equal(embeddings, entered[-1].flatten(1), "pool(embed(inputs)) is not what enters the head", network)
    heard = f"it gets {tuple(entered[-1].shape)}" if entered else "it is never called"
    heads = f"{heard} in the model, {tuple(embeddings.shape)} here"
    subject = f"classify(pool(embed(inputs))) is not the model's logits ({heads})"
    _require_equal(logits, expected, subject, network)


def first_tensor(output: Any) -> Tensor:
    """Return the tensor in an output: itself, a mapping's ``logits`` or ``last_hidden_state``, the first of a tuple.

    Raises:
        TypeError: If there is none.
    """
    found = output
    if isinstance(output, Mapping):
        found = output.get("logits", output.get("last_hidden_state"))
    elif isinstance(output, tuple | list) and output:
        found = output[0]
    if not isinstance(found, Tensor):
        raise TypeError(f"the model and its encoder must return tensors, got {type(output).__name__}")
    return found


@contextmanager
def _in_eval(network: "AdaptedNetwork") -> Iterator[None]:
    # Flags are set one by one: train() and eval() may be overridden to do more than that.
    flags = {module: module.training for module in network.modules()}
    network._may_mix = False
    try:
        for module in flags:
            module.training = False
        yield
    finally:
        network._may_mix = True
        for module, training in flags.items():
            module.training = training


@contextmanager
def _same_random_state(inputs: Tensor) -> Iterator[None]:
    with torch.random.fork_rng(devices=[inputs.device] if inputs.is_cuda else []):
        yield


@contextmanager
def _entering(module: nn.Module) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []

    def record(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if arguments and isinstance(arguments[0], Tensor):
            seen.append(arguments[0])

    handle = module.register_forward_pre_hook(record)
    try:
        yield seen
    finally:
        handle.remove()


def _require_equal(ours: Tensor, expected: Tensor, subject: str, network: "AdaptedNetwork") -> None:
    if difference := _difference(ours, expected):
        raise ValueError(
            f"encoder, pool, head: {type(network.model).__name__}, split at its head {network.head_name!r}, is not "
            f"itself: {subject}; {difference}. Pass as head= the layer that gives the logits, as encoder= the module "
            "whose output is to be mixed, as pool= a function (b, r, d) -> (b, e) of all that the model does in between"
        )


def _difference(ours: Tensor, expected: Tensor) -> str:
    if ours.shape != expected.shape:
        return f"it has shape {tuple(ours.shape)} instead of {tuple(expected.shape)}"
    if not expected.numel():
        return ""
    ours, expected = ours.double(), expected.double()
    scale = expected.nan_to_num(0.0, 0.0, 0.0).abs().max().item()
    # Half precision rounds at 0.4 % an operation; a wrong split is off by the size of the values themselves.
    if torch.allclose(ours, expected, rtol=0.0, atol=0.02 * scale + 1e-6, equal_nan=True):
        return ""
    return f"it is off by up to {(ours - expected).abs().max().item():.3g} where values reach {scale:.3g}"
