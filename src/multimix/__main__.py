"""The command ``multimix``, which the lab answers where it is installed."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import requires
from importlib.util import find_spec
from re import match

_MODULES = {"pillow": "PIL", "scikit-learn": "sklearn"}
"""What packages of the lab are imported as, where it is not their own name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, 2 with one line where the lab is not installed."""
    if missing := _missing():
        print(
            f"multimix: the command line needs {', '.join(missing)}; without it, `import multimix` works as it is:"
            f" pip install {' '.join(missing)}",
            file=sys.stderr,
        )
        return 2
    return import_module("multimix.lab.cli.__main__").main(arguments)


def _missing() -> list[str]:
    """Return the packages of the extra ``lab`` that are not there."""
    wanted = [line for line in requires("multimix") or () if match(r".*extra == ['\"]lab['\"]", line)]
    names = [found[0] for line in wanted if (found := match(r"[\w.-]+", line))]
    return [name for name in names if find_spec(_MODULES.get(name, name.replace("-", "_"))) is None]


if __name__ == "__main__":
    sys.exit(main())
