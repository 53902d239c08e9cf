"""Trained networks in folders that Hugging Face's hub understands: safetensors, a JSON file and a model card."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from torch import nn

from multimix import __version__
from multimix._optional import require
from multimix.lab._card import model_card, normal_records
from multimix.lab.train import load_trained
from multimix.lab.train.folder import Facts, RunFolder
from multimix.lab.train.weights import digest, load_weights, save_weights
from multimix.models import build
from multimix.protocols import Network

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
    target = Path(folder)
    records = normal_records(record)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"folder {target} exists and is not empty")
    if isinstance(source, (str, Path)):
        return _save_run(RunFolder(Path(source)), target, records, config)
    if not isinstance(source, nn.Module):
        raise TypeError(f"source must be a network or the folder of a run, got {type(source).__name__}")
    return _save_network(source, target, records, config)


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
        source: See :func:`save_pretrained`, likewise ``record`` and ``config``.
        repo_id: ``owner/name`` on the hub; made if it is not there.
        record: See ``source``.
        config: See ``source``.
        private: Whether a new repository is; None for the owner's default.
        message: Of the commit.
        api: A ``huggingface_hub.HfApi``, with its token and address; None for one as the user has logged in.

    Returns:
        What the hub says of the commit.

    Raises:
        ValueError: If ``repo_id`` is none, or as :func:`save_pretrained`.
    """
    _check_repo(repo_id)
    if api is None:
        api = require("huggingface_hub", by="the hub").HfApi()
    with TemporaryDirectory() as place:
        folder = save_pretrained(source, Path(place) / "model", record=record, config=config)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return api.upload_folder(repo_id=repo_id, folder_path=str(folder), commit_message=message)


def load_pretrained(
    source: Path | str,
    *,
    network: Network | None = None,
    revision: str | None = None,
    device: str = "cpu",
) -> tuple[Network, Facts | None]:
    """Return a network that :func:`save_pretrained` wrote, and what it knows of its data, None if that was not written.

    Args:
        source: A folder; or, if it is a text and there is no such folder, ``owner/name`` on the hub, which is asked.
        network: To load the weights into, where they were saved without how to build it.
        revision: Branch, tag or commit on the hub.
        device: Where to put the network.

    Raises:
        FileNotFoundError: If there is no such folder, or no safetensors in it.
        ValueError: If its files are damaged, do not fit each other, lead out of the folder or are pickles.
    """
    folder = _folder(source, revision)
    weights, found = _own_file(folder, _WEIGHTS), _read(folder)
    if network is None:
        network, facts = _built(folder, found, device)
        return network, facts
    module = cast("nn.Module", network)
    load_weights(weights, module)
    return cast("Network", module.to(device)), _facts(found)


def _save_run(run: RunFolder, target: Path, records: list[dict[str, Any]], config: Mapping[str, Any] | None) -> Path:
    if config is not None:
        raise ValueError("config must be left out: a run has its own")
    network, facts = load_trained(run.path, device="cpu")
    settings = run.read_config()
    found = json.loads(run.config_file.read_text(encoding="utf-8"))
    data = _without_path(settings.data)
    found["config"] |= {"data": data, "root": "data"}  # where data lay on this machine is nobody's business
    found["trained_on"] = {name: list(value) for name, value in vars(facts).items()}
    rows = {
        "network": settings.model,
        "method": settings.title,
        "data": data,
        "classes": len(facts.classes),
        "images (c, h, w)": "x".join(map(str, facts.shape)),
        "normalised by mean": ", ".join(f"{value:.4g}" for value in facts.mean),
        "and standard deviation": ", ".join(f"{value:.4g}" for value in facts.std),
        "epochs": settings.epochs,
        "seed": settings.seed,
    }
    card = model_card(
        f"{settings.model} trained with {settings.title}",
        records=records or _own_records(run),
        rows=rows,
        usage=_usage("network, facts"),
        data=data,
    )
    return _write(cast("nn.Module", network), target, found, card)


def _save_network(
    network: nn.Module, target: Path, records: list[dict[str, Any]], config: Mapping[str, Any] | None
) -> Path:
    if config is not None:
        _check_builds(config, network)
    name = "a network" if config is None else str(config["name"])
    model = getattr(network, "model", network)
    rows = {"network": type(model).__name__ if config is None else name}
    rows |= {key: value for key, value in (config or {}).items() if key != "name"}
    data = next((str(record["data"]) for record in records if record.get("data")), None)
    usage = _usage("network, _", "" if config is not None else ", network=net")
    card = model_card(f"{rows['network']} trained with MultiMix", records=records, rows=rows, usage=usage, data=data)
    found = {"multimix": __version__, "network": None if config is None else dict(config)}
    return _write(network, target, found, card)


def _write(network: nn.Module, target: Path, found: dict[str, Any], card: str) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    try:
        save_weights(target / _WEIGHTS, network)
        (target / _CONFIG).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (target / _CARD).write_text(card, encoding="utf-8")
    except BaseException:
        shutil.rmtree(target)  # a half-written folder would pass for a whole one; it was empty before
        raise
    return target


def _own_records(run: RunFolder) -> list[dict[str, Any]]:
    """Return what was measured of exactly these weights."""
    weights = digest(run.weights)
    return normal_records(
        [
            {name: value for name, value in event.items() if name != "event"}
            for event in run.metrics.read()
            if event["event"] == "test" and event.get("weights") == weights and event.get("suite") == "accuracy"
        ]
    )


def _usage(names: str, more: str = "") -> str:
    lines = ["from multimix.integrations import load_pretrained"]
    if more:
        lines += ["", "net = ...  # the same network, with any weights"]
    return "\n".join([*lines, f'{names} = load_pretrained("owner/name"{more})', "logits = network(images)"])


def _without_path(data: str) -> str:
    kind, _, path = data.partition(":")
    return f"{kind}:{Path(path).name}" if path else kind


def _folder(source: Path | str, revision: str | None) -> Path:
    folder = Path(source)
    if folder.is_dir():
        return folder
    if isinstance(source, Path) or not _REPO.fullmatch(source):
        raise FileNotFoundError(f"source must be a folder that is there or owner/name on the hub, got {str(source)!r}")
    _check_repo(source)
    hub = require("huggingface_hub", by="the hub")
    return Path(hub.snapshot_download(source, revision=revision, allow_patterns=[_CONFIG, _WEIGHTS, _CARD]))


def _check_repo(repo_id: object) -> None:
    if not isinstance(repo_id, str) or not _REPO.fullmatch(repo_id) or ".." in repo_id:
        raise ValueError(f"repo_id must be owner/name, got {repo_id!r}")


def _own_file(folder: Path, name: str) -> Path:
    """Return a file of a folder.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it leads out of the folder, or there are pickles in its place.
    """
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


def _read(folder: Path) -> dict[str, Any]:
    file = _own_file(folder, _CONFIG)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    if not isinstance(found, dict) or "multimix" not in found:
        raise ValueError(f"{file} was not written by multimix")
    return found


def _built(folder: Path, found: dict[str, Any], device: str) -> tuple[Network, Facts | None]:
    if "config" in found:
        if not found.get("trained_on"):
            raise ValueError(f"{folder / _CONFIG} must say what the run was trained on, and has no trained_on")
        config = found["config"]
        _check_model_name(config.get("model") if isinstance(config, dict) else config)
        return load_trained(folder, device=device)
    config = found.get("network")
    if config is None:
        raise ValueError(f"network must be given: {folder} holds weights and not how to build what they are of")
    network = _build(config)
    load_weights(folder / _WEIGHTS, cast("nn.Module", network))
    return cast("Network", cast("nn.Module", network).to(device)), None


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
    """Raise ValueError for names that would make a library fetch or open something by them."""
    if not isinstance(name, str) or not _MODEL_NAME.fullmatch(name):
        raise ValueError(f"the model's name must be a plain one, timm:NAME or torchvision:NAME, got {name!r}")


def _check_builds(config: Mapping[str, Any], network: nn.Module) -> None:
    built = cast("nn.Module", _build(config)).state_dict()
    given = network.state_dict()
    if {name: tuple(value.shape) for name, value in built.items()} != {n: tuple(v.shape) for n, v in given.items()}:
        raise ValueError(f"config builds another network than source: {dict(config)}")


def _facts(found: dict[str, Any]) -> Facts | None:
    given = found.get("trained_on")
    return None if not given else Facts(**{name: tuple(value) for name, value in given.items()})
