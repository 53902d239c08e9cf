#!/bin/sh
# Build the wheel and use it from an empty folder, so that nothing of the source tree can stand in for what it lacks.
set -eu
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m build --no-isolation --wheel --outdir "$work/dist" . > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$python" -m pip install -qq --no-deps --target "$work/site" "$work"/dist/*.whl
mkdir "$work/empty" && cd "$work/empty"
export PYTHONPATH="$work/site"
"$python" -c '
import pathlib, sys
import multimix
assert pathlib.Path(multimix.__file__).is_relative_to(sys.argv[1]), multimix.__file__
for name in multimix.__all__:
    getattr(multimix, name)
' "$work/site"
"$work/site/bin/multimix" --help > /dev/null
echo "wheel: $(basename "$work"/dist/*.whl) imports and answers --help"
