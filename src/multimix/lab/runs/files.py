"""Files that are written whole or not at all; needs no torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path, *, keep: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a file beside ``path`` that takes its place once it is whole and on disk; the old one goes to ``keep``."""
    fresh = path.with_name(path.name + ".part")
    try:
        with fresh.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():  # a kill between the two leaves the older one under its new name
            path.replace(keep)
        fresh.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        fresh.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> OSError:
    """Return an error that says which file could not be written, and why."""
    if str(path) in str(error):
        return error
    kept = "; what was there before is kept" if path.exists() else ""
    return OSError(f"{path} cannot be written: {error.strerror or error}{kept}")
