"""Hook of mkdocs: writes a page for every method from its class, its fields and what it declares."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, cast, get_type_hints

from docs_formulas import with_formulas
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.utils.meta import get_data

from multimix._declared import _kinds, _range
from multimix.distill import SelfDistilled
from multimix.methods import METHODS, Alternate, Chain, Ramp, Until
from multimix.names import METHOD_NAMES

MADE = {
    "Alternate": "mm.Alternate((mm.MultiMix(), mm.CutMix()))",
    "Chain": "mm.Chain(mm.Mixup(), mm.MultiMix())",
    "Ramp": "mm.Ramp(mm.Mixup(), (0.0, 1.0))",
    "Until": "mm.Until(mm.MultiMix(), 0.9)",
    "SelfDistilled": "mm.SelfDistilled(mm.MultiMix())",
}
"""How the example makes what has no form without arguments."""
ROLE = re.compile(r":(?:attr|class|func|meth|mod):`~?([\w.]+)`")


def on_config(config: MkDocsConfig) -> None:
    """Put the pages behind those of the section of methods."""
    (section,) = [entry["Methods"] for entry in config.nav or [] if "Methods" in entry]
    section += [{cls.__name__: uri(cls)} for cls in classes()]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages to the site."""
    docs = Path(config.docs_dir)
    rivals = {name: f"rivals/{path.name}" for path in docs.glob("rivals/*.md") for name in said_of(path)}
    for cls in classes():
        files.append(File.generated(config, uri(cls), content=page(cls, rivals.get(cls.__name__), docs)))


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Name on a rival's page the methods that it is about, and draw the formulas of any page."""
    about = page.meta.get("methods", "").split()
    title, _, rest = markdown.lstrip().partition("\n")
    if about:
        links = ", ".join(f"[`{cls.__name__}`](../{uri(cls)})" for cls in classes() if cls.__name__ in about)
        markdown = f"{title}\n\nPicture, example and settings: {links}.\n{rest}"
    return with_formulas(markdown)


def classes() -> list[type[Any]]:
    """Return what has a page: every method, and what is made of methods."""
    return [*METHODS, SelfDistilled, Alternate, Chain, Ramp, Until]


def uri(cls: type[Any]) -> str:
    """Return where the page of a class is."""
    return f"methods/{cls.name}.md"


def said_of(path: Path) -> list[str]:
    """Return the classes that a rival's page is about, as its first lines say."""
    return str(get_data(path.read_text(encoding="utf-8"))[1].get("methods", "")).split()


def page(cls: type[Any], rival: str | None, docs: Path) -> str:
    """Return the page of a class as Markdown."""
    summary, *more = re.split(r"\n\n(?=\S)", prose(cls))
    lines = [f"# {cls.__name__}", summary]
    if (docs / (picture := f"gallery/{cls.name}.webp")).exists():
        lines.append(f"[![{cls.__name__}, drawn](../{picture})](../gallery.md)")
    lines += [*more, "## Example", f"```python\n{example(cls)}\n```", "\n".join(settings(cls)), "\n".join(facts(cls))]
    see = [f"[Reference][{cls.__module__}.{cls.__name__}]", "[all methods](../methods.md)", "[maths](../maths.md)"]
    if rival is not None:
        see.insert(0, f"[Where ours differs from the official code, side by side](../{rival})")
    return "\n\n".join([*lines, "## See also", " · ".join(see)]) + "\n"


def prose(thing: Any) -> str:
    """Return a docstring as Markdown: its references named, its formulas drawn, its links followed."""
    text = with_formulas(inspect.cleandoc(thing.__doc__ or ""))
    text = re.sub(r"^Reference:\n\s+", "**From** ", text, flags=re.M)
    text = re.sub(r"^ {4}(?=\S)", "", text, flags=re.M)
    return ROLE.sub(linked, text)


def linked(role: re.Match[str]) -> str:
    """Return a name in a docstring as Markdown, with a link where it says in full what it means."""
    path = role[1]
    return f"[`{path.rpartition('.')[2]}`][{path}]" if path.startswith("multimix.") else f"`{path}`"


def example(cls: type[Any]) -> str:
    """Return a step of a method, from nothing to the optimiser."""
    model = '"preact_resnet18", num_classes=10, width=8'
    if getattr(cls, "needs_attention", False):
        model = '"timm:test_vit", num_classes=10, image_size=32'
    lines = [
        "import torch",
        "import multimix as mm",
        "",
        f"net = mm.adapt(mm.models.build({model}))",
        f"method = {MADE.get(cls.__name__, f'mm.{cls.__name__}()')}",
    ]
    learns = getattr(cls, "trains_modules", False)
    lines += ["method.prepare(net)  # builds what it learns"] * learns
    given = "[*net.parameters(), *method.parameters()]" if learns else "net.parameters()"
    lines += [
        f"optimizer = torch.optim.SGD({given}, lr=0.1)",
        "",
        "images, labels = torch.randn(16, 3, 32, 32), torch.randint(10, (16,))",
        "method(net, images, labels).total.backward()",
        "optimizer.step()",
    ]
    if getattr(cls, "mixes_inputs", False) is True and not learns:
        network = ", network=net" * bool(cls.needs_network)
        lines += [
            "",
            "# or the mixed mini-batch alone, for a loss of your own",
            f"mixed, probabilities = method.mix(images, labels, num_classes=10{network})",
        ]
    return "\n".join(lines)


def settings(cls: type[Any]) -> Iterator[str]:
    """Yield the table of a method's fields."""
    own = [f for f in fields(cls) if f.init]
    yield "## Settings\n"
    if not own:
        yield "None."
        return
    hints, said = get_type_hints(cls, include_extras=True), field_docs(cls)
    yield "| setting | what it may be | default | meaning |"
    yield "|---|---|---|---|"
    for f in own:
        yield f"| `{f.name}` | {kinds(hints[f.name])} | {default(f)} | {said[f.name]} |"
    if cls.name == "multimix":
        yield "\nOur [studies](../results.md) prefer the defaults as a loss alone; `recommended()` returns them."


def field_docs(cls: type[Any]) -> dict[str, str]:
    """Return what stands below each field of a class and of those that it derives from."""
    found: dict[str, str] = {}
    for base in (base for base in reversed(cls.__mro__) if base.__module__.startswith("multimix")):
        (tree,) = ast.parse(inspect.getsource(base)).body
        for line, below in pairwise(cast("ast.ClassDef", tree).body):
            match line, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                    found[name] = ROLE.sub(linked, " ".join(said.split()))
    return found


def kinds(annotation: Any) -> str:
    """Return in words what a field may hold, as errors say it."""
    words = []
    for kind in _kinds(annotation):
        if kind.choices:
            words += [f"`{choice}`" for choice in kind.choices]
        else:
            bounds = _range(kind.bounds).removeprefix("be ").removeprefix("lie ") if kind.bounds else ""
            words.append(f"{kind.words} {bounds.replace('hold', 'of')}".strip())
    named = re.findall(r"\b([A-Z]\w*)\b", str(annotation))  # of what no check knows, such as a method
    return " or ".join(words or dict.fromkeys(f"`{name}`" for name in named))


def default(f: Field[Any]) -> str:
    """Return the default of a field."""
    if f.default is not MISSING:
        return f"`{f.default!r}`"
    return "needed" if f.default_factory is MISSING else f"`{f.default_factory()!r}`"


def facts(cls: type[Any]) -> Iterator[str]:
    """Yield the table of what a method takes, and where it can be used."""
    images = "images (b, c, h, w)" if getattr(cls, "needs_images", False) else "whatever the network takes"
    videos = ", or videos (b, t, c, h, w)" * getattr(cls, "takes_videos", False)
    parts = [part for part in ("positions", "stages") if getattr(cls, f"needs_{part}", False)]
    networks = f"those with {parts[0]} to mix" if parts else "any that `mm.adapt` takes"
    if getattr(cls, "needs_attention", False):
        networks = "vision transformers of timm and transformers"
    yield "## Where it can be used\n"
    yield "| | |"
    yield "|---|---|"
    yield f"| inputs | {images}{videos} |"
    yield f"| networks | [{networks}](../hosts.md) |"
    yield f"| in | {', '.join(hosts(cls))} |"
    if cls.name in METHOD_NAMES:
        yield f"| on the command line | `--method {cls.name}`; the settings are `--method.NAME` |"


def hosts(cls: type[Any]) -> Iterator[str]:
    """Yield what takes a method, as the hosts themselves decide it."""
    learns, mixes = getattr(cls, "trains_modules", False), getattr(cls, "mixes_inputs", False)
    yield "[a loop of your own](../quickstart.md), Lightning's `MultiMixModule`, transformers' `MultiMixTrainer`"
    if not learns:
        yield "Lightning's `MultiMixCallback`"
    if not getattr(cls, "needs_images", False):
        yield "[scikit-learn's estimators](../trainers.md#scikit-learn)"
    if mixes and not learns:
        asks = " with `network=`" * bool(getattr(cls, "needs_network", False))
        if isinstance(mixes, property):
            asks = " where all methods in it mix inputs"
        yield f"timm's `TimmMixup` and torchvision's `MixTransform` and `MixCollate`{asks}"
    if cls.name == "multimix":
        yield "`mm.MultiMixLoss`, in place of the loss"
