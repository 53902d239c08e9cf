"""The comparison of an adapted network with its model: the same logits, and in training the same gradients."""

import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from multimix._modules import evaluating
from multimix.models._modules import acts_affine, apart, can_be_apart, first_of, listed, random_states
from multimix.models._network import AdaptedNetwork
from multimix.models._values import Layout, detached, logits_of
from multimix.ops import BinaryCrossEntropy, CrossEntropy


def check_first_batch(network: AdaptedNetwork, inputs: Any) -> Any:
    """Compare logits on the first batch, on the first in training mode gradients, too; return what is left to do."""
    network.first_batch(inputs)
    _check_split(network, inputs)
    return _check_training(network, inputs)


def _check_split(network: AdaptedNetwork, inputs: Any) -> None:
    """Raise unless in eval mode the network's logits, and what enters a head that may be all zeros, are the model's.

    Logits at every position are compared with what leaves the head: the model may enlarge them.
    """
    with evaluating(network), torch.no_grad():
        ours = _ours(network, inputs)
        theirs = _theirs(network, inputs, ours)
    _check_rows(network, ours, len(theirs.logits))
    subject = "pool(embed(inputs)) is not what enters the head"
    found = _difference(ours.embeddings, theirs.embeddings)
    if not found:
        heard = f"it gets {theirs.entered}" if theirs.entered else "it is never called"
        what = "what leaves its head" if network.dense else "the model's logits"
        subject = f"classify(pool(embed(inputs))) is not {what} ({heard} in the model, {ours.entered} here)"
        found = _difference(ours.logits, theirs.logits)
    if found:
        with evaluating(network), torch.no_grad():
            if theirs.differs(_theirs(network, inputs, ours)):
                name = type(network.model).__name__
                warnings.warn(
                    f"{name} does not repeat itself in eval mode: its split was compared with nothing", stacklevel=2
                )
                return
        raise ValueError(
            f"encoder, pool, head: {type(network.model).__name__}, split at its head {network.head_name!r}, is not "
            f"itself: {subject}; {found}. Pass as head= the layer that gives the logits, as encoder= the module "
            "whose output is to be mixed, as pool= a function (b, r, d) -> (b, e) of all that the model does in between"
        )
    _check_logits(network, ours.logits)
    head, embeddings = network.head_module, cast("Tensor", ours.embeddings)
    if network.head is None or not (head._forward_hooks or head._forward_pre_hooks):
        return
    with evaluating(network):
        if not acts_affine(network.classify, embeddings):
            raise ValueError(
                f"head: a hook on {network.head_name!r} of {type(network.model).__name__} makes it no affine layer; do "
                "what the hook does in a module of its own, and pass that one as head="
            )


def _check_rows(network: AdaptedNetwork, ours: "_Pass", examples: int) -> None:
    """Raise unless embeddings and what a given function pools them to have a row for each example."""
    output, name = ours.output, network.encoder_name
    shape = tuple(output.features.shape)
    if examples and len(output.features) != examples:
        raise ValueError(
            f"encoder: what {name!r} gives is read as (b, r, d), {shape}, for {examples} examples; the batch must be "
            "its first axis, as with batch_first=True"
        )
    if name is None or network.pools_by_mean:
        return
    mask = None if output.mask is None else output.mask[:1]
    with evaluating(network), torch.no_grad(), apart(network):
        alone = network.pool(replace(output, features=output.features[:1], mask=mask))
    if len(alone) != 1:
        raise ValueError(
            f"pool must take (b, r, d) to (b, e), each example by itself; of {(1, *shape[1:])} it makes "
            f"{tuple(alone.shape)}"
        )


def _check_logits(network: AdaptedNetwork, logits: Tensor) -> None:
    """Raise if the head gives probabilities where logits are compared with targets."""
    objective = getattr(network.objective, "objective", network.objective)
    if network.head is not None or not isinstance(objective, CrossEntropy | BinaryCrossEntropy):
        return
    *_, last = network.head_module.modules()
    shares = logits.shape[-1] > 1 and logits.numel() and logits.amin() >= 0
    if isinstance(last, nn.Softmax | nn.Sigmoid) or (shares and bool(((logits.sum(-1) - 1).abs() < 0.01).all())):
        raise ValueError(
            f"head: what {network.head_name!r} of {type(network.model).__name__} gives are probabilities, while methods"
            " need the logits themselves; put nn.Identity() in the place of the softmax or sigmoid"
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
    """What a forward and a backward pass left: values, random states before the head, and gradients."""

    embeddings: Tensor | None  # None of a model that pools behind its head
    logits: Tensor
    entered: tuple[int, ...]  # the shape of what entered the head, () if that was never called
    states: list[Tensor]
    gradients: dict[str, Tensor | None]
    has_graph: bool = True  # whether gradients reach further than the embeddings
    output: Any = None  # an EncoderOutput, of the network alone

    def differs(self, other: "_Pass") -> bool:
        """Whether two passes of the same model are not alike, as of one that seeds its own randomness."""
        values = _difference(self.embeddings, other.embeddings) or _difference(self.logits, other.logits)
        return bool(values or self.draws_differ(other) or _unlike(self.gradients, other.gradients))

    def draws_differ(self, other: "_Pass") -> bool:
        """Whether other random numbers were drawn before the head."""
        return any(not torch.equal(a, b) for a, b in zip(self.states, other.states, strict=True))


def _check_training(network: AdaptedNetwork, inputs: Any) -> Any:
    """Raise unless what enters the head in training mode, and every gradient, is what it is in the model."""
    if not (network.model.training and torch.is_grad_enabled()):
        return _check_training
    if not can_be_apart(network):
        return None
    for name, values in [("inputs", inputs), *((f"model: {n}", p) for n, p in network.model.named_parameters())]:
        if isinstance(values, Tensor) and values.is_inference():
            raise ValueError(f"{name} was made in torch.inference_mode and takes part in no gradient; make it outside")
    inputs = detached(inputs)
    # Hooks of a checkpoint around this step must not see these tensors.
    kept = torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
    with torch.enable_grad(), kept:
        ours = _ours(network, inputs)
        theirs = _theirs(network, inputs, ours)
        if not theirs.states:
            raise ValueError(f"head: {type(network.model).__name__} never runs {network.head_name!r} in training mode")
        if theirs.embeddings is None:
            ours = _ours(network, inputs, embeddings_count=False)
        problem = _problem(network, inputs, ours, theirs)
        if problem and theirs.differs(_theirs(network, inputs, ours)):
            problem = ""  # the model does not repeat itself
        torch.clear_autocast_cache()
    if problem:
        raise ValueError(problem)
    return None


def _ours(network: AdaptedNetwork, inputs: Any, *, embeddings_count: bool = True) -> _Pass:
    with apart(network) as parameters:
        output = network.embed(inputs)
        try:
            embeddings = network.pool(output)
            states = random_states(network)
            logits = network.classify(embeddings)
        except (IndexError, RuntimeError, TypeError) as error:
            if network.encoder_name is None:
                raise
            raise ValueError(
                f"encoder, pool: features (b, r, d) of {network.encoder_name!r}, {tuple(output.features.shape)}, do not"
                f" reach the head {network.head_name!r}: {error}"
            ) from error
        gradients = _gradients([embeddings, logits] if embeddings_count else [logits], parameters)
    shape, has_graph = tuple(embeddings.shape), embeddings.requires_grad
    return _Pass(embeddings.detach(), logits.detach(), shape, states, gradients, has_graph, output)


def _theirs(network: AdaptedNetwork, inputs: Any, ours: _Pass) -> _Pass:
    """Return the model's own pass, its values laid out like the network's."""
    head, states = network.head_module, []
    entered: list[Tensor] = []
    left: list[Tensor] = []

    def record(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        first = first_of(arguments, keywords)
        if isinstance(first, Tensor) and isinstance(output, Tensor):
            entered[:], left[:] = [first], [output]

    with apart(network) as parameters:
        before = head.register_forward_pre_hook(lambda *_: states.append(random_states(network)))
        with before, head.register_forward_hook(record, with_kwargs=True):
            output = network.run(inputs)
        like = cast("Tensor", ours.embeddings)
        if network.dense:
            fed = [Layout.of(x, like.shape[-1]).flatten(x) for x in entered]
            by_position = [Layout.of(x, ours.logits.shape[-1]).flatten(x) for x in left]
            logits = by_position[0] if left else ours.logits.new_empty(0)
        else:
            fed = [x.flatten(1) for x in entered if x.ndim and x.flatten(1).shape == like.shape]
            logits = cast("Tensor", logits_of(output, left[0] if left else None))
        gradients = _gradients([*fed, logits], parameters)
    embeddings, shape = (fed[0].detach() if fed else None), (tuple(entered[0].shape) if entered else ())
    return _Pass(embeddings, logits.detach(), shape, states[-1] if states else [], gradients)


def _gradients(values: list[Tensor], parameters: dict[str, nn.Parameter]) -> dict[str, Tensor | None]:
    """Return the gradients of a fixed combination of values, which lacks no direction."""
    total = []
    for x in values:
        if x.requires_grad:
            direction = torch.arange(1.0, x.numel() + 1).cos().reshape(x.shape).to(x.device)
            total.append((x.float() * direction).sum())
    if total:
        torch.stack(total).sum().backward()
    return {name: parameter.grad for name, parameter in parameters.items()}


def _unlike(ours: dict[str, Tensor | None], theirs: dict[str, Tensor | None]) -> list[str]:
    """Return the names of the parameters whose gradients differ by more than rounding."""
    largest = max(map(_size, theirs.values()), default=0.0)
    return [name for name in theirs if not _alike(ours[name], theirs[name], largest)]


def _size(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None else float(gradient.float().abs().max())


def _alike(ours: Tensor | None, theirs: Tensor | None, largest: float) -> bool:
    if ours is None or theirs is None or not ours.any():
        # Gradients that would be zero, as in front of batch normalisation, are rounding.
        return max(_size(ours), _size(theirs)) <= 1e-6 * largest
    # NaN compares to nothing: a model that gives it is not for this check to judge.
    return not _size(ours.float() - theirs.float()) > 0.1 * _size(theirs) + 0.01 * largest


def _problem(network: AdaptedNetwork, inputs: Any, ours: _Pass, theirs: _Pass) -> str:
    """Return what is wrong, and what to write; nothing if the two are alike."""
    model, head, encoder = type(network.model).__name__, network.head_name, network.encoder_name
    found = _difference(ours.embeddings, theirs.embeddings)
    if not found and encoder and ours.draws_differ(theirs):
        found = "the model draws other random numbers before its head"
    if found and encoder:
        layers = _only_in_training(network, inputs)
        named = ", ".join(f"{name!r} ({type(module).__name__})" for name, (module, _) in layers.items())
        return (
            f"encoder, pool: in training mode {model} does more between {encoder!r} and its head {head!r} than the "
            f"network ({found}): {named or 'something random or of the batch, F.dropout for one'}; leave encoder= out, "
            f"adapt(model, head={head!r}), or {_instead(network, {} if ours.output.mask is not None else layers)}"
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


def _instead(network: AdaptedNetwork, layers: dict[str, tuple[nn.Module, Tensor]]) -> str:
    """Return what to write to have layers between encoder and head, where the encoder is kept."""
    if not layers or not network.pools_by_mean:
        return "let pool= do it, too"
    name, (_, entered) = next(iter(layers.items()))
    if entered.ndim > 2:
        return f"pass encoder={name!r}"
    last = ", ".join(f"model.get_submodule({name!r})" for name in layers)
    return f"pass pool=nn.Sequential(nn.AdaptiveAvgPool2d((1, None)), nn.Flatten(), {last})"


def _only_in_training(network: AdaptedNetwork, inputs: Any) -> dict[str, tuple[nn.Module, Tensor]]:
    """Return the layers between encoder and head that change values in training mode alone, with what entered them."""
    model, head, encoder = network.model, set(network.head_module.modules()), network.encoder_name
    started: list[bool] = []
    found: dict[str, tuple[nn.Module, Tensor]] = {}

    def note(name: str, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        entered: Any = arguments[0] if arguments and started and module.training else None
        alike = isinstance(entered, Tensor) and isinstance(output, Tensor) and entered.shape == output.shape
        if alike and not torch.equal(entered, output):
            found[name] = (module, entered)

    with apart(network), ExitStack() as hooks:
        for name, module in model.named_modules():
            if name and not any(module.children()) and module not in head:
                hooks.enter_context(module.register_forward_hook(partial(note, name)))
        hooks.enter_context(model.get_submodule(encoder).register_forward_hook(lambda *_: started.append(True)))
        network.run(inputs)
    with evaluating(model):  # batch normalisation that is new does nearly nothing in it
        return {name: (m, x) for name, (m, x) in found.items() if torch.allclose(m.forward(x), x, rtol=1e-3)}


def _about_gradients(network: AdaptedNetwork, wrong: list[str], *, has_graph: bool) -> str:
    head, encoder = network.head_name, network.encoder_name
    names = listed([name.removeprefix("model.") for name in wrong], 3)
    subject = f"{type(network.model).__name__}, split at its head {head!r}, does not train as itself: gradients of"
    leave = f"leave encoder= out, adapt(model, head={head!r})"
    if not has_graph:
        where = f"the encoder {encoder!r}" if encoder else f"the head {head!r}"
        return (
            f"encoder: {subject} {names} differ; {where} runs where no gradient is kept, as inside re-entrant "
            "checkpointing: let the model call checkpoint(..., use_reentrant=False)" + (f", or {leave}" * bool(encoder))
        )
    instead, around = f"let the model return what {head!r} gives", head.rpartition(".")[0]
    if around and all(name.startswith(f"model.{around}.") for name in wrong):
        instead = f"pass head={around!r} if it holds nothing else, or {instead}"
        leave += f" ({instead})"
    if encoder:
        return (
            f"encoder, pool: {subject} {names} differ; they take part in what runs between {encoder!r} and the head: "
            f"{leave}, or let pool= do all of it"
        )
    if network.runs_to_head:
        return f"head: {subject} {names} differ; they take part beside or after {head!r}: {instead}"
    return f"model: {subject} {names} differ; pass head={head!r}, which leaves everything before it to the model"
