"""Checkpoints, which hold all that a run needs to go on and are read without running what is in them, and weights."""

import hashlib
import random
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_model
from torch import Tensor, nn

from multimix.lab.runs.files import replacing

FORMAT = 1


def previous(path: Path) -> Path:
    """Return where the checkpoint before the newest one is kept."""
    return path.with_name("previous.ckpt")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` with the state of every random generator; the checkpoint before is kept beside it."""
    with replacing(path, keep=previous(path)) as file:
        try:
            torch.save({"format": FORMAT, "random": random_states(), **state}, file)
        except RuntimeError as error:  # torch goes on after a failed write, and stumbles over what is then missing
            raise error.__context__ or error from None


def load_newest(path: Path) -> dict[str, Any] | None:
    """Return the checkpoint at ``path``, or the one before if it is damaged; None if there is none."""
    there = [file for file in (path, previous(path)) if file.is_file()]
    for file in there:
        try:
            return load_checkpoint(file)
        except ValueError as error:
            if file == there[-1]:
                raise
            warnings.warn(f"{error}; going on from the one before, {previous(path)}", stacklevel=2)
    return None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return what :func:`save_checkpoint` wrote, on the CPU."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the sums of the records
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"{damaged} does not have its check sum")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives and pickles end in errors of every kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"checkpoint {path} is damaged or not a checkpoint: {reason[:120]}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise ValueError(
            f"checkpoint {path} was not written by this version of multimix: format {found!r}, not {FORMAT}"
        )
    return state


def random_states() -> dict[str, Any]:
    """Return the state of the global generators of Python, NumPy and torch."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 (others may use it)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Put the global generators where :func:`random_states` found them."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


def save_weights(path: Path, network: nn.Module) -> None:
    """Write the weights of a network, whole or not at all."""
    with replacing(path) as file:
        try:
            save_model(network, file.name)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from error


def load_weights(path: Path, network: nn.Module) -> None:
    """Fill a network with the weights of a file."""
    given = read_weights(path, network)
    try:  # torch and safetensors let batch normalisation go without its batch counts; here every tensor must be there
        if missing := sorted(network.state_dict().keys() - given.keys()):
            raise RuntimeError(f"it lacks {', '.join(missing)}")
        network.load_state_dict(given)
    except RuntimeError as error:
        raise _unfit(path, error) from error


def read_weights(path: Path, network: nn.Module) -> dict[str, Tensor]:
    """Return what a file holds under all of its names in a network: what two layers share is written once."""
    try:
        given = load_file(str(path))
    except Exception as error:  # safetensors has an error class of its own
        raise _unfit(path, error) from error
    places = {name: (v.data_ptr(), tuple(v.shape), v.stride()) for name, v in network.state_dict().items()}
    held = {places[name]: value for name, value in given.items() if name in places}
    return given | {name: held[place] for name, place in places.items() if place in held}


def _unfit(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged or of another network: {' '.join(str(error).split())[:160]}")


def digest(path: Path) -> str:
    """Return the first 16 hexadecimal digits of a file's SHA-256."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            found.update(chunk)
    return found.hexdigest()[:16]
