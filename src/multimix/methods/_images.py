"""What the methods share that cut and paste."""

from torch import Tensor


def check_images(inputs: Tensor, method: str) -> None:
    """Raise unless inputs are images.

    Raises:
        ValueError: If they are of another shape than (b, c, h, w).
    """
    if inputs.ndim != 4:
        raise ValueError(f"inputs must be images of shape (b, c, h, w) for {method}, got {tuple(inputs.shape)}")
