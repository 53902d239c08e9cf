"""Trained networks in folders that Hugging Face's hub understands: safetensors, a JSON file and a model card."""

import json
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from torch import nn

from multimix import __version__
from multimix._declared import check
from multimix._optional import require
from multimix.lab._paths import expanded
from multimix.lab.hub._card import Record, card_of, records_of
from multimix.lab.runs.checkpoint import digest, load_weights, save_weights
from multimix.lab.runs.codec import from_json, register, to_json
from multimix.lab.train import load_trained
from multimix.lab.train.folder import Facts, RunFolder
from multimix.lab.train.objective import OBJECTIVES, in_numbers
from multimix.models import build
from multimix.ops import BinaryCrossEntropy, Objective, SquaredError, objective_of
from multimix.protocols import Network

register(SquaredError)
_CONFIG, _WEIGHTS, _CARD = "config.json", "model.safetensors", "README.md"
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
_MODEL_NAME = re.compile(r"(timm:|torchvision:)?\w[\w.\-]*")
_REPO = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*")


def save_pretrained(
    source: Network | Path | str, folder: Path | str, *, record: Any = None, config: Mapping[str, Any] | None = None
) -> Path:
    """Write a trained network to a folder: its weights, how to build it, and a model card.

    Args:
        source: The folder of a finished run, or a network.
        folder: Where to; it must not exist, or be empty.
        record: What was measured, for the card: a mapping with metrics (``accuracy``) and what they depend on
            (``seed``, ``n``, ``examples``, ``device``, ``commit``, ...), or a list of them. A run brings its own, those
            of exactly these weights; nothing is measured here.
        config: Of a network, what ``multimix.models.build`` makes it of: ``{"name": "preact_resnet18",
            "num_classes": 10, "width": 16}``. Without it, who loads the weights must bring the network.

    Raises:
        FileExistsError: If the folder holds anything.
        FileNotFoundError: If there is no finished run.
        ValueError: If ``config`` builds another network, or a record has no finite metric.
        TypeError: If an argument is of another kind.
    """
    return _save(source, expanded(folder), record, config, ".")


def _save(source: Any, target: Path, record: Any, config: Mapping[str, Any] | None, place: str) -> Path:
    """Write a network to a folder, which the model card calls ``place``."""
    records = records_of(record)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"folder {target} exists and is not empty")
    if isinstance(source, (str, Path)):
        if config is not None:
            raise ValueError("config must be left out: a run has its own")
        return _save_run(RunFolder(expanded(source)), target, records, place)
    if not isinstance(source, nn.Module):
        raise TypeError(f"source must be a network or the folder of a run, got {type(source).__name__}")
    return _save_network(source, target, records, config, place)


def push_to_hub(
    source: Network | Path | str,
    repo_id: str,
    *,
    record: Any = None,
    config: Mapping[str, Any] | None = None,
    private: bool | None = None,
    message: str = "Upload a network trained with MultiMix",
    api: Any = None,
) -> Any:
    """Write a trained network as :func:`save_pretrained` does and upload it; this is the one function that sends.

    Args:
        source: As in :func:`save_pretrained`.
        repo_id: ``owner/name`` on the hub; made if it is not there.
        record: As in :func:`save_pretrained`.
        config: As in :func:`save_pretrained`.
        private: Whether a new repository is; None for the owner's default.
        message: Of the commit.
        api: A ``huggingface_hub.HfApi``, with its token and address; None for one as the user has logged in.

    Returns:
        What the hub says of the commit.

    Raises:
        ValueError: If ``repo_id`` is none; and what :func:`save_pretrained` raises.
    """
    if not _is_repo(repo_id):
        raise ValueError(f"repo_id must be owner/name, got {repo_id!r}")
    if api is None:
        api = require("huggingface_hub", by="the hub").HfApi()
    with TemporaryDirectory() as place:
        folder = _save(source, Path(place) / "model", record, config, repo_id)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return api.upload_folder(repo_id=repo_id, folder_path=str(folder), commit_message=message)


def load_pretrained(
    source: Path | str, *, network: Network | None = None, revision: str | None = None, device: str = "cpu"
) -> tuple[Network, Facts | None]:
    """Return a network that :func:`save_pretrained` wrote, and what it knows of its data, None if that was not written.

    Args:
        source: A folder; or, if it is a text and there is neither such a folder nor one that could hold it,
            ``owner/name`` on the hub, which is asked.
        network: To load the weights into, where they were saved without how to build it.
        revision: Branch, tag or commit on the hub; with it the hub is asked even if there is a folder ``owner`` here.
        device: Where to put the network.

    Raises:
        FileNotFoundError: If there is no such folder, nor on the hub, or no safetensors in it.
        ValueError: If its files are damaged, do not fit each other, lead out of the folder or are pickles, or a folder
            is given with a revision.
        TypeError: If ``source`` or ``revision`` is of another kind.
    """
    folder = _folder(source, revision)
    weights, found = _own_file(folder, _WEIGHTS), _read(folder)
    trained_on, config = found.get("trained_on"), found.get("network")
    facts = Facts.read(trained_on) if trained_on else None
    if network is None and "config" in found:
        if facts is None:
            raise ValueError(f"{folder / _CONFIG} must say what the run was trained on, and has no trained_on")
        run = found["config"]
        _check_model_name(run.get("model") if isinstance(run, dict) else run)
        return load_trained(folder, device=device)
    if network is None and config is None:
        raise ValueError(f"network must be given: {folder} holds weights and not how to build what they are of")
    module = cast("nn.Module", _build(config) if network is None else network)
    load_weights(weights, module)
    if network is None and found.get("objective"):
        module.objective = _objective(found["objective"])  # type: ignore[assignment]  # that methods look for
    return cast("Network", module.to(device)), facts


def _save_run(run: RunFolder, target: Path, records: list[Record], place: str) -> Path:
    network, facts = load_trained(run.path, device="cpu")
    settings = run.read_config()
    found = json.loads(run.config_file.read_text(encoding="utf-8"))
    kind, _, path = settings.data.partition(":")
    data = f"{kind}:{Path(path).name}" if path else kind
    found.pop("data", None)
    found["config"] |= {"data": data, "root": "data"}  # where data lay on this machine is nobody's business
    found["trained_on"] = vars(facts)
    several = isinstance(run.read_objective(), BinaryCrossEntropy)
    rows = {
        "network": settings.model,
        "method": settings.title,
        "data": data,
        ("labels, of which an image may have any number" if several else "classes"): len(facts.classes),
        "images (c, h, w)": "x".join(map(str, facts.shape)),
        "normalised by mean": ", ".join(f"{value:.4g}" for value in facts.mean),
        "and standard deviation": ", ".join(f"{value:.4g}" for value in facts.std),
        "epochs": settings.epochs,
        "seed": settings.seed,
    }
    tested = {"weights": digest(run.weights), "suite": "accuracy"}
    own = [event for event in run.metrics.read("test") if tested.items() <= event.items()]
    name = f"{settings.model} trained with {settings.title}"
    card = card_of(name, records or records_of(own), data=data, rows=rows, facts=facts, network=False, place=place)
    return _write(cast("nn.Module", network), target, found, card)


def _save_network(
    network: nn.Module, target: Path, records: list[Record], config: Mapping[str, Any] | None, place: str
) -> Path:
    if config is None:
        rows = {"network": type(getattr(network, "model", network)).__name__}
    else:
        built = cast("nn.Module", _build(config))
        made, given = ({name: v.shape for name, v in module.state_dict().items()} for module in (built, network))
        if made != given:
            raise ValueError(f"config builds another network than source: {dict(config)}")
        rows = {"network": config["name"], **{key: value for key, value in config.items() if key != "name"}}
    data = next((str(record["data"]) for record in records if record.get("data")), None)
    name = f"{rows['network']} trained with MultiMix"
    card = card_of(name, records, data=data, rows=rows, facts=None, network=config is None, place=place)
    found = {"multimix": __version__, "network": config and dict(config), "objective": _written(objective_of(network))}
    return _write(network, target, found, card)


def _written(objective: Objective) -> Any:
    if type(objective) not in (*OBJECTIVES.values(), SquaredError):
        warnings.warn(f"objective {objective!r} is your own: set it again on the network that is loaded", stacklevel=4)
        return None
    return to_json(objective)


def _objective(written: Any) -> Objective:
    found = from_json(written)
    objective = in_numbers(found) if type(found) in OBJECTIVES else found
    if not isinstance(objective, Objective):
        raise ValueError(f"{_CONFIG}: objective must be one of multimix.ops, got {written!r}")
    return objective


def _write(network: nn.Module, target: Path, found: Record, card: str) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    try:
        save_weights(target / _WEIGHTS, network)
        (target / _CONFIG).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (target / _CARD).write_text(card, encoding="utf-8")
    except BaseException:
        shutil.rmtree(target)  # a half-written folder would pass for a whole one; it was empty before
        raise
    return target


def _folder(source: Path | str, revision: str | None) -> Path:
    """Return a folder that is there, or one that holds what the hub has; a name is only asked for if it is no path."""
    if not isinstance(source, (str, Path)):
        raise TypeError(f"source must be a folder or owner/name on the hub, got {source!r}")
    check(str | None, revision=revision)
    name, folder = str(source), expanded(source)
    if name and folder.is_dir():
        if revision is not None:
            raise ValueError(f"revision must be left out for {name!r}, which is a folder here, got {revision!r}")
        return folder
    missing = f"there is no folder {name!r}" + (", but a file" if folder.is_file() else "")
    if isinstance(source, Path) or not _is_repo(name):
        raise FileNotFoundError(f"{missing}; source must be a folder that is there or owner/name on the hub")
    if revision is None and folder.parent.is_dir():
        aside = f"{folder.parent} is a folder here, so the hub was not asked; revision='main' asks it"
        raise FileNotFoundError(f"{missing}: {aside}")
    hub = require("huggingface_hub", by="the hub")
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=[_CONFIG, _WEIGHTS, _CARD]))
    except (OSError, ValueError) as error:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise FileNotFoundError(f"{missing}, and the hub gave nothing of this name: {said}") from error


def _is_repo(repo_id: object) -> bool:
    return isinstance(repo_id, str) and _REPO.fullmatch(repo_id) is not None and ".." not in repo_id


def _own_file(folder: Path, name: str) -> Path:
    """Return a file of a folder, unless it is not there, leads out of it, or there are pickles in its place."""
    file = folder / name
    if not file.is_file():
        pickles = sorted(other.name for other in folder.iterdir() if other.suffix in _PICKLES)
        if pickles and name == _WEIGHTS:
            raise ValueError(f"{folder} holds {pickles[0]} and no {name}: pickles could run anything, and are refused")
        raise FileNotFoundError(f"there is no {name} in {folder}")
    blobs = folder.resolve().parent.parent / "blobs"  # where the hub's cache keeps what its snapshots point to
    if file.resolve().parent not in (folder.resolve(), blobs):
        raise ValueError(f"{name} must lie in {folder}, but leads to {file.resolve()}")
    return file


def _read(folder: Path) -> Record:
    file = _own_file(folder, _CONFIG)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    if not isinstance(found, dict) or "multimix" not in found:
        raise ValueError(f"{file} was not written by multimix")
    return found


def _build(config: Any) -> Network:
    if not isinstance(config, Mapping) or "name" not in config:
        raise ValueError(f"config must be a mapping with the name of a model, got {config!r}")
    _check_model_name(config["name"])
    if config.get("pretrained"):
        raise ValueError("config must not ask for pretrained weights: they come from the folder")
    try:
        return build(**config)
    except TypeError as error:
        raise ValueError(f"config must hold arguments of multimix.models.build: {error}") from error


def _check_model_name(name: object) -> None:
    """Refuse names that would make a library fetch or open something by them."""
    if not isinstance(name, str) or not _MODEL_NAME.fullmatch(name):
        raise ValueError(f"the model's name must be a plain one, timm:NAME or torchvision:NAME, got {name!r}")
