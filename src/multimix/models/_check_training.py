"""The comparison of an adapted network in training mode with its model: the same randomness, the same gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from multimix.models._check import difference, expected_of, passing
from multimix.models._names import listed
from multimix.models._state import apart, can_be_apart, detached, random_states, same_random_state, unmixed

if TYPE_CHECKING:
    from multimix.models._adapted import AdaptedNetwork


@dataclass(frozen=True)
class _Pass:
    """What a forward and a backward pass left: values, random states and gradients."""

    embeddings: Tensor | None
    """None of a model that pools behind its head."""
    logits: Tensor
    states: list[Tensor]
    gradients: dict[str, Tensor | None]
    masked: bool
    """Whether examples lack positions."""
    has_graph: bool
    """Whether gradients reach further than the embeddings."""


def check_training(network: "AdaptedNetwork", inputs: Any) -> None:
    """Raise unless what enters the head in training mode, and every gradient, is what it is in the model.

    Both run once, forwards and backwards, as the training flags stand, on parameters and buffers that stand in for
    their own and from the same random state: neither statistics nor gradients are left behind. Not compared are models
    whose parameters nothing can stand in for (sharded, scripted), and those that do not repeat themselves.

    Raises:
        ValueError: If they differ, with what differs and what to pass.
    """
    if not can_be_apart(network):
        return
    inputs = detached(inputs)
    # Hooks of a checkpoint around this step must not see these tensors.
    with torch.enable_grad(), unmixed(network), torch.autograd.graph.saved_tensors_hooks(_same, _same):
        ours = _ours(network, inputs)
        theirs = _theirs(network, inputs, ours)
        if theirs.embeddings is None:
            ours = _ours(network, inputs, embeddings_count=False)
        problem = _problem(network, inputs, ours, theirs)
        repeats = not problem or not _differs(theirs, _theirs(network, inputs, ours))
        torch.clear_autocast_cache()
    if problem and repeats:
        raise ValueError(problem)


def _ours(network: "AdaptedNetwork", inputs: Any, *, embeddings_count: bool = True) -> _Pass:
    with same_random_state(network), apart(network) as parameters:
        output = network.embed(inputs)
        embeddings = network.pool(output)
        states = random_states(network)
        logits = network.classify(embeddings)
        gradients = _gradients([embeddings, logits] if embeddings_count else [logits], parameters)
    return _Pass(
        embeddings.detach(), logits.detach(), states, gradients, output.mask is not None, embeddings.requires_grad
    )


def _theirs(network: "AdaptedNetwork", inputs: Any, ours: _Pass) -> _Pass:
    head, states = network.model.get_submodule(network.head_name), []
    with same_random_state(network), apart(network) as parameters:
        before = head.register_forward_pre_hook(lambda *_: states.append(random_states(network)))
        try:
            with passing(head) as passed:
                output = network._whole(inputs)
        finally:
            before.remove()
        if not states:
            raise ValueError(f"head: {type(network.model).__name__} never runs {network.head_name!r} in training mode")
        fed, logits = expected_of(network, output, passed, (cast("Tensor", ours.embeddings), ours.logits))
        gradients = _gradients([*fed, cast("Tensor", logits)], parameters)
    embeddings = fed[0].detach() if fed else None
    return _Pass(embeddings, cast("Tensor", logits).detach(), states[-1], gradients, masked=ours.masked, has_graph=True)


def _gradients(values: list[Tensor], parameters: dict[str, nn.Parameter]) -> dict[str, Tensor | None]:
    """Return the gradients of a fixed combination of values, which lacks no direction."""
    total = [(x.float() * _direction(x)).sum() for x in values if x.requires_grad]
    if total:
        torch.stack(total).sum().backward()
    return {name: parameter.grad for name, parameter in parameters.items()}


def _direction(like: Tensor) -> Tensor:
    return torch.arange(1.0, like.numel() + 1).cos().reshape(like.shape).to(like.device)


def _unlike(ours: dict[str, Tensor | None], theirs: dict[str, Tensor | None]) -> list[str]:
    """Return the names of the parameters whose gradients differ by more than rounding."""
    sizes = {name: 0.0 if g is None else float(g.detach().float().abs().max()) for name, g in theirs.items()}
    largest = max(sizes.values(), default=0.0)
    return [name for name, size in sizes.items() if not _alike(ours[name], theirs[name], size, largest)]


def _alike(ours: Tensor | None, theirs: Tensor | None, size: float, largest: float) -> bool:
    rounding = 1e-6 * largest  # of gradients that would be zero, as in front of batch normalisation
    if ours is None or theirs is None or not ours.any():
        mine = 0.0 if ours is None else float(ours.float().abs().max())
        return max(mine, size) <= rounding
    # NaN compares to nothing: a model that gives it is not for this check to judge.
    return not float((ours.float() - theirs.float()).abs().max()) > 0.1 * size + 0.01 * largest


def _problem(network: "AdaptedNetwork", inputs: Any, ours: _Pass, theirs: _Pass) -> str:
    """Return what is wrong, and what to write; nothing if the two are alike."""
    found = _fed_difference(ours, theirs)
    if not found and network.encoder_name and _draws_differ(ours, theirs):
        found = "the model draws other random numbers before its head"
    if found:
        return _about_values(network, inputs, found, masked=ours.masked)
    if found := difference(ours.logits, theirs.logits):
        return (
            f"model: in training mode {type(network.model).__name__} does something to what its head "
            f"{network.head_name!r} gives ({found}), which eval mode does not show; let it return that as it is"
        )
    wrong = _unlike(ours.gradients, theirs.gradients)
    return _about_gradients(network, wrong, ours) if wrong else ""


def _differs(one: _Pass, other: _Pass) -> bool:
    """Whether two passes of the same model are not alike, as of one that seeds its own randomness."""
    values = _fed_difference(one, other) or difference(one.logits, other.logits)
    return bool(values or _draws_differ(one, other) or _unlike(one.gradients, other.gradients))


def _fed_difference(ours: _Pass, theirs: _Pass) -> str:
    if ours.embeddings is None or theirs.embeddings is None:
        return ""
    return difference(ours.embeddings, theirs.embeddings)


def _draws_differ(ours: _Pass, theirs: _Pass) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(ours.states, theirs.states, strict=True))


def _about_values(network: "AdaptedNetwork", inputs: Any, found: str, *, masked: bool) -> str:
    model, head, encoder = type(network.model).__name__, network.head_name, network.encoder_name
    if encoder is None:
        return (
            f"model: in training mode what enters the head {head!r} of {model} is not what the network makes of it "
            f"({found}); pass head={head!r}, which leaves everything before it to the model"
        )
    layers = _only_in_training(network, inputs)
    named = ", ".join(f"{name!r} ({type(module).__name__})" for name, (module, _) in layers.items())
    return (
        f"encoder, pool: in training mode {model} does more between {encoder!r} and its head {head!r} than the network "
        f"({found}): {named or 'something random or of the batch, F.dropout for one'}; {_advice(network, layers, masked=masked)}"
    )


def _advice(network: "AdaptedNetwork", layers: dict[str, tuple[nn.Module, Tensor]], *, masked: bool) -> str:
    leave = f"leave encoder= out, adapt(model, head={network.head_name!r})"
    if not layers or not getattr(network, "pools_by_mean", False) or masked:
        return f"{leave}, or let pool= do it, too"
    name, (_, entered) = next(iter(layers.items()))
    if entered.ndim > 2:
        return f"{leave}, or pass encoder={name!r}"
    last = ", ".join(f"model.get_submodule({name!r})" for name in layers)
    return f"{leave}, or pass pool=nn.Sequential(nn.AdaptiveAvgPool2d((1, None)), nn.Flatten(), {last})"


def _only_in_training(network: "AdaptedNetwork", inputs: Any) -> dict[str, tuple[nn.Module, Tensor]]:
    """Return the layers between encoder and head that change values in training mode alone, with what entered them."""
    model, found, started = network.model, {}, [False]

    def begin(*_: Any) -> None:
        started[0] = True

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            if started[0] and arguments and module.training and _changes(arguments[0], output):
                found[name] = (module, arguments[0])

        return hook

    inside = set(model.get_submodule(network.head_name).modules())
    leaves = {name: module for name, module in model.named_modules() if name and not any(module.children())}
    handles = [module.register_forward_hook(note(name)) for name, module in leaves.items() if module not in inside]
    handles.append(model.get_submodule(network.encoder_name).register_forward_hook(begin))
    try:
        with same_random_state(network), apart(network):
            network._whole(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: seen for name, seen in found.items() if _does_nothing_in_eval(*seen)}


def _changes(entered: Any, left: Any) -> bool:
    tensors = isinstance(entered, Tensor) and isinstance(left, Tensor) and entered.shape == left.shape
    return tensors and not torch.equal(entered, left)


def _does_nothing_in_eval(module: nn.Module, entered: Tensor) -> bool:
    module.training = False
    try:
        return torch.allclose(module.forward(entered), entered, rtol=1e-3)  # batch normalisation that is new: nearly
    finally:
        module.training = True


def _about_gradients(network: "AdaptedNetwork", wrong: list[str], ours: _Pass) -> str:
    model, encoder = type(network.model).__name__, network.encoder_name
    where = f"the encoder {encoder!r}" if encoder else f"the head {network.head_name!r}"
    names = listed([name.removeprefix("model.") for name in wrong], 3)
    subject = f"{model}, split at its head {network.head_name!r}, does not train as itself: gradients of {names} differ"
    leave = f"leave encoder= out, adapt(model, head={network.head_name!r})"
    if not ours.has_graph:
        out = f", or {leave}" if encoder else ""
        return (
            f"encoder: {subject}; {where} runs where no gradient is kept, as inside re-entrant checkpointing: let the "
            f"model call checkpoint(..., use_reentrant=False){out}"
        )
    if encoder:
        return (
            f"encoder, pool: {subject}; they take part in what runs between {encoder!r} and the head: {leave}, or "
            "let pool= do all of it"
        )
    return f"model: {subject}; pass head={network.head_name!r}, which leaves everything before it to the model"


def _same(tensor: Tensor) -> Tensor:
    return tensor
