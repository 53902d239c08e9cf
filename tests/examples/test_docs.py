"""README and docs do as they say: snippets run, command lines are understood, notebooks run from top to bottom."""

import os
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import nbclient
import nbformat
import numpy as np
import pytest
import torch
from torch import nn

import multimix as mm
from multimix.integrations._training import InputMixer
from multimix.lab.cli.__main__ import main
from photos import photos

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "scripts"))  # where the hooks of mkdocs are, which write the pages of methods
import docs_methods  # noqa: E402

PAGES = {str(path.relative_to(ROOT)): path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))}
RUNS = ("docs/after.md", "docs/quickstart.md")
"""Pages whose command lines run, with few epochs; those of others are read up to where the work would begin."""
SHORT = {"train": "--epochs 1", "compare": "--epochs 1 --seeds 1 --width 4 --train-size 100"}
BEGINS = {
    "bench": ["keep_freed_memory"],
    "compare": ["choose"],
    "data": ["load"],
    "detect": ["detect", "resume_detect"],
    "evaluate": ["evaluations"],
    "export": ["export"],
    "predict": ["_images"],
    "report": ["report", "read_records"],
    "train": ["train", "resume", "RunFolder"],
}
"""By command, what does the work once its arguments are understood."""
FILLED = {"RECIPE": "digits", "--suites NAME": "--suites calibration", "STUDY.py:NAME": "my_study.py"}
FILLED |= {"STUDY.py": "my_study.py", "...": ""}
"""What stands for the reader's own in a command line."""
OWN = {
    "my_recipe.py": "from multimix.lab.train import TrainConfig\nrecipe = TrainConfig(data='digits')\n",
    "my_data.py": "def load():\n    return {}\n",
    "my_study.py": "from my_recipe import recipe\nfrom multimix.lab.recipes.study import Study\n"
    "study = Study(name='mine', question='?', arms={'erm': (recipe,)})\n",
}


class Block(NamedTuple):
    line: int
    given: list[str]
    skipped: bool
    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    """What stands between fences, with the comments above it: ``<!-- given: code -->``, ``<!-- not run: why -->``."""
    text, found = page.read_text(encoding="utf-8"), []
    for match in re.finditer(r"((?:<!-- (?:given|not run): .*? -->\n+)*)```(\w+)\n(.*?)^```", text, re.S | re.M):
        given = re.findall(r"<!-- given: (.*?) -->", match[1], re.S)
        line = text.count("\n", 0, match.start(3))
        found.append(Block(line, given, "<!-- not run" in match[1], match[2], match[3]))
    return found


def commands(text: str) -> list[str]:
    """The command lines of a block, without what is said of them behind."""
    found = re.findall(r"^(?:torchrun .*-m |srun .*)?(multimix .*)$", text, re.M)
    return [re.split(r"\s+#|\s{3,}", line)[0] for line in found]


class Begun(Exception):
    """A command line was understood."""


def understand(line: str, monkeypatch: pytest.MonkeyPatch, *, sentence: bool = False) -> None:
    def begin(*_, **__):
        raise Begun

    for name, value in FILLED.items():
        line = line.replace(name, value)
    command, *arguments = shlex.split(line)[1:]
    module = import_module(f"multimix.lab.cli.{command}")
    with monkeypatch.context() as patch:
        for name in BEGINS.get(command, ()):
            patch.setattr(module, name, begin)
        try:
            end = module.main(arguments)
        except (Begun, SystemExit, ValueError) as raised:
            end = raised
    tells = command == "list" or "--help" in arguments
    unfinished = re.search("are required|which recipe|needs", str(end)) if sentence else None
    assert isinstance(end, Begun) or tells or unfinished, f"{line}: {end}"


def run(line: str) -> None:
    _, command, *arguments = shlex.split(line)
    found = [sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in arguments]
    arguments = [name for names in found for name in names]
    assert main([command, *arguments, *shlex.split(SHORT.get(command, ""))]) == 0, line


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with all that the pages name."""
    monkeypatch.chdir(tmp_path)
    for folder in ("pics", "PATH"):
        photos(tmp_path / folder)
    (tmp_path / "new").symlink_to(tmp_path / "pics" / "red")
    (tmp_path / "photo.jpg").symlink_to(tmp_path / "pics" / "red" / "1.jpg")
    (tmp_path / "studies").symlink_to(ROOT / "studies")
    own = {
        block.code.split()[1]: block.code for block in blocks(PAGES["docs/training.md"]) if "# my_" in block.code[:5]
    }
    for name, code in {**OWN, **own}.items():
        (tmp_path / name).write_text(code)
    images, labels = np.zeros((12, 8, 8, 3), np.uint8), np.arange(12) % 3
    np.savez("PATH.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    return tmp_path


def standins() -> dict[str, object]:
    """What snippets take for granted: a model, a mini-batch, a loop."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU())
    model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    images, labels, generator = torch.randn(8, 3, 32, 32), torch.arange(8) % 4, torch.Generator().manual_seed(0)
    logits = torch.randn(8, 10, requires_grad=True)
    net = mm.adapt(model, encoder="0", head="3")
    names = {"model": model, "net": net, "network": net, "images": images, "inputs": images, "labels": labels}
    names |= {"targets": labels, "loader": [(images, labels)] * 2, "generator": generator, "device": "cpu"}
    names |= {"optimizer": torch.optim.SGD(model.parameters(), 0.1), "method": mm.MultiMix(), "logits": logits}
    names |= {
        "batches": [(images, labels)],
        "torch": torch,
        "nn": nn,
        "mm": mm,
        "pixels": images.sigmoid(),
        "__name__": "__main__",
    }
    return {name: getattr(mm, name) for name in mm.__all__} | names


@pytest.mark.filterwarnings("ignore")  # of hosts, about what a snippet leaves out
@pytest.mark.parametrize("name", [name for name, path in PAGES.items() if blocks(path)])
def test_snippets_run_and_command_lines_are_understood(name, place, monkeypatch):
    names = standins()
    for block in blocks(PAGES[name]):
        for code in block.given:
            exec(code, names)  # noqa: S102
        if block.language == "python":
            code = compile("\n" * block.line + block.code.replace("epochs=10", "epochs=1"), name, "exec")
            if not block.skipped:
                exec(code, names)  # noqa: S102
        for line in commands(block.code) if block.language != "python" else ():
            if name in RUNS and not block.skipped and "runs/a" not in line:
                run(line)
            else:
                understand(line, monkeypatch)


def test_command_lines_in_sentences_are_understood(place, monkeypatch):
    found = {line for path in PAGES.values() for line in re.findall(r"`(multimix [a-z]+ [^`\[…]+)`", path.read_text())}
    assert len(found) > 20
    for line in found:
        understand(line, monkeypatch, sentence=True)


@pytest.mark.parametrize("cls", docs_methods.classes(), ids=lambda cls: cls.name)
def test_page_of_a_method(cls):
    """Its example runs, its settings all have a meaning and a kind, and the hosts that take inputs mixed are named."""
    exec(docs_methods.example(cls), names := {"__name__": "__main__"})  # noqa: S102
    page = docs_methods.page(cls, None, ROOT / "docs")
    assert names["net"].head.weight.grad.abs().sum() > 0
    assert ":math:" not in page
    assert ".. math::" not in page
    table = page.split("## Settings")[1].split("##")[0]
    assert all(len(cell.strip()) > 1 for row in table.splitlines()[2:] for cell in row.split("|")[1:-1])
    try:
        InputMixer(eval(docs_methods.MADE.get(cls.__name__, f"mm.{cls.__name__}()")), 10, network=names["net"])  # noqa: S307
        taken = True
    except (TypeError, ValueError):
        taken = cls is mm.Alternate  # that of the example holds MultiMix
    assert ("TimmMixup" in page) == taken


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/tutorials/*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs_and_was_run(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(path, as_version=4)
    kept = said(notebook)
    for cell in notebook.cells:
        cell.source = re.sub(r"(epochs[= ])\d+", r"\g<1>1", cell.source)
    nbclient.execute(notebook, cwd=str(tmp_path), timeout=240)
    assert any(kept)
    assert said(notebook) == kept


@pytest.mark.sweep
@pytest.mark.timeout(600)
def test_the_loop_of_the_tutorial_learns(tmp_path):
    notebook = nbformat.read(ROOT / "docs/tutorials/loss.ipynb", as_version=4)
    nbclient.execute(notebook, cwd=str(tmp_path), timeout=500)
    text = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    reached = [float(share) for share in re.findall(r"([\d.]+) % of 1437 test images", text)]
    assert len(reached) >= 2
    assert min(reached) > 80


def said(notebook: nbformat.NotebookNode) -> list[bool]:
    """Which cells say or draw something, warnings apart."""
    return [any(output.get("name") != "stderr" for output in cell.get("outputs", ())) for cell in notebook.cells]
