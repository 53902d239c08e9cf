"""Draw docs/architecture.svg, the rooms of the package in their layers, from its imports (``--check``: is it so yet?).

The layers are those that pyproject.toml has lint-imports hold; what a room imports is read from the code.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import tomllib

ROOT = Path(__file__).resolve().parent.parent
DRAWING = ROOT / "docs" / "architecture.svg"
WIDTH, HEIGHT, ACROSS, DOWN, EDGE = 320, 66, 24, 40, 30
"""Sizes of a room, the gaps between rooms, and the margin, in pixels."""
STYLE = """text { font: 12px sans-serif; fill: #222 }
.title { font-weight: bold } .wing { font-size: 15px; font-weight: bold }
.room { fill: #eef3fb; stroke: #4a6fa5 } .small { font-size: 10px; fill: #555 }
.arrow { stroke: #8a9bb5; fill: none }"""


def main() -> int:
    """Draw the picture, or say whether the one that is there is of today's imports."""
    drawn = picture()
    if "--check" in sys.argv:
        if DRAWING.read_text(encoding="utf-8") == drawn:
            return 0
        print("docs/architecture.svg is not of today's imports; run: make architecture")
        return 1
    DRAWING.write_text(drawn, encoding="utf-8")
    return 0


def picture() -> str:
    """Return the drawing: one column of layers for the core and one for the lab."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layered = [contract for contract in contracts if contract["type"] == "layers"]
    wings = {"multimix.lab": [], "multimix": []}
    for contract in layered:
        container = contract.get("containers", [""])[0]
        for layer in contract["layers"]:
            rooms = [f"{container}.{name.strip()}".strip(".") for name in layer.split("|")]
            wings["multimix.lab" if container else "multimix"].append(
                [room for room in rooms if room != "multimix.lab"]
            )
    wings = {name: [layer for layer in layers if layer] for name, layers in wings.items()}
    imports = dict(arrows([room for layers in wings.values() for layer in layers for room in layer]))
    places, width, height = {}, EDGE, 0
    titles = []
    for wing, layers in wings.items():
        titles.append(f'<text class="wing" x="{width}" y="{EDGE}">{wing}</text>')
        broadest = max(map(len, layers))
        for row, layer in enumerate(layers):
            for column, room in enumerate(layer):
                places[room] = (width + column * (WIDTH + ACROSS), 2 * EDGE + row * (HEIGHT + DOWN))
        width += broadest * (WIDTH + ACROSS) + EDGE
        height = max(height, 2 * EDGE + len(layers) * (HEIGHT + DOWN))
    lines = [line(places[a], places[b]) for a, below in imports.items() for b in nearest(a, below, imports)]
    rooms = [box(room, places[room], imports[room]) for room in places]
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    body = "\n".join([*titles, *lines, *rooms])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n{body}\n</svg>\n'


def arrows(rooms: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each room with the rooms that it imports."""
    graph = grimp.build_graph("multimix", include_external_packages=False, exclude_type_checking_imports=True)
    for room in rooms:
        inside = {room, *graph.find_descendants(room)}
        imported = {name for module in inside for name in graph.find_modules_directly_imported_by(module)}
        yield room, [other for other in rooms if other != room and any(_within(name, other) for name in imported)]


def _within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def nearest(room: str, below: list[str], imports: dict[str, list[str]]) -> list[str]:
    """Return what a room imports in its own wing, but for what is below another such room anyway."""
    own = [other for other in below if (".lab." in other) == (".lab." in room)]
    return [other for other in own if not any(other in imports[between] for between in own)]


def line(start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return an arrow from the lower edge of one room to the upper edge of another."""
    x, y, to, under = start[0] + WIDTH / 2, start[1] + HEIGHT, end[0] + WIDTH / 2, end[1]
    head = f'<path class="arrow" d="M {to - 4} {under - 7} L {to} {under} L {to + 4} {under - 7}"/>'
    return f'<path class="arrow" d="M {x} {y} C {x} {y + DOWN / 2}, {to} {under - DOWN / 2}, {to} {under}"/>{head}'


def box(room: str, place: tuple[int, int], below: list[str]) -> str:
    """Return a room with its name and, in small letters, the rooms that it imports."""
    x, y = place
    wings = [[other.rsplit(".", 1)[1] for other in below if (".lab." in other) == lab] for lab in (True, False)]
    words = [("lab: " if i == 0 else "core: ") + ", ".join(names) for i, names in enumerate(wings) if names]
    small = "".join(
        f'<text class="small" x="{x + 8}" y="{y + 36 + 14 * i}">{text}</text>' for i, text in enumerate(words)
    )
    name = f'<text class="title" x="{x + 8}" y="{y + 19}">{room.rsplit(".", 1)[1]}</text>'
    return f'<rect class="room" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>{name}{small}'


if __name__ == "__main__":
    sys.exit(main())
