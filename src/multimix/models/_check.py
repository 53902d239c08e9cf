"""The comparison of an adapted network with the model that it was made from."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from multimix.models._inputs import first_output
from multimix.models._layout import Layout

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
    with _in_eval(network), torch.no_grad():
        with _same_random_state(network), _passing(network.model.get_submodule(network.head_name)) as (entered, left):
            output = network._whole(inputs)
        with _same_random_state(network):
            embeddings = network.pool(network.embed(inputs))
            logits = network.classify(embeddings)
    if network.dense:
        fed = [_by_position(x, embeddings) for x in entered[-1:]]
        expected = _by_position(left[-1], logits) if left else logits.new_empty(0)
    else:
        fed = [x.flatten(1) for x in entered[-1:] if x.flatten(1).shape == embeddings.shape]
        expected = cast("Tensor", first_output(output))
    for x in fed:
        _require_equal(embeddings, x, "pool(embed(inputs)) is not what enters the head", network)
    heard = f"it gets {tuple(entered[-1].shape)}" if entered else "it is never called"
    heads = f"{heard} in the model, {tuple(embeddings.shape)} here"
    what = "what leaves its head" if network.dense else "the model's logits"
    _require_equal(logits, expected, f"classify(pool(embed(inputs))) is not {what} ({heads})", network)


def _by_position(raw: Tensor, like: Tensor) -> Tensor:
    return Layout.of(raw, like.shape[-1]).flatten(raw)


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
def _same_random_state(network: nn.Module) -> Iterator[None]:
    devices = {parameter.device for parameter in network.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices=sorted(devices, key=str)):
        yield


@contextmanager
def _passing(module: nn.Module) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    entered: list[Tensor] = []
    left: list[Tensor] = []

    def record(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if arguments and isinstance(arguments[0], Tensor) and isinstance(output, Tensor):
            entered.append(arguments[0])
            left.append(output)

    handle = module.register_forward_hook(record)
    try:
        yield entered, left
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
