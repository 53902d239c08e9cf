"""The values of a network, to be compared."""

import torch
from torch import Tensor, nn


def parameters(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert different == [], different
