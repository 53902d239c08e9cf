"""What every test may ask for."""

import pytest
import torch

pytest.register_assert_rewrite("laws")


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
