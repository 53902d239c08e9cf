"""Pin what multimix and its tools need, at the versions that this environment holds, in constraints.txt."""

import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

HEADER = """\
# The versions that are tested together. Made by `make lock`: what `.[dev]` needs, as it stands in .venv.
# To renew: .venv/bin/python -m pip install --upgrade --upgrade-strategy eager -e '.[dev]' && make check && make lock
"""


def needed(root: Requirement) -> dict[str, Distribution]:
    """Return every distribution that ``root`` needs here, directly or not, by its normalised name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    queue = [root]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        found[name] = distribution(name)
        for extra in {"", *requirement.extras} - {extra for seen_name, extra in seen if seen_name == name}:
            seen.add((name, extra))
            queue += wanted(found[name], extra)
    return found


def wanted(dist: Distribution, extra: str) -> list[Requirement]:
    """Return what a distribution, or one of its extras, asks for on this platform."""
    asked = [Requirement(text) for text in dist.requires or ()]
    return [r for r in asked if r.marker is None or r.marker.evaluate({"extra": extra})]


def pin(name: str, dist: Distribution) -> str:
    """Return the line that pins a distribution.

    Raises:
        SystemExit: If it is a local build, which nobody else can install.
    """
    if Version(dist.version).local:
        sys.exit(f"{name} {dist.version} is a local build: install the released one first")
    return f"{name}=={dist.version}\n"


if __name__ == "__main__":
    pins = [
        pin(name, dist) for name, dist in sorted(needed(Requirement("multimix[dev]")).items()) if name != "multimix"
    ]
    Path("constraints.txt").write_text(HEADER + "".join(pins), encoding="utf-8")
    print(f"constraints.txt: {len(pins)} packages")
