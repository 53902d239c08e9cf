"""Networks small enough to know by heart."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from multimix.ops import accurate
from multimix.protocols import EncoderOutput, encode


class Toy(nn.Module):
    """Blocks, average pooling and a linear classifier, as a ``Network``.

    Accepts whatever its blocks turn into maps (b, d, h, w), sequences (b, r, d) or vectors (b, d). Remembers every
    input it embeds in ``seen``.
    """

    def __init__(self, *blocks: nn.Module, width: int, classes: int, affine: bool = True):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Identity(), *blocks])
        self.classifier = nn.Linear(width, classes)
        self.stages = range(len(self.blocks))
        self.affine = affine
        self.seen: list[Tensor] = []

    @property
    def head(self) -> nn.Module | None:
        return self.classifier if self.affine else None

    def forward(self, inputs: Tensor) -> Tensor:
        return self.classify(self.pool(self.embed(inputs)))

    def embed(self, inputs: Tensor) -> Tensor:
        self.seen.append(inputs.detach().clone())
        for block in self.blocks:
            inputs = block(inputs)
        self.grid = inputs.shape[2:]
        if inputs.ndim == 2:
            return inputs.unsqueeze(1)
        return inputs if inputs.ndim == 3 else inputs.flatten(2).transpose(1, 2)

    def attention_of(self, images: Tensor, by: str = "class") -> tuple[EncoderOutput, Tensor]:
        """Every position is attended to by its features: their sum, or by the patches their mean."""
        output = encode(self, images)
        features = accurate(output.features.detach())
        seen = features.sum(-1) if by == "class" else features.mean(-1)
        return output, seen.softmax(-1).unflatten(1, self.grid)

    def pool(self, features: Tensor) -> Tensor:
        return features.mean(1)

    def classify(self, embeddings: Tensor) -> Tensor:
        return self.classifier(embeddings)

    @contextmanager
    def mixing_at(self, stage: int, mix: Callable[[Tensor], Tensor]) -> Iterator[None]:
        handle = self.blocks[stage].register_forward_hook(lambda module, inputs, output: mix(output))
        try:
            yield
        finally:
            handle.remove()


class Bent(Toy):
    """A classifier that is not affine."""

    def classify(self, embeddings: Tensor) -> Tensor:
        return self.classifier(torch.tanh(embeddings) * 3)


class HandWritten(nn.Module):
    """An image classifier as somebody else writes it, who knows nothing of this library."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU()
        )
        self.out = nn.Linear(12, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.out(self.body(images).mean((2, 3)))


def seeded(seed: int = 0) -> torch.Generator:
    """A source of randomness that starts alike in every test."""
    return torch.Generator().manual_seed(seed)


def images(
    *, classes: int = 5, width: int = 6, kernel: int = 3, norm: bool = True, affine: bool = True, seed: int = 0
) -> Toy:
    """Two convolutions for images (b, 3, h, w); maps are half as large."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Toy(
            _convolution(3, 4, kernel, 1, norm=norm),
            _convolution(4, width, kernel, 2, norm=norm),
            width=width,
            classes=classes,
            affine=affine,
        )


def vectors(
    *, d: int = 8, classes: int = 5, width: int = 6, affine: bool = True, seed: int = 0, cls: type[Toy] = Toy
) -> Toy:
    """A perceptron for feature vectors (b, d)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hidden = nn.Sequential(nn.Linear(d, 10), nn.Tanh())
        return cls(hidden, nn.Linear(10, width), width=width, classes=classes, affine=affine)


def bent(**sizes: int) -> Toy:
    """The same with a classifier that is not affine."""
    return vectors(affine=False, cls=Bent, **sizes)


def identity(k: int) -> Toy:
    """A network whose inputs (b, k) or (b, r, k) are its logits: gradients on one are gradients on the other."""
    network = Toy(width=k, classes=k)
    with torch.no_grad():
        network.classifier.weight.copy_(torch.eye(k))
        network.classifier.bias.zero_()
    return network


def batch(
    b: int, *shape: int, classes: int = 5, seed: int = 0, device: Any = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Random inputs (b, *shape) and class indices (b,)."""
    generator = seeded(seed)
    inputs = torch.randn(b, *shape, generator=generator, dtype=torch.float64).to(device, dtype)
    return inputs, torch.randint(classes, (b,), generator=generator).to(device)


def one_hot(targets: Tensor, classes: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """Class indices as probabilities."""
    return torch.eye(classes, dtype=dtype, device=targets.device)[targets]


def soft_targets(b: int, classes: int, *, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random class probabilities (b, k)."""
    return torch.randn(b, classes, generator=seeded(seed), dtype=torch.float64).mul(2).softmax(-1).to(dtype)


def _convolution(inside: int, outside: int, kernel: int, stride: int, *, norm: bool) -> nn.Module:
    layer = nn.Conv2d(inside, outside, kernel, stride=stride, padding=kernel // 2)
    return nn.Sequential(layer, nn.BatchNorm2d(outside), nn.Tanh()) if norm else nn.Sequential(layer, nn.Tanh())
