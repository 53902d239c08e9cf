"""A map of the embeddings in the plane."""

import warnings
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

PICTURES = ("tsne", "umap", "none")
"""What can be drawn."""

_PERPLEXITY = 30
"""Neighbours that t-SNE keeps near, or as many as a third of a small set."""
_NEIGHBOURS = 15
"""Neighbours that UMAP keeps near, or as many as there are."""


def check_picture(method: str) -> None:
    """Raise if the package for a picture is not there.

    Raises:
        ValueError: It names the command that installs it.
    """
    if method != "umap":
        return
    try:
        distribution("umap-learn")  # by this name, since others are imported as umap too
    except PackageNotFoundError:
        raise ValueError("picture=umap needs the package umap-learn: pip install umap-learn, or picture=tsne") from None


def in_plane(embeddings: Float[Tensor, "n d"], method: str, *, seed: int) -> Float[np.ndarray, "n 2"] | None:
    """Return where t-SNE or UMAP puts each embedding; None where there is nothing to spread out.

    Args:
        embeddings: At least 4 of them for a picture, not all the same.
        method: ``tsne`` or ``umap``.
        seed: Fixes the outcome, on one machine.
    """
    values = embeddings.cpu().double().numpy()
    if len(values) < 4 or np.ptp(values, axis=0).max() < 1e-12:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numerical trifles and of threads, none of which a reader can act on
        return _tsne(values, seed) if method == "tsne" else _umap(values, seed)


def _tsne(values: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    return TSNE(
        perplexity=min(_PERPLEXITY, (len(values) - 1) / 3),
        init="pca" if values.shape[1] > 1 else "random",
        random_state=seed,
    ).fit_transform(values.astype(np.float32))


def _umap(values: np.ndarray, seed: int) -> np.ndarray:
    from umap import UMAP

    reducer: Any = UMAP(n_neighbors=min(_NEIGHBOURS, len(values) - 1), random_state=seed, n_jobs=1)
    return reducer.fit_transform(values)
