"""Where training begins: from the network of an earlier run, for fine-tuning."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from multimix.lab.data import Splits
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.folder import Facts, RunFolder
from multimix.lab.train.weights import read_weights

_ARCHITECTURE = ("model", "width", "strides", "final_norm")
"""The settings that two networks have in common where the weights of one mean the same in the other."""


def initialise(network: nn.Module, config: TrainConfig, splits: Splits) -> None:
    """Put the weights of the run that ``config.init`` names into a network; nothing where it names none.

    The classifier keeps its own initial weights where the classes are not the same, in number, name and order. What a
    run was normalised with, and its training, are not taken over.

    Raises:
        FileNotFoundError: If there is no run of that name, or it has no weights yet.
        ValueError: If its network is of another architecture, its weights are damaged, or ``pretrained`` is on too.
    """
    if config.init is None:
        return
    if config.pretrained:
        raise ValueError("init does not go with pretrained=True: training begins from one or from the other")
    run = RunFolder(Path(config.init))
    _check_architecture(run, config)
    given = _read(run, network)
    here = network.state_dict()
    new = set() if _same_classes(run.read_facts(), splits) else _classifier(network)
    _check_shapes(
        run, {n: t for n, t in given.items() if n not in new}, {n: t for n, t in here.items() if n not in new}
    )
    network.load_state_dict({**here, **{name: value for name, value in given.items() if name not in new}})


def _check_architecture(run: RunFolder, config: TrainConfig) -> None:
    try:
        there = run.read_config()
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"init: {error}") from error
    differing = [name for name in _ARCHITECTURE if getattr(there, name) != getattr(config, name)]
    if differing:
        listed = ", ".join(f"{name} {getattr(there, name)} instead of {getattr(config, name)}" for name in differing)
        raise ValueError(f"init: the network of run {run.path} is another one than is to be trained: {listed}")


def _read(run: RunFolder, network: nn.Module) -> dict[str, Tensor]:
    if not run.weights.is_file():
        raise FileNotFoundError(
            f"init: {run.path} has no model.safetensors yet; finish it with: multimix train --resume {run.path}"
        )
    try:
        return read_weights(run.weights, network)
    except ValueError as error:
        raise ValueError(f"init: {error}") from error


def _same_classes(facts: Facts | None, splits: Splits) -> bool:
    """Return whether a run's classes are those of the data; of a run that did not write them down, nobody knows."""
    return facts is not None and facts.classes == splits.classes


def _classifier(network: nn.Module) -> set[str]:
    """Return the names of the classifier's parameters and buffers; none where it is no affine layer."""
    head = getattr(network, "head", None)
    place = next((name for name, part in network.named_modules() if part is head), None) if head is not None else None
    return set() if place is None else {name for name in network.state_dict() if name.startswith(f"{place}.")}


def _check_shapes(run: RunFolder, given: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    for name in sorted({*given, *here}):
        theirs, ours = (tuple(part[name].shape) if name in part else "missing" for part in (given, here))
        if theirs != ours:
            raise ValueError(
                f"init: the network of run {run.path} does not fit: {name} is {theirs} there and {ours} in the network"
                " to be trained"
            )
