"""One way in for every model."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import nn

from multimix.models._adapted import AdaptedNetwork
from multimix.models._head import adapt_head
from multimix.models._named import adapt_named
from multimix.models._names import require_module
from multimix.models._network import StagedNetwork
from multimix.models._timm import adapt_timm, is_timm
from multimix.models._torchvision import adapt_torchvision, family_of
from multimix.models._transformers import adapt_transformers, is_transformers
from multimix.models._wrapped import refuse_unready
from multimix.ops import Gather, Objective
from multimix.protocols import Network


def adapt(
    model: nn.Module,
    *,
    encoder: str | None = None,
    head: str | None = None,
    pool: Callable | None = None,
    stages: Sequence[str] = (),
    mask: str | Callable | None = None,
    objective: Objective | None = None,
    dense: bool = False,
    gather: bool = False,
) -> StagedNetwork:
    """Return a model as a network that shares its parameters: ``adapt(model)(x)`` is ``model(x)``.

    timm's models and the classifiers of torchvision and transformers need nothing else. Of any other model the last
    linear layer is the head, and what enters it is the embedding; the first batch shows which layer that is, or it is
    named::

        adapt(model)
        adapt(model, head="fc")

    That is enough for all methods but those that mix maps or tokens (Dense MultiMix, AlignMix) or stages (manifold
    mixup: ``stages=``). For these a model of no known family is split at two named modules::

        adapt(model, encoder="backbone.layer4", head="fc")                          # mean over positions in between
        adapt(model, encoder="transformer", head="out", pool=lambda x: x[:, 0])     # class token
        adapt(model, encoder="body", head="out", pool=nn.Sequential(...))           # layers that train with the model

    The encoder's output may be a map, tokens, a vector, a packed sequence or a nested tensor, and is taken from a tuple
    (the first) or a mapping (``last_hidden_state``). Inputs are a tensor, or a mapping of keyword arguments.
    Sequences of different length have a mask: packed and nested ones bring theirs, others say where it is::

        adapt(model, encoder="encoder", head="out", mask="attention_mask")          # mean over real positions
        adapt(model, encoder="encoder", head="out", mask=lambda tokens: tokens != 0)

    On the first batch the network's logits are compared with the model's own in eval mode, on the first one in training
    mode what enters the head and all gradients, too; neither leaves a trace.

    Args:
        model: The model; one that is a network already comes back as it is.
        encoder: Dotted name of the module whose output is embedded; with it the model is split by name, whatever it is.
        head: Dotted name of the layer that gives the logits.
        pool: What the model does between the two, (b, r, d) -> (b, e), given together with them; if None, the mean over
            positions.
        stages: Dotted names of the modules to mix at, in the order in which they run; if empty, those usual for a known
            family, none for any other model. Stage 0, the inputs, is always there.
        mask: Which positions are real, where the model is split by name: a key of the inputs, or a function of them
            that returns (b, r). A ``pool`` of two parameters gets it as the second.
        objective: What the model is trained for: :class:`multimix.ops.CrossEntropy`, unless the model says otherwise,
            ``BinaryCrossEntropy`` or ``SquaredError``.
        dense: The model gives logits at every position, as for segmentation: nothing is pooled, and the network returns
            (b, r, k) at the positions of the encoder, or of what enters the head. Where the model is split by name.
        gather: In data-parallel training, MultiMix and Dense MultiMix interpolate the examples of all processes
            (:class:`multimix.ops.Gather`), whose generators are to be in step.

    Raises:
        TypeError: If an argument is not of its kind.
        ValueError: If the model cannot be split, a name is not in it, it is wrapped (distributed, compiled) or
            holds uninitialised parameters, or an option does not go with the others; on the first batch, if the head
            cannot be told, something follows it, or the network is not the model.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, got {model if isinstance(model, type) else type(model).__name__}"
        )
    if isinstance(model, Network):
        _refuse("{} does not apply: the model is a network already", encoder=encoder, head=head, pool=pool)
        _refuse("{} does not apply: the model is a network already", stages=stages or None, mask=mask)
        _refuse("{} does not apply: the model is a network already", objective=objective, dense=dense or None)
        _refuse("{} does not apply: the model is a network already", gather=gather or None)
        return cast(StagedNetwork, model)
    if objective is not None and not isinstance(objective, Objective):
        raise TypeError(f"objective must be an Objective such as CrossEntropy(), got {objective!r}")
    refuse_unready(model)
    _check_stages(model, stages)
    if dense:
        _refuse("{} does not go with dense=True: where every position has logits, nothing is pooled", pool=pool)
    if encoder is not None:
        network: AdaptedNetwork = adapt_named(model, encoder=encoder, head=head, pool=pool, stages=stages, mask=mask)
    else:
        _refuse("{} must be given together with encoder and head", pool=pool, mask=mask)
        if head is None:
            _refuse("{} must be given together with head", dense=dense or None)
        network = _of_family(model, stages) if head is None else adapt_head(model, head=head, stages=stages)
    network.dense = dense
    network.gather = Gather() if gather else None
    if objective is not None:
        network.objective = objective
    return network


def _of_family(model: nn.Module, stages: Sequence[str]) -> AdaptedNetwork:
    if is_transformers(model):
        return adapt_transformers(model, stages)
    if is_timm(model):
        return adapt_timm(model, stages)
    if family := family_of(model):
        return adapt_torchvision(model, family, stages)
    return adapt_head(model, head=None, stages=stages)


def _check_stages(model: nn.Module, stages: Sequence[str]) -> None:
    if isinstance(stages, str):
        raise TypeError(f"stages must be a sequence of names, got the string {stages!r}")
    for name in stages:
        require_module(model, name, "stages")


def _refuse(why: str, **options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(why.format(name))
