"""Small trees and archives in the layouts that the loaders read."""

from pathlib import Path

import numpy as np
import pytest

from data.trees import Archive, Arrays, Tree, write_picture


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Write ``root/part/<class>/<i>.png`` for each part and return root."""

    def write(
        *parts: str,
        classes: tuple[str, ...] = ("ant", "bee", "cat"),
        each: int = 6,
        size: tuple[int, int] = (10, 12),
        name: str = "pictures",
    ) -> Path:
        root = tmp_path / name
        seed = 0
        for part in parts or ("",):
            for cls in classes:
                for i in range(each):
                    write_picture(root / part / cls / f"{i}.png", size, seed := seed + 1)
        return root

    return write


@pytest.fixture
def arrays() -> Arrays:
    """Return a sound archive's arrays: 3 classes, 30 training and 9 test images of 5x4 in colour."""
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (30, 5, 4, 3), dtype=np.uint8),
        "train_labels": (np.arange(30) % 3).astype(np.uint8)[:, None],
        "test_images": rng.integers(0, 256, (9, 5, 4, 3), dtype=np.uint8),
        "test_labels": (np.arange(9) % 3).astype(np.uint8)[:, None],
    }


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Write arrays to an archive and return the name that ``load`` takes."""

    def write(content: Arrays) -> str:
        path = tmp_path / "set.npz"
        np.savez(path, **content)  # type: ignore[arg-type]
        return f"npz:{path}"

    return write
