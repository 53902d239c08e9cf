"""Small trees and archives in the layouts that the loaders read."""

import numpy as np
import pytest

from data.trees import write_image


@pytest.fixture
def tree(tmp_path):
    """Write ``root/part/<class>/<i>.png`` for each part and return root."""

    def write(*parts, classes=("ant", "bee", "cat"), each=6, size=(10, 12), name="pictures"):
        files = [f"{part}/{cls}/{i}.png" for part in parts or (".",) for cls in classes for i in range(each)]
        for seed, file in enumerate(files):
            write_image(tmp_path / name / file, size, seed)
        return tmp_path / name

    return write


@pytest.fixture
def arrays():
    """Return a sound archive's arrays: 3 classes, 30 training and 9 test images of 5x4 in colour."""
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (30, 5, 4, 3), dtype=np.uint8),
        "train_labels": (np.arange(30) % 3).astype(np.uint8)[:, None],
        "test_images": rng.integers(0, 256, (9, 5, 4, 3), dtype=np.uint8),
        "test_labels": (np.arange(9) % 3).astype(np.uint8)[:, None],
    }


@pytest.fixture
def archive(tmp_path):
    """Write arrays to an archive and return the name that ``load`` takes."""

    def write(content):
        np.savez(tmp_path / "set.npz", **content)
        return f"npz:{tmp_path / 'set.npz'}"

    return write
