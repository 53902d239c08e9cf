"""Formulas as pictures in the text: the site asks nobody for the megabyte of script that would set them."""

import re
from functools import cache

_SIZE = 100
_PLAIN = {
    **{r"\tfrac": r"\frac", r"\text{": r"\mathrm{", r"\textstyle": "", r"\top": "T", r"\big": "", r"\Big": ""},
    **{r"\bigl": "", r"\bigr": "", r"\arg": r"\mathrm{arg}", r"\dots": r"\ldots", r"\|": r"\Vert ", "\n": " "},
}
"""What matplotlib does not know, in words that it knows."""


@cache
def formula(tex: str, *, block: bool = False) -> str:
    """Return TeX as an SVG in the colour and size of the text around it."""
    from matplotlib.textpath import TextPath

    plain = re.sub(r"\\(?:[A-Za-z]+\{?|\|)|\n", lambda word: _PLAIN.get(word[0], word[0]), tex.strip())
    plain = re.sub(r"\\frac\s*(\w)(\w)", r"\\frac{\1}{\2}", plain)
    path = TextPath((0, 0), f"${' '.join(plain.split())}$", size=_SIZE)
    letters = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
    drawn = "".join(
        letters[int(code)] + ("" if code == 79 else " ".join(f"{value:.0f}" for value in points * _flip(len(points))))
        for points, code in path.iter_segments(simplify=False)
    )
    box = path.get_extents()
    left, top, width, height = box.x0 - 4, -box.y1 - 4, box.width + 8, box.height + 8
    style = f"height:{height / _SIZE:.2f}em;vertical-align:{-(top + height) / _SIZE:.2f}em"
    said = "".join(c if c.isalnum() else f"&#{ord(c)};" for c in " ".join(tex.split()))  # nothing that Markdown knows
    svg = (
        f'<svg class="formula" role="img" aria-label="{said}" style="{style}"'
        f' viewBox="{left:.0f} {top:.0f} {width:.0f} {height:.0f}"><path d="{drawn}"/></svg>'
    )
    return f'\n\n<div class="formula">{svg}</div>\n\n' if block else svg


def _flip(count: int) -> list[int]:
    return [1, -1] * (count // 2)


def with_formulas(text: str) -> str:
    """Return a docstring or a page whose formulas are pictures: ``:math:``, ``.. math::`` and ``$$``."""
    text = re.sub(r":math:`([^`]+)`", lambda found: formula(" ".join(found[1].split())), text)
    shown = r"^\.\. math::((?:.*\n?)(?:\n?[ \t]+.*(?:\n|\Z))*)|^\$\$([^$]+)\$\$$"
    return re.sub(shown, lambda found: formula(found[1] or found[2], block=True), text, flags=re.M)
