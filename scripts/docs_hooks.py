"""Hook of mkdocs: writes the table of methods from the one list that the code has."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

MARK = "<!-- methods -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with the table in the place of its mark."""
    return markdown.replace(MARK, "\n".join(_table())) if MARK in markdown else markdown


def _table() -> Iterator[str]:
    from multimix.methods import METHODS  # heavy: only where the table stands

    yield "| command line | class | what it does | settings and defaults |"
    yield "|---|---|---|---|"
    for method in METHODS:
        settings = ", ".join(f"`{f.name}={f.default!r}`" for f in fields(method))
        summary = " ".join((method.__doc__ or "").split("\n\n")[0].split())
        link = f"[`{method.__name__}`][multimix.methods.{method.__name__}]"
        yield f"| `{method.name}` | {link} | {summary} | {settings or 'none'} |"
