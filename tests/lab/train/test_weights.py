"""Weights in a file fill the network they are of, and no other."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from multimix.lab.runs.checkpoint import digest, load_weights, save_weights


class Tied(nn.Module):
    """One normalisation under two names, one matrix in two layers, and a buffer with nothing in it."""

    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm1d(3)
        self.second = self.first
        self.down, self.up = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
        self.up.weight = self.down.weight
        self.register_buffer("none", torch.empty(0))


def shaken(network: nn.Module) -> nn.Module:
    for value in network.state_dict().values():
        value.copy_(torch.randint(1, 9, value.shape).to(value.dtype))
    return network


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "model.safetensors"
    network = shaken(Tied())
    save_weights(path, network)
    return path, network


def test_all_of_it_comes_back_and_what_is_one_stays_one(written):
    path, network = written
    names = load_file(path).keys()
    assert len(names) < len(network.state_dict()), "what is one is written once"
    other = shaken(Tied())
    load_weights(path, other)
    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    assert other.up.weight is other.down.weight
    assert len(digest(path)) == 16


def test_every_tensor_of_the_file_is_needed(written):
    path, _ = written
    whole = load_file(path)
    assert any(name.endswith("num_batches_tracked") for name in whole)
    for name in sorted(whole):
        save_file({key: value for key, value in whole.items() if key != name}, path)
        with pytest.raises(ValueError, match=rf"model\.safetensors is damaged or of another network: .*{name}"):
            load_weights(path, Tied())


def test_nothing_else_may_be_in_it(written):
    path, _ = written
    save_file({**load_file(path), "more": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"of another network: .*more"):
        load_weights(path, Tied())
