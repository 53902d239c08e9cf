"""``python -m multimix`` is ``multimix``, for where the command itself is not on the path, as under torchrun."""

import sys

from multimix.cli.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
