"""The comparison of an adapted network with its model: the same logits, and in training the same gradients."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from multimix.models._hooks import apart, can_be_apart, in_eval, passing, random_states, same_random_state
from multimix.models._names import listed
from multimix.models._network import AdaptedNetwork
from multimix.models._values import Layout, detached, logits_of


def check_first_batch(network: AdaptedNetwork, inputs: Any) -> None:
    """Compare logits on the first batch; it is a network's ``check`` until that has passed."""
    network.check = None  # for it embeds, too
    try:
        network.first_batch(inputs)
        _check_split(network, inputs)
    except BaseException:
        network.check = check_first_batch
        raise
    network.check = check_first_training_batch
    check_first_training_batch(network, inputs)


def check_first_training_batch(network: AdaptedNetwork, inputs: Any) -> None:
    """Compare gradients on the first batch in training mode; it is a network's ``check`` until that has passed."""
    if not (network.model.training and network.mixes and torch.is_grad_enabled()):
        return
    network.check = None
    try:
        _check_training(network, inputs)
    except BaseException:
        network.check = check_first_training_batch
        raise


def _check_split(network: AdaptedNetwork, inputs: Any) -> None:
    """Raise unless the network's logits of one batch are the model's own.

    Both run in eval mode without gradients, from the same random state, which is then put back, as are the training
    flags; mixing is off. What enters the head is compared too, because a head that starts at zero would hide the rest.
    Where there are logits at every position, they are compared with what leaves the head: the model may enlarge them.
    """
    with network.unmixed(), in_eval(network), torch.no_grad():
        ours = _ours(network, inputs)
        theirs = _theirs(network, inputs, ours)
    if theirs.embeddings is not None:
        _require_equal(ours.embeddings, theirs.embeddings, "pool(embed(inputs)) is not what enters the head", network)
    heard = f"it gets {theirs.entered}" if theirs.entered else "it is never called"
    what = "what leaves its head" if network.dense else "the model's logits"
    subject = f"classify(pool(embed(inputs))) is not {what} ({heard} in the model, {ours.entered} here)"
    _require_equal(ours.logits, theirs.logits, subject, network)


def _by_position(raw: Tensor, like: Tensor) -> Tensor:
    return Layout.of(raw, like.shape[-1]).flatten(raw)


def _require_equal(ours: Tensor | None, expected: Tensor, subject: str, network: AdaptedNetwork) -> None:
    if found := _difference(ours, expected):
        raise ValueError(
            f"encoder, pool, head: {type(network.model).__name__}, split at its head {network.head_name!r}, is not "
            f"itself: {subject}; {found}. Pass as head= the layer that gives the logits, as encoder= the module "
            "whose output is to be mixed, as pool= a function (b, r, d) -> (b, e) of all that the model does in between"
        )


def _difference(ours: Tensor | None, expected: Tensor | None) -> str:
    """Return how values differ from those expected, by more than rounding; nothing if they do not."""
    if ours is None or expected is None:
        return ""
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


@dataclass(frozen=True)
class _Pass:
    """What a forward and a backward pass left: values, random states and gradients."""

    embeddings: Tensor | None
    """None of a model that pools behind its head."""
    logits: Tensor
    entered: tuple[int, ...]
    """The shape of what entered the head, () if that was never called."""
    states: list[Tensor]
    gradients: dict[str, Tensor | None]
    has_graph: bool = True
    """Whether gradients reach further than the embeddings."""
    has_mask: bool = False

    def differs(self, other: "_Pass") -> bool:
        """Whether two passes of the same model are not alike, as of one that seeds its own randomness."""
        values = _difference(self.embeddings, other.embeddings) or _difference(self.logits, other.logits)
        return bool(values or self.draws_differ(other) or _unlike(self.gradients, other.gradients))

    def draws_differ(self, other: "_Pass") -> bool:
        """Whether other random numbers were drawn before the head."""
        return any(not torch.equal(a, b) for a, b in zip(self.states, other.states, strict=True))


def _check_training(network: AdaptedNetwork, inputs: Any) -> None:
    """Raise unless what enters the head in training mode, and every gradient, is what it is in the model.

    Both run once, forwards and backwards, as the training flags stand, on parameters and buffers that stand in for
    their own and from the same random state: neither statistics nor gradients are left behind. Not compared are models
    whose parameters nothing can stand in for (sharded, scripted), and those that do not repeat themselves.
    """
    if not can_be_apart(network):
        return
    inputs = detached(inputs)
    # Hooks of a checkpoint around this step must not see these tensors.
    with torch.enable_grad(), network.unmixed(), torch.autograd.graph.saved_tensors_hooks(_itself, _itself):
        ours = _ours(network, inputs)
        theirs = _theirs(network, inputs, ours)
        if not theirs.states:
            raise ValueError(f"head: {type(network.model).__name__} never runs {network.head_name!r} in training mode")
        if theirs.embeddings is None:
            ours = _ours(network, inputs, embeddings_count=False)
        problem = _problem(network, inputs, ours, theirs)
        repeats = not problem or not theirs.differs(_theirs(network, inputs, ours))
        torch.clear_autocast_cache()
    if problem and repeats:
        raise ValueError(problem)


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _ours(network: AdaptedNetwork, inputs: Any, *, embeddings_count: bool = True) -> _Pass:
    with same_random_state(network), _stand_ins(network) as parameters:
        output = network.embed(inputs)
        embeddings = network.pool(output)
        states = random_states(network)
        logits = network.classify(embeddings)
        gradients = _gradients([embeddings, logits] if embeddings_count else [logits], parameters)
    shape, has_graph, has_mask = tuple(embeddings.shape), embeddings.requires_grad, output.mask is not None
    return _Pass(embeddings.detach(), logits.detach(), shape, states, gradients, has_graph, has_mask)


def _theirs(network: AdaptedNetwork, inputs: Any, ours: _Pass) -> _Pass:
    """Return the model's own pass, its values laid out like the network's."""
    head, states = network.head_module, []
    with same_random_state(network), _stand_ins(network) as parameters:
        before = head.register_forward_pre_hook(lambda *_: states.append(random_states(network)))
        try:
            with passing(head) as (entered, left):
                output = network.run(inputs)
        finally:
            before.remove()
        fed, like = entered[-1:], cast("Tensor", ours.embeddings)
        if network.dense:
            fed = [_by_position(x, like) for x in fed]
            logits = _by_position(left[-1], ours.logits) if left else ours.logits.new_empty(0)
        else:
            fed = [x.flatten(1) for x in fed if x.ndim and x.flatten(1).shape == like.shape]
            logits = cast("Tensor", logits_of(output, left[-1] if left else None))
        gradients = _gradients([*fed, logits], parameters)
    embeddings, shape = (fed[0].detach() if fed else None), (tuple(entered[-1].shape) if entered else ())
    return _Pass(embeddings, logits.detach(), shape, states[-1] if states else [], gradients)


def _stand_ins(network: AdaptedNetwork) -> AbstractContextManager[dict[str, nn.Parameter]]:
    return apart(network) if torch.is_grad_enabled() else nullcontext({})


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


def _problem(network: AdaptedNetwork, inputs: Any, ours: _Pass, theirs: _Pass) -> str:
    """Return what is wrong, and what to write; nothing if the two are alike."""
    model, head, encoder = type(network.model).__name__, network.head_name, network.encoder_name
    found = _difference(ours.embeddings, theirs.embeddings)
    if not found and encoder and ours.draws_differ(theirs):
        found = "the model draws other random numbers before its head"
    if found and encoder:
        layers = _only_in_training(network, inputs)
        named = ", ".join(f"{name!r} ({type(module).__name__})" for name, (module, _) in layers.items())
        advice = _advice(network, {} if ours.has_mask else layers)
        return (
            f"encoder, pool: in training mode {model} does more between {encoder!r} and its head {head!r} than the "
            f"network ({found}): {named or 'something random or of the batch, F.dropout for one'}; {advice}"
        )
    if found:
        return (
            f"model: in training mode what enters the head {head!r} of {model} is not what the network makes of it "
            f"({found}); pass head={head!r}, which leaves everything before it to the model"
        )
    if found := _difference(ours.logits, theirs.logits):
        return (
            f"model: in training mode {model} does something to what its head {head!r} gives ({found}), which eval "
            "mode does not show; let it return that as it is"
        )
    wrong = _unlike(ours.gradients, theirs.gradients)
    return _about_gradients(network, wrong, has_graph=ours.has_graph) if wrong else ""


def _advice(network: AdaptedNetwork, layers: dict[str, tuple[nn.Module, Tensor]]) -> str:
    leave = f"leave encoder= out, adapt(model, head={network.head_name!r})"
    if not layers or not getattr(network, "pools_by_mean", False):
        return f"{leave}, or let pool= do it, too"
    name, (_, entered) = next(iter(layers.items()))
    if entered.ndim > 2:
        return f"{leave}, or pass encoder={name!r}"
    last = ", ".join(f"model.get_submodule({name!r})" for name in layers)
    return f"{leave}, or pass pool=nn.Sequential(nn.AdaptiveAvgPool2d((1, None)), nn.Flatten(), {last})"


def _only_in_training(network: AdaptedNetwork, inputs: Any) -> dict[str, tuple[nn.Module, Tensor]]:
    """Return the layers between encoder and head that change values in training mode alone, with what entered them."""
    model, found, started = network.model, {}, [False]

    def begin(*_: Any) -> None:
        started[0] = True

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            if started[0] and arguments and module.training and _changes(arguments[0], output):
                found[name] = (module, arguments[0])

        return hook

    inside = set(network.head_module.modules())
    leaves = {name: module for name, module in model.named_modules() if name and not any(module.children())}
    handles = [module.register_forward_hook(note(name)) for name, module in leaves.items() if module not in inside]
    handles.append(model.get_submodule(network.encoder_name).register_forward_hook(begin))
    try:
        with same_random_state(network), apart(network):
            network.run(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: seen for name, seen in found.items() if _does_nothing_in_eval(*seen)}


def _changes(entered: Any, left: Any) -> bool:
    tensors = isinstance(entered, Tensor) and isinstance(left, Tensor) and entered.shape == left.shape
    return tensors and not torch.equal(entered, left)


def _does_nothing_in_eval(module: nn.Module, entered: Tensor) -> bool:
    with in_eval(module):
        return torch.allclose(module.forward(entered), entered, rtol=1e-3)  # batch normalisation that is new: nearly


def _about_gradients(network: AdaptedNetwork, wrong: list[str], *, has_graph: bool) -> str:
    head, encoder = network.head_name, network.encoder_name
    names = listed([name.removeprefix("model.") for name in wrong], 3)
    model = type(network.model).__name__
    subject = f"{model}, split at its head {head!r}, does not train as itself: gradients of {names} differ"
    leave = f"leave encoder= out, adapt(model, head={head!r})"
    if not has_graph:
        where = f"the encoder {encoder!r}" if encoder else f"the head {head!r}"
        return (
            f"encoder: {subject}; {where} runs where no gradient is kept, as inside re-entrant checkpointing: let the "
            f"model call checkpoint(..., use_reentrant=False){f', or {leave}' if encoder else ''}"
        )
    if encoder:
        return (
            f"encoder, pool: {subject}; they take part in what runs between {encoder!r} and the head: {leave}, or "
            "let pool= do all of it"
        )
    return f"model: {subject}; pass head={head!r}, which leaves everything before it to the model"
