"""The command ``multimix``, which the lab answers where it is installed."""

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from re import match

from multimix._optional import PACKAGES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, 2 with one line where the lab is not installed."""
    if missing := ", ".join(_missing()):
        # from where this package came, where pip has noted it
        noted = json.loads(distribution("multimix").read_text("direct_url.json") or "{}")
        kind = f"{noted['vcs_info']['vcs']}+" if "vcs_info" in noted else ""
        lab = f"multimix[lab] @ {kind}{noted['url']}" if noted else "multimix[lab]"
        said = f"the command line needs the extra lab: pip install '{lab}' (not there: {missing})"
        print(f"multimix: {said}", file=sys.stderr)
        return 2
    return import_module("multimix.lab.cli.__main__").main(arguments)


def _missing() -> list[str]:
    """Return the packages of the extra ``lab`` that are not there."""
    try:
        every = distribution("multimix").requires or []
    except PackageNotFoundError:  # run from a folder of the source
        return []
    lab = [line for line in every if match(r".*extra == ['\"]lab['\"]", line)]
    names = [found[0] for line in lab if (found := match(r"[\w.-]+", line))]
    modules = {package: module for module, package in PACKAGES.items()}
    return [name for name in names if find_spec(modules.get(name, name.replace("-", "_"))) is None]


if __name__ == "__main__":
    sys.exit(main())
