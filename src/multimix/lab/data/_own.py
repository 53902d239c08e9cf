"""A data set that a function of the user's own returns."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from multimix.lab._code import Reference, called, find, takes_nothing
from multimix.lab.data._archive import parts_of
from multimix.lab.data._source import Parts

__all__ = ["own_data", "read_own"]

_CONTRACT = (
    "a mapping with the arrays train_images, train_labels, test_images and test_labels, perhaps val_images and"
    " val_labels, as in an npz file, or a multimix.lab.data.Splits"
)


def own_data(text: str) -> Reference:
    """Return what ``FILE.py:FUNCTION``, or the only function of ``FILE.py``, refers to; the file is run.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no function without arguments of that name; in one line.
    """
    reference = find(text, "function without arguments", _is_loader)
    if not _is_loader(reference.resolve()):
        raise ValueError(f"{reference} must be a function without arguments that returns {_CONTRACT}")
    return reference


def _is_loader(value: Any) -> bool:
    return callable(value) and not isinstance(value, type) and takes_nothing(value)


def read_own(reference: Reference) -> Parts:
    """Return the sets that a function returns.

    Raises:
        ValueError: If the function raises or returns anything else, or its arrays are not as those of an npz file.
    """
    from multimix.lab.data._load import Splits

    found = called(reference)
    if isinstance(found, Splits):
        return Parts(found.train, found.test, found.validation, (found.mean, found.std))
    if not isinstance(found, Mapping):
        raise ValueError(f"{reference} must return {_CONTRACT}; got {type(found).__name__}")
    return parts_of({str(key): np.asarray(value) for key, value in found.items()}, str(reference))
