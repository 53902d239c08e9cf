"""Random numbers that belong to an example, whatever batch it comes in."""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from multimix.lab.data import seed_of


def per_example(
    draw: Callable[[Generator], Tensor], examples: Sequence[int] | range, *, seed: int, device: torch.device
) -> Tensor:
    """Return what ``draw`` gives for each example, stacked (b, ...), the same in every batch and on every device.

    Args:
        draw: From a CPU generator to one example's numbers.
        examples: Positions of the examples in their set.
        seed: Of the whole draw.
        device: Where the numbers go.
    """
    generator = Generator()
    drawn = []
    for example in examples:
        generator.manual_seed(seed_of("example", seed, example))
        drawn.append(draw(generator))
    return torch.stack(drawn).to(device)
