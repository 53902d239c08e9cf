"""Paths as people write them."""

from pathlib import Path


def expanded(path: str | Path) -> Path:
    """Return a path with the home folder for ``~``; that of a user who is not known stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
