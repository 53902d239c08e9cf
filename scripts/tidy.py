"""Refuse files that do not belong in the repository as they are: ``tidy.py FILE...``."""

import sys
from collections.abc import Iterator
from pathlib import Path

MOST_BYTES = 1_000_000


def faults(path: Path) -> Iterator[str]:
    """Yield what is wrong with a file: size, trailing space, or an end that is not one newline."""
    if path.stat().st_size > MOST_BYTES:
        yield f"{path}: over 1 MB; data and weights stay outside the repository"
        return
    content = path.read_bytes()
    if b"\0" in content:
        return
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line != line.rstrip():
            yield f"{path}:{number}: trailing space"
    if content and (not content.endswith(b"\n") or content.endswith(b"\n\n")):
        yield f"{path}: must end in one newline"


if __name__ == "__main__":
    found = [fault for name in sys.argv[1:] if Path(name).is_file() for fault in faults(Path(name))]
    print("\n".join(found) if found else f"{len(sys.argv) - 1} files tidy")
    sys.exit(bool(found))
