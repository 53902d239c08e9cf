"""What networks embed as: positions of an example as examples, and networks that know tensors only."""

import pytest
import torch

import toy
from multimix.methods import ERM, AlignMix, DenseMultiMix, MultiMix
from multimix.protocols import EncoderOutput, encode, pool

FEATURES = torch.arange(24.0).reshape(2, 3, 4)
MASK = torch.tensor([[True, True, False], [True, True, True]])


def test_each_position_is_an_example():
    alone = EncoderOutput(FEATURES, MASK, (3,), "context").each_position()
    assert torch.equal(alone.features, FEATURES.reshape(6, 1, 4))
    assert (alone.mask, alone.grid, alone.context) == (None, None, "context")


def test_plain_features_are_an_output_of_their_own():
    output = EncoderOutput.of(FEATURES)
    assert EncoderOutput.of(output) is output
    assert output.features is FEATURES
    assert (output.mask, output.grid, output.context) == (None, None, None)


class Aware(toy.Toy):
    """Takes and gives outputs, never tensors."""

    def embed(self, inputs):
        return EncoderOutput(super().embed(inputs), grid=(3, 3), context=self)

    def pool(self, output):
        assert output.context is self
        return super().pool(output.features)


@pytest.mark.parametrize("method", [ERM(), MultiMix(tuples=5), DenseMultiMix(tuples=5, clean=0.5), AlignMix(prob=1.0)])
def test_networks_of_tensors_and_of_outputs_are_trained_alike(method):
    plain = toy.images()
    aware = Aware(*plain.blocks[1:], width=6, classes=5)
    aware.load_state_dict(plain.state_dict())
    inputs, targets = toy.batch(4, 3, 6, 6)
    assert encode(aware, inputs).grid == (3, 3)
    torch.testing.assert_close(pool(plain, encode(plain, inputs)), pool(aware, encode(aware, inputs)))
    one, other = (method(net, inputs, targets, generator=torch.Generator().manual_seed(0)) for net in (plain, aware))
    assert torch.equal(one.total, other.total)
