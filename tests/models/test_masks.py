"""Sequences of different lengths: which positions are real, and that the others never count."""

from collections import UserDict

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

import multimix as mm
from multimix.models import adapt

LENGTHS = (3, 6, 1)
PADDING = 19
REAL = torch.arange(6) < torch.tensor(LENGTHS).unsqueeze(1)
IDS = torch.where(REAL, torch.arange(18).reshape(3, 6) % 15, PADDING)
SENTENCES = {"ids": IDS, "attention_mask": REAL.long()}
TARGETS = torch.tensor([0, 2, 1])


class Words(nn.Module):
    """A bag of words, in plain loops where it matters."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 3)

    def reduce(self, features, mask):
        return torch.stack([row[keep].mean(0) for row, keep in zip(features, mask.bool(), strict=True)])

    def forward(self, ids, attention_mask=None, labels=None):
        assert labels is None
        mask = ids != PADDING if attention_mask is None else attention_mask
        return self.out(self.reduce(self.norm(self.table(ids)), mask))


def last_of_each(features, mask):
    return torch.stack([row[int(n) - 1] for row, n in zip(features, mask.sum(1), strict=True)])


def last(features, mask):
    return features[torch.arange(len(features)), mask.sum(1) - 1]


class LastLayer(nn.Module):
    def forward(self, features, mask=None):
        return last(features, mask)


def mean(features, dim=1):
    return features.mean(dim)


@pytest.mark.parametrize("inputs", [SENTENCES, UserDict(SENTENCES), {**SENTENCES, "labels": TARGETS}, IDS, IDS[:2, :4]])
def test_the_mean_is_over_real_positions(inputs):
    is_tensor = isinstance(inputs, torch.Tensor)
    model, real = Words().eval(), REAL[: len(inputs), : inputs.shape[1]] if is_tensor else REAL
    mask = (lambda ids: ids != PADDING) if is_tensor else "attention_mask"
    network = adapt(model, encoder="norm", head="out", mask=mask)
    torch.testing.assert_close(network(inputs), model(inputs) if is_tensor else model(**SENTENCES))
    output = network.embed(inputs)
    assert torch.equal(output.mask, real)
    assert output.mask.dtype == torch.bool
    assert output.features.shape == (*real.shape, 8)


@pytest.mark.parametrize("pool", [last, LastLayer(), last_of_each, mean])
def test_a_pool_whose_second_parameter_must_be_given_or_is_called_mask_gets_it(pool):
    model = Words().eval()
    model.reduce = (lambda features, mask: features.mean(1)) if pool is mean else last_of_each
    network = adapt(model, encoder="norm", head="out", pool=pool, mask="attention_mask")
    torch.testing.assert_close(network(SENTENCES), model(**SENTENCES))
    output = network.embed(SENTENCES)
    # Single positions, and plain features, are real everywhere.
    torch.testing.assert_close(network.pool(output.each_position()), output.features.flatten(0, 1))
    expected = output.features.mean(1) if pool is mean else output.features[:, -1]
    torch.testing.assert_close(network.pool(output.features), expected)


def test_padding_may_hold_anything():
    model = Words().eval()
    # What leaves the encoder at padding is infinite.
    model.norm.register_forward_hook(lambda module, given, rows: rows.masked_fill(~REAL.unsqueeze(-1), torch.inf))
    network = adapt(model, encoder="norm", head="out", mask="attention_mask")
    torch.testing.assert_close(network(SENTENCES), model(**SENTENCES))
    empty = {**SENTENCES, "attention_mask": torch.zeros(3, 6)}
    assert torch.equal(network.pool(network.embed(empty)), torch.zeros(3, 8))


@pytest.mark.parametrize("method", [mm.MultiMix(tuples=16), mm.DenseMultiMix(tuples=16)])
def test_padding_gets_no_gradient(method):
    model = Words()
    network = adapt(model, encoder="norm", head="out", mask="attention_mask")
    method(network, SENTENCES, TARGETS).total.backward()
    gradient = model.table.weight.grad
    assert gradient[PADDING].abs().max() == 0
    seen = gradient[IDS[REAL].unique()].abs().sum(1)
    assert (seen > 0).all()
    assert torch.isfinite(gradient).all()


class Recurrent(nn.Module):
    """What a recurrent network has seen at the end of each sequence."""

    def __init__(self, *, batch_first=True):
        super().__init__()
        self.rnn = nn.GRU(5, 8, batch_first=batch_first)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        _, hidden = self.rnn(x)
        return self.out(hidden[-1])


class Lengths(Recurrent):
    """The same for padded sequences and their lengths, packed inside."""

    def forward(self, x, lengths):
        return super().forward(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))


class Padding(nn.GRU):
    """Packed sequences in, padded ones out."""

    def forward(self, x):
        packed, hidden = super().forward(x)
        return pad_packed_sequence(packed, batch_first=True)[0], hidden


def sequences():
    return [torch.randn(length, 5) for length in LENGTHS]


@pytest.mark.parametrize("batch_first", [True, False])
def test_packed_sequences_are_padded(batch_first):
    model, given = Recurrent(batch_first=batch_first), sequences()
    packed = pack_sequence(given, enforce_sorted=False)
    network = adapt(model, encoder="rnn", head="out", pool=last)
    torch.testing.assert_close(network(packed), model(packed))
    output = network.embed(packed)
    features = output.features
    assert torch.equal(output.mask, REAL)  # in the order in which they were given, not in that of their lengths
    for row, sequence in zip(features, given, strict=True):
        expected, _ = model.rnn(sequence)
        torch.testing.assert_close(row[: len(sequence)], expected)
    mm.DenseMultiMix(tuples=8)(network, packed, TARGETS).total.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    assert model.rnn.weight_hh_l0.grad.abs().max() > 0


def test_sequences_packed_or_unpacked_inside_the_model():
    given = sequences()
    packed = pack_sequence(given, enforce_sorted=False)
    padded = {"x": nn.utils.rnn.pad_sequence(given, batch_first=True), "lengths": torch.tensor(LENGTHS)}
    unpacked = Recurrent()
    unpacked.rnn = Padding(5, 8, batch_first=True)
    for model, inputs in ((Lengths(), padded), (unpacked, packed)):
        network = adapt(model, encoder="rnn", head="out", pool=last)
        torch.testing.assert_close(network(inputs), Recurrent.forward(model, packed))
        assert torch.equal(network.embed(inputs).mask, REAL)


def test_a_recurrent_encoder_that_has_time_first():
    model, x = Recurrent(batch_first=False), torch.randn(4, 3, 5)
    network = adapt(model, encoder="rnn", head="out", pool=lambda x: x[:, -1])
    torch.testing.assert_close(network(x), model(x))
    output = network.embed(x)
    assert output.features.shape == (3, 4, 8)
    assert output.mask is None


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_nested_tensors_are_padded(layout):
    if layout is torch.jagged and torch.__version__ < "2.5":
        pytest.skip("this torch cannot pad it")

    model, given = nn.ModuleDict({"encoder": nn.Linear(5, 8), "out": nn.Linear(8, 3)}), sequences()
    model.forward = lambda x: model.out(torch.stack([row.mean(0) for row in model.encoder(x).unbind()]))
    nested = torch.nested.nested_tensor(given, layout=layout)
    network = adapt(model, encoder="encoder", head="out")
    logits = network(nested)
    torch.testing.assert_close(logits, model(nested))
    assert torch.equal(network.embed(nested).mask, REAL)
    logits.square().sum().backward()
    ours = model.encoder.weight.grad.clone()
    model.zero_grad()
    model.out(torch.stack([model.encoder(x).mean(0) for x in given])).square().sum().backward()
    torch.testing.assert_close(ours, model.encoder.weight.grad)


OUTSIDE = nn.Identity()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("mask", "inputs", "error", "words"),
    [
        ("mask", SENTENCES, ValueError, "mask='mask' must be a key of the inputs, got ids, attention_mask"),
        ("mask", IDS, TypeError, "inputs must be a mapping that holds mask='mask', got Tensor"),
        (lambda x: x["ids"][:, 1:] > 0, SENTENCES, ValueError, r"mask must have one value .* \(3, 6\), got \(3, 5\)"),
        (lambda x: LENGTHS, SENTENCES, TypeError, r"mask must be a tensor \(b, r\), got tuple"),
        (3, SENTENCES, TypeError, "mask must be a key of the inputs or a function of them, got int"),
        (lambda x: OUTSIDE(x["ids"] > 0), SENTENCES, ValueError, "mask uses the module 'OUTSIDE' from outside"),
        (None, SENTENCES, ValueError, r"pool\(embed\(inputs\)\) is not what enters the head"),
        (None, {"ids": IDS, "tokens": IDS}, ValueError, "keywords, which are ids, attention_mask, labels; got ids, t"),
        (None, {"attention_mask": IDS}, ValueError, "got attention_mask .missing a required argument: 'ids'"),
    ],
)
def test_bad_masks_and_mappings(mask, inputs, error, words):
    with pytest.raises(error, match=words):
        adapt(Words(), encoder="norm", head="out", mask=mask)(inputs)
