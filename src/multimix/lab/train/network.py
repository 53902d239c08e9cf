"""A run's data and its network: built for the data, begun from an earlier run, loaded from a finished one."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from multimix.lab._paths import expanded
from multimix.lab.data import Splits, ignoring, load
from multimix.lab.data._sets import one_line
from multimix.lab.runs.checkpoint import load_weights, read_weights
from multimix.lab.runs.codec import with_own_data
from multimix.lab.runs.environment import device_named
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.folder import Facts, RunFolder
from multimix.lab.train.objective import as_settings, objective_for
from multimix.models import build
from multimix.protocols import Network

_LEAST_CHANNELS = 8
"""With fewer, torch 2.14 writes outside its memory in strided 1 x 1 convolutions on a CPU."""


def build_network(config: TrainConfig, data: Splits | Facts) -> nn.Module:
    """Return the configured network for the classes and images of ``data``."""
    channels, height, _ = data.shape
    settings: Any = {name: getattr(config, name) for name in ("width", "strides", "final_norm", "pretrained")}
    try:
        network = build(
            config.model, num_classes=len(data.classes), in_channels=channels, image_size=height, **settings
        )
    except OSError as error:  # of the network, as urllib and the hub's client have it
        if not config.pretrained:
            raise
        raise OSError(
            f"pretrained: the weights of {config.model} are not on this machine and cannot be fetched"
            f" ({one_line(error)}); without pretrained, training begins from scratch"
        ) from error
    return cast("nn.Module", network)


def initialise(network: nn.Module, config: TrainConfig, splits: Splits) -> None:
    """Put the weights of the run that ``config.init`` names into a network, the classifier's for the same classes."""
    if config.init is None:
        return
    if config.pretrained:
        raise ValueError("init does not go with pretrained=True: training begins from one or from the other")
    run = RunFolder(config.init)
    try:
        there = run.read_config()
        architecture = ("model", "width", "strides", "final_norm")
        differing = [name for name in architecture if getattr(there, name) != getattr(config, name)]
        if differing:
            pairs = (f"{name} {getattr(there, name)} instead of {getattr(config, name)}" for name in differing)
            raise ValueError(f"the network of run {run.path} is another one than is to be trained: {', '.join(pairs)}")
        run.check_weights("train")
        given, here = read_weights(run.weights, network), network.state_dict()
        facts = run.read_facts()
        head = getattr(network, "head", None)  # None where the classifier is no affine layer
        places = tuple(f"{name}." for name, part in network.named_modules() if part is head)
        same = facts is not None and facts.classes == splits.classes  # which old runs did not write down
        new = set() if same else {name for name in here if name.startswith(places)}
        for name in sorted({*given, *here} - new):
            theirs, ours = (tuple(part[name].shape) if name in part else "missing" for part in (given, here))
            if theirs != ours:
                raise ValueError(
                    f"the network of run {run.path} does not fit: {name} is {theirs} there and {ours} in the network"
                    " to be trained"
                )
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"init: {error}") from error
    network.load_state_dict({**here, **{name: value for name, value in given.items() if name not in new}})


def put_channels_last(network: nn.Module, device: torch.device) -> None:
    """Keep a network's filters with channels last, from which a convolution takes its format."""
    convolutions = {name: part for name, part in network.named_modules() if isinstance(part, nn.Conv2d)}
    for name, part in convolutions.items() if device.type == "cpu" else ():
        if max(part.stride) > 1 and max(part.kernel_size) == 1 and part.in_channels < _LEAST_CHANNELS:
            raise ValueError(
                f"channels_last on a CPU needs at least {_LEAST_CHANNELS} channels into every strided 1 x 1"
                f" convolution, got {part.in_channels} into {name}: widen the network or leave channels_last off"
            )
    network.to(memory_format=torch.channels_last)


def data_settings(config: TrainConfig) -> dict[str, Any]:
    """Return what, beside its name, says which data set is loaded and how it is split."""
    names = ("root", "validation", "download", "train_size", "image_size", "skip_unreadable")
    split_seed = config.seed if config.split_seed is None else config.split_seed
    own = {"ignore_index": ignored_by(config), "split_seed": split_seed}
    return {**own, **{name: getattr(config, name) for name in names}}


def ignored_by(config: TrainConfig) -> int | None:
    """Return the label of images that have no class."""
    return getattr(config.objective, "ignore_index", None)


def load_data(config: TrainConfig) -> Splits:
    """Return the configured data set."""
    return load(config.data, **data_settings(config))


def found_again(run: RunFolder, config: TrainConfig, data: str | None = None, root: str | None = None) -> TrainConfig:
    """Return the configuration of a run with its data where they are now: as given, or where relative paths began."""
    if data is not None or root is not None:
        return with_own_data(replace(config, data=data or config.data, root=root or config.root))
    home = Path(run.read_data().get("from", "."))

    def now(path: str) -> str:
        return str(home / path) if not expanded(path).exists() and (home / path).exists() else path

    kind, _, path = config.data.partition(":")
    if kind in ("folder", "npz") and now(path) != path:
        config = replace(config, data=f"{kind}:{now(path)}")
    return replace(config, root=now(config.root), init=config.init and now(config.init))


def load_again(config: TrainConfig) -> Splits:
    """Return the data of a run, or say how to tell where they are now."""
    try:
        return load_data(config)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; where the run's data are now is told by --data (and --root)") from error


def load_network(
    folder: Path,
    splits: Splits | None = None,
    *,
    data: str | None = None,
    root: str | None = None,
    device: str = "auto",
    trust_code: bool = False,
) -> tuple[Network, Splits]:
    """Return the trained network of a run, and its data, which must be those that it was trained on unless given.

    Args:
        folder: The run.
        splits: The data, if it is loaded already.
        data: Where the data are now, or which others to take, as ``TrainConfig.data`` has it.
        root: Where data sets lie now that are given by name.
        device: Where to put the network.
        trust_code: Run the file of a user's own that the run keeps, if its data are from one; the network needs none.

    Raises:
        FileNotFoundError: If there is no run, or it has not ended.
        ValueError: If its files are damaged or do not fit each other, the data have changed since, or they need code
            that is not trusted or has changed.
    """
    run = RunFolder(folder)
    config = run.read_config()
    run.check_weights("train")
    if splits is None:
        code = None if data else run.read_code("data", trust_code=trust_code)
        splits = load_again(found_again(run, run.read_config(code), data, root))
        if data is None:
            run.check_data(splits, f"name them to measure on them all the same: --data {splits.name}")
    splits = ignoring(splits, ignored_by(config))
    facts = run.read_facts() or Facts.of(splits)
    facts.check(splits)
    objective_for(as_settings(run.read_objective()), splits)
    return _network(run, config, facts, device), splits


def load_trained(folder: Path, *, device: str = "auto") -> tuple[Network, Facts]:
    """Return the trained network of a run and what it knows of its data, which need not be there.

    Nothing that a user's own files hold is run: neither network nor facts are from there.

    Raises:
        FileNotFoundError: If there is no run, or it has not ended.
        ValueError: If its files are damaged or do not fit each other.
    """
    run = RunFolder(folder)
    config = run.read_config()
    run.check_weights("train")
    facts = run.read_facts() or Facts.of(load_data(config))
    return _network(run, config, facts, device), facts


def _network(run: RunFolder, config: TrainConfig, facts: Facts, device: str) -> Network:
    network = build_network(replace(config, pretrained=False), facts)  # weights come from the run, nothing is fetched
    load_weights(run.weights, network)
    network.objective = run.read_objective()  # type: ignore[assignment]  # an attribute that methods look for
    return cast("Network", network.to(device_named(config.device) if device == "auto" else device))
