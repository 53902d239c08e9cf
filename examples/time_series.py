"""Time series of different length: a recurrent network on packed sequences, dense interpolation at every step."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import multimix as mm

KINDS = ("sine", "square", "sawtooth", "chirp")
EPOCHS = 18


class Recurrent(nn.Module):
    """A GRU, the mean over time, a linear layer."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.GRU(1, 48, batch_first=True, bidirectional=True)
        self.head = nn.Linear(96, len(KINDS))

    def forward(self, series: PackedSequence) -> Tensor:
        """Return logits."""
        states, lengths = nn.utils.rnn.pad_packed_sequence(self.encoder(series)[0], batch_first=True)
        there = torch.arange(states.shape[1]) < lengths.unsqueeze(1)
        return self.head((states * there.unsqueeze(-1)).sum(1) / lengths.unsqueeze(1))


def signals(count: int, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
    """Return noisy signals of 20 to 60 steps, (steps, 1) each, and what kind each one is."""
    kinds = torch.randint(len(KINDS), (count,), generator=generator)
    found = []
    for kind in kinds:
        steps = int(torch.randint(20, 61, (), generator=generator))
        rate, phase = 0.05 + 0.1 * torch.rand(2, generator=generator)
        turns = rate * torch.arange(steps) * (1 + (KINDS[kind] == "chirp") * torch.arange(steps) / 30) + 10 * phase
        wave = {"square": lambda t: torch.sign(torch.sin(6.283 * t)), "sawtooth": lambda t: 2 * (t % 1) - 1}
        clean = wave.get(KINDS[kind], lambda t: torch.sin(6.283 * t))(turns)
        found.append((clean + 0.7 * torch.randn(steps, generator=generator)).unsqueeze(1))
    return found, kinds


def pack(series: list[Tensor]) -> PackedSequence:
    """Return series of any length as one batch."""
    return pack_sequence(series, enforce_sorted=False)


def train(method: mm.Method, series: list[Tensor], kinds: Tensor) -> nn.Module:
    """Return a network, trained with a method."""
    torch.manual_seed(0)
    model = Recurrent()
    net = mm.adapt(model, encoder="encoder", head="head")  # packed outputs bring their own mask
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(series), generator=generator).split(32):
            inputs = pack([series[i] for i in batch])
            method(net, inputs, kinds[batch], generator=generator).total.backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


def main() -> None:
    """Train on 200 series, test on 1,000."""
    generator = torch.Generator().manual_seed(0)
    (x, y), (x_test, y_test) = signals(200, generator), signals(1000, generator)
    for method in (mm.ERM(), mm.MultiMix(), mm.DenseMultiMix(tuples=200)):
        model = train(method, x, y)
        with torch.no_grad():
            accuracy = (model(pack(x_test)).argmax(1) == y_test).float().mean()
        print(f"{method.name:16} test accuracy {accuracy:6.1%} (one seed, {len(y_test)} series)")


if __name__ == "__main__":
    main()
