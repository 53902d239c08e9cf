"""What every test may ask for, which tests run with shape checks, and which are skipped for want of a host."""

import ast
import gc
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

TESTS = Path(__file__).parent
SHAPED = {"ops", "methods", "models", "distill"}
"""Folders whose tests run with every shape in a signature checked, but for those with the marks below."""
UNSHAPED = ("bad_input", "compiles")

HOSTS = {"timm", "torchvision", "transformers", "lightning", "sklearn"}
"""What the core works with but does not need: files of tests that import one are skipped where it is not installed."""

INSTALLED = {name for name in HOSTS if find_spec(name)}

pytest.register_assert_rewrite("laws")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shapes", choices=("only", "without"), help="only the tests that run with shape checks, or all but those"
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Let no garbage collection look at what imports have made: hosts ask for one after every training of theirs."""
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    return result


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not read what ``--shapes only`` leaves out anyway."""
    only = config.getoption("--shapes") == "only"
    return True if only and collection_path.parent == TESTS and collection_path.name not in SHAPED else None


class Unhosted(pytest.Module):
    """A file of tests whose host is not installed."""

    def collect(self) -> Iterator[pytest.Item]:
        pytest.skip(f"needs {_missing(self.path)}")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip what cannot be imported, in one line that says why."""
    return Unhosted.from_parent(parent, path=module_path) if _missing(module_path) else None


def _missing(path: Path) -> str | None:
    """Return a host that a file imports, itself or by a file beside it, and that is not installed."""
    for name in _imported(ast.parse(path.read_text(encoding="utf-8"))):
        helper, package = TESTS.joinpath(*name.split(".")).with_suffix(".py"), name.partition(".")[0]
        if host := _missing(helper) if helper.is_file() else package if package in HOSTS - INSTALLED else None:
            return host
    return None


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield the modules that a file names when it is imported; what functions import is their own affair."""
    for node in tree.body:
        for inner in ast.walk(node) if isinstance(node, ast.With | ast.Try) else [node]:
            if isinstance(inner, ast.Import):
                yield from (alias.name for alias in inner.names)
            elif isinstance(inner, ast.ImportFrom) and inner.module:
                yield inner.module


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what ``--shapes`` asks for; without it, everything."""
    if asked := config.getoption("--shapes"):
        left = [item for item in items if _is_shaped(item) != (asked == "only")]
        items[:] = [item for item in items if _is_shaped(item) == (asked == "only")]
        config.hook.pytest_deselected(items=left)


def _is_shaped(item: pytest.Item) -> bool:
    folder = item.path.relative_to(TESTS).parts[0]
    return folder in SHAPED and not any(item.get_closest_marker(name) for name in UNSHAPED)


DEVICES = ["cpu", *[pytest.param("cuda", marks=pytest.mark.gpu)] * torch.cuda.is_available()]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device there is."""
    return torch.device(request.param)


@pytest.fixture
def generator() -> torch.Generator:
    """A source of randomness on the CPU, the same in every test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def cost() -> Any:
    """The lab's way to count what a call costs; a test of the core that asks for it is skipped without the lab."""
    return pytest.importorskip("multimix.lab.bench.timing").cost


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Start every test from the same global seed, so that none depends on those before it."""
    torch.manual_seed(0)
