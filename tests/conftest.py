"""What every test may ask for, and which tests run with shape checks."""

from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parent
SHAPED = {"ops", "methods", "models", "distill"}
"""Folders whose tests run with every shape in a signature checked, but for those with the marks below."""
UNSHAPED = ("bad_input", "compiles")

pytest.register_assert_rewrite("laws")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shapes", choices=("only", "without"), help="only the tests that run with shape checks, or all but those"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not read what ``--shapes only`` leaves out anyway."""
    only = config.getoption("--shapes") == "only"
    return True if only and collection_path.parent == TESTS and collection_path.name not in SHAPED else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what ``--shapes`` asks for; without it, everything."""
    if asked := config.getoption("--shapes"):
        kept: list[pytest.Item] = []
        left: list[pytest.Item] = []
        for item in items:
            (kept if _is_shaped(item) == (asked == "only") else left).append(item)
        items[:] = kept
        config.hook.pytest_deselected(items=left)


def _is_shaped(item: pytest.Item) -> bool:
    folder = item.path.relative_to(TESTS).parts[0]
    return folder in SHAPED and not any(item.get_closest_marker(name) for name in UNSHAPED)


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ]
)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device there is."""
    return torch.device(request.param)


@pytest.fixture
def generator() -> torch.Generator:
    """A source of randomness on the CPU, the same in every test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Start every test from the same global seed, so that none depends on those before it."""
    torch.manual_seed(0)
