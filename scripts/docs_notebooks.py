"""Hook of mkdocs: shows the notebooks of docs/tutorials, as they were run, as pages of the site like any other."""

import json
import re
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add a page and its pictures for each notebook; the notebook itself lies beside it."""
    for path in sorted(Path(config.docs_dir).glob("tutorials/*.ipynb")):
        pictures: dict[str, bytes] = {}
        text = "\n\n".join(blocks(path, pictures))
        for uri, content in {f"tutorials/{path.stem}.md": text, **pictures}.items():
            files.append(File.generated(config, uri, content=content))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to notebooks, which work where the repository is looked at, lead to their pages."""
    return re.sub(r"(tutorials/\w+)\.ipynb\)", r"\1.md)", markdown)


def blocks(path: Path, pictures: dict[str, bytes]) -> Iterator[str]:
    """Yield the cells of a notebook as Markdown, and put their pictures by."""
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield source
            if number == 0:
                yield f"[Download the notebook]({path.name}){{: download }}"
            continue
        yield f"```python\n{source}\n```"
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                name = f"{path.stem}-{len(pictures) + 1}.png"
                pictures[f"tutorials/{name}"] = b64decode("".join(data["image/png"]))
                yield f"![What the lines above draw]({name})"
            else:
                yield "```{ .text .no-copy }\n" + "".join(data["text/plain"]).rstrip() + "\n```"
