"""Weights in a file: written whole or not at all, read by the network they are of and by no other."""

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_model
from torch import Tensor, nn

from multimix.lab.train.state import replacing


def save_weights(path: Path, network: nn.Module) -> None:
    """Write the weights of a network, whole or not at all.

    Raises:
        OSError: If they cannot be written.
    """
    with replacing(path) as file:
        try:
            save_model(network, file.name)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from error


def load_weights(path: Path, network: nn.Module) -> None:
    """Fill a network with the weights of a file.

    Torch and safetensors let batch normalisation go without its batch counts; here every tensor must be there.

    Raises:
        ValueError: If the file is damaged, or holds anything else than the network's parameters and buffers.
    """
    given = read_weights(path, network)
    try:
        if missing := sorted(network.state_dict().keys() - given.keys()):
            raise RuntimeError(f"it lacks {', '.join(missing)}")
        network.load_state_dict(given)
    except RuntimeError as error:
        raise _unfit(path, error) from error


def read_weights(path: Path, network: nn.Module) -> dict[str, Tensor]:
    """Return what a file holds under all of its names in a network: what two layers share is written once.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        given = load_file(str(path))
    except Exception as error:  # safetensors has an error class of its own
        raise _unfit(path, error) from error
    here = network.state_dict()
    held = {_place(here[name]): value for name, value in given.items() if name in here}
    return given | {name: held[place] for name, value in here.items() if (place := _place(value)) in held}


def _unfit(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged or of another network: {' '.join(str(error).split())[:160]}")


def _place(value: Tensor) -> tuple[object, ...]:
    return value.data_ptr(), tuple(value.shape), value.stride()


def digest(path: Path) -> str:
    """Return the first 16 hexadecimal digits of a file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()[:16]
