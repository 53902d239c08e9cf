"""Weights in a file: written whole or not at all, read by the network they are of and by no other."""

import hashlib
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from multimix.train.state import replacing


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

    Raises:
        ValueError: If the file is damaged, or holds anything else than the network's parameters and buffers.
    """
    try:
        load_model(network, str(path))
        absent = _absent(path, network)
    except Exception as error:  # safetensors has an error class of its own beside torch's
        raise ValueError(f"{path} is damaged or of another network: {' '.join(str(error).split())[:160]}") from error
    if absent:
        raise ValueError(f"{path} is damaged or of another network: it lacks {', '.join(absent)[:160]}")


def _absent(path: Path, network: nn.Module) -> list[str]:
    """Return what a file lacks of a network; of tensors that are one and the same, any name stands for all.

    Torch fills in the batch counts of batch normalisation by itself, as if the weights were from before it had them.
    """
    with safe_open(str(path), framework="pt") as file:
        names = set(file.keys())
    state = network.state_dict()
    held = {state[name].data_ptr() for name in names}
    return sorted(name for name, value in state.items() if name not in names and value.data_ptr() not in held)


def digest(path: Path) -> str:
    """Return the first 16 hexadecimal digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
