"""Drawing with matplotlib into SVG that can stand inside a page: no shared ids, no fetches, the page's ink."""

import hashlib
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from multimix.lab.report._text import shortened

# Stand-ins for matplotlib's classes, which load only when something is drawn.
Axes = Any
Canvas = Any
Text = Any

# Drawn in this colour, shown in the page's text colour: figures follow the reader's light or dark page.
INK = "#010203"
# Likewise in the colour of what the figure stands on.
PAPER = "#fdfcfb"
_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"
_PLACES = frozenset({"x", "y", "d", "points"})
_LONG = re.compile(r"-?\d+\.\d{3,}")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "multimix",
    "font.size": 11.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
}
_COLORS = ("#3b7dd8", "#d9771e", "#2e9e6b", "#c8435a", "#8b6fd6", "#94733f", "#1b98aa", "#7a8594")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Figure:
    """A figure, and its words."""

    svg: str
    """One ``<svg>`` element that fetches nothing."""
    alt: str
    """What is to be seen, for those who do not see it; also the picture's ``aria-label``."""
    caption: str
    """What the figure shows and how to read it."""

    @property
    def inline(self) -> str:
        """The element for inside HTML, which needs no namespace."""
        return self.svg.replace(f' xmlns="{_SVG}"', "")


@dataclass(frozen=True)
class Look:
    """How one method is drawn, told apart by more than its colour."""

    color: str
    dashes: Any
    marker: str


def look(index: int) -> Look:
    """Return the look of the method at this place; lists of coprime lengths keep the first 280 apart."""
    return Look(_COLORS[index % len(_COLORS)], _DASHES[index % len(_DASHES)], _MARKERS[index % len(_MARKERS)])


def draw(paint: Callable[[Axes], None], *, size: tuple[float, float], alt: str) -> str:
    """Return as one ``<svg>`` element what ``paint`` draws on fresh axes; the same drawing gives the same text.

    Args:
        paint: Draws on the axes it is given.
        size: Width and height in inches.
        alt: Text for those who do not see it.
    """
    return draw_panels(lambda canvas: paint(canvas.add_subplot()), size=size, alt=alt)


def draw_panels(paint: Callable[[Canvas], None], *, size: tuple[float, float], alt: str) -> str:
    """Return as one ``<svg>`` element what ``paint`` draws on a fresh canvas, on axes that it adds.

    Args:
        paint: Adds axes and draws on them.
        size: Width and height in inches.
        alt: Text for those who do not see it.
    """
    import matplotlib
    from matplotlib.figure import Figure as Blank

    out = io.StringIO()
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The reader's browser has fonts for letters that the one that measures the text lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas = Blank(figsize=size, layout="constrained")
        paint(canvas)
        canvas.savefig(
            out, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    return _inline(out.getvalue(), alt)


def write(text: Text, words: str, limit: int = 40) -> None:
    """Set a text's words literally: no formulas, and no longer than fits."""
    text.set_parse_math(False)
    text.set_text(shortened(words, limit))


def _inline(svg: str, alt: str) -> str:
    prefix = "f" + hashlib.sha256((svg + alt).encode()).hexdigest()[:8] + "-"
    root = ElementTree.fromstring(svg.encode())
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    ids = {
        element.attrib["id"]: f"{prefix}{number}"
        for number, element in enumerate(root.iter())
        if "id" in element.attrib
    }
    for element in root.iter():
        _localise(element, ids)
        _lighten(element)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": alt, "style": "stroke-linejoin:round;stroke-linecap:butt"}
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _localise(element: ElementTree.Element, ids: dict[str, str]) -> None:
    """Give ids and references to them new names, so that several drawings can stand in one page."""
    attributes = element.attrib
    if "id" in attributes:
        attributes["id"] = ids[attributes["id"]]
    if _HREF in attributes:
        attributes["href"] = "#" + ids[attributes.pop(_HREF).removeprefix("#")]
    for name in ("clip-path", "style"):
        if name in attributes:
            found = re.sub(r"url\(#([^)]*)\)", lambda match: f"url(#{ids[match[1]]})", attributes[name])
            attributes[name] = found.replace(INK, "currentColor").replace(PAPER, "var(--card, #fff)")


def _lighten(element: ElementTree.Element) -> None:
    """Write places to a hundredth of a point, and what many marks share once: thousands of them stay light."""
    for name in _PLACES & element.attrib.keys():
        element.attrib[name] = _LONG.sub(lambda found: f"{float(found[0]):.2f}", element.attrib[name])
    marks = list(element)
    styles = {mark.get("style") for mark in marks}
    if len(marks) > 1 and len(styles) == 1 and all(mark.tag == f"{{{_SVG}}}use" for mark in marks):
        element.attrib["style"] = ";".join(filter(None, (element.get("style"), marks[0].get("style"))))
        for mark in marks:
            mark.attrib.pop("style", None)
