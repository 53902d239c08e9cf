"""The page in a browser, at the widths of phones, tablets and screens, light, dark and printed.

What is compared are boxes and shades, not whole screenshots: those differ with the fonts of a machine.
"""

import io
from itertools import count

import numpy as np
import pytest
from PIL import Image

from multimix.lab.report import page, read_run
from report.browser import FOUND, browser
from report.factory import measured, write_run

pytestmark = pytest.mark.skipif(FOUND is None, reason="there is no Chromium on this machine")

WIDTHS = (360, 768, 1400, 1920)
LABELS = ("erm", "a-method-with-a-rather-long-name-0.25")
OUTSIDE = """[...document.body.querySelectorAll("*")]
    .filter(one => one.getBoundingClientRect().right > innerWidth + 0.5 && !one.parentElement.closest(".scroll, svg"))
    .map(one => one.outerHTML.slice(0, 80))"""
MAIN = "document.querySelector('.scroll')"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """A browser that shows a report of two methods, two seeds each."""
    base, number = tmp_path_factory.mktemp("browser"), count()
    runs = measured(
        lambda **options: read_run(
            write_run(base / str(next(number)), pictures={"mixed.png": "Five mixed digits."}, **options)
        ),
        *("accuracy", "adversarial", "corruption", "ood"),
        labels=LABELS,
    )
    with browser(base / "profile") as found:
        found.open(page(runs, base / "report.html", paired="erm"))
        yield found


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=float)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_page_and_pictures_can_be_seen(tab, width, scheme):
    tab.look(width, scheme=scheme)
    assert tab.ask("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    assert tab.ask(OUTSIDE) == []
    sides = tab.ask("[...document.querySelectorAll('.gallery img')].map(i => [i.naturalWidth, i.width, i.height])")
    assert len(sides) == 8 * len(LABELS)
    assert np.min(sides) >= 128
    across = tab.ask(
        "new Set([...document.querySelectorAll('#results figure:not(.gallery, .table)')]"
        ".map(one => one.offsetLeft).filter(left => left)).size"
    )
    assert across == (1 if width < 900 else 2)
    shade = pixels(tab.shot(x=0, y=0, width=width, height=900)).mean()
    assert shade > 200 if scheme == "light" else shade < 60


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(tab, scheme):
    tab.look(768, scheme=scheme)

    def luminance(name: str) -> float:
        """That of WCAG 2, of a colour of the page."""
        tab.ask(f"document.body.style.outlineColor = 'var(--{name})'")
        text = tab.ask("getComputedStyle(document.body).outlineColor")
        levels = np.array([int(part) for part in text[4:-1].split(",")]) / 255
        linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for front in ("ink", "muted", "accent"):
        for back in ("paper", "card", "warn", "best"):
            dark, bright = sorted(map(luminance, (front, back)))
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, (front, back)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_table_that_is_too_wide_keeps_its_names_and_shows_that_there_is_more(tab, scheme):
    tab.look(360, scheme=scheme)
    inside, box = tab.ask(f"[{MAIN}.scrollWidth, {MAIN}.clientWidth]")
    assert inside > box + 100
    left, top, right = tab.ask(f"(r => [r.left, r.top + scrollY, r.right])({MAIN}.getBoundingClientRect())")
    edge = {"x": right - 9, "y": top + 3, "width": 3, "height": 3}  # of the heading's padding, where no letter stands
    middle = {**edge, "x": right - 40}
    shades = {}
    for name, scrolled in (("begin", 0), ("end", inside)):
        tab.ask(f"{MAIN}.scrollLeft = {scrolled}")
        for row in ("thead th", "tbody th"):
            assert tab.ask(f"{MAIN}.querySelector('{row}').getBoundingClientRect().left") == pytest.approx(left + 1)
        shades[name] = [pixels(tab.shot(**clip)).mean() for clip in (edge, middle)]
    assert shades["begin"][0] < shades["begin"][1] - 10
    assert shades["end"][0] == pytest.approx(shades["end"][1], abs=2)


def test_on_paper_everything_is_open_and_nothing_is_cut_off(tab):
    tab.look(720, media="print")
    assert tab.ask(OUTSIDE) == []
    assert tab.ask("[...document.querySelectorAll('.scroll')].filter(b => b.scrollWidth > b.clientWidth).length") == 0
    assert tab.ask("getComputedStyle(document.querySelector('.scroll tbody th')).position") == "static"
    folded = "[...document.querySelectorAll('details')].map(one => one.lastElementChild.checkVisibility())"
    seen = tab.ask(folded)
    assert len(seen) > 3
    assert all(seen)
    tab.look(720)
    assert not any(tab.ask(folded))
    pdf = tab.printed()
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") > 1


def test_no_request_leaves_the_page(tab):
    assert {url.partition(":")[0] for url in tab.requests} == {"file", "data"}
