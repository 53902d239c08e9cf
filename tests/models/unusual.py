"""Models as people write them, each with something that an adaptor could trip over, and inputs for them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

IMAGES = torch.linspace(-9, 9, 4 * 3 * 16 * 16).sin().reshape(4, 3, 16, 16)
WORDS = torch.arange(4 * 7).reshape(4, 7) * 5 % 19 + 1
LABELS = torch.tensor([0, 1, 2, 1])
CLASSES = 3


class Tutorial(nn.Module):
    """The network of PyTorch's CIFAR-10 tutorial, for smaller images: activations and views are functions."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3)
        self.fc1, self.fc2, self.fc3 = nn.Linear(8 * 2 * 2, 12), nn.Linear(12, 8), nn.Linear(8, CLASSES)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(-1, 8 * 2 * 2)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class Block(nn.Module):
    def __init__(self, width, out, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.shortcut = nn.Conv2d(width, out, 1, stride, bias=False)

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network for small images, without a module for its pooling; blocks may be dropped in training."""

    def __init__(self, drop=0.0):
        super().__init__()
        self.stem, self.layer1, self.layer2 = nn.Conv2d(3, 6, 3, 1, 1), Block(6, 6, 1), Block(6, 8, 2)
        self.linear, self.drop = nn.Linear(8, CLASSES), drop

    def forward(self, x):
        x = self.stem(x)
        kept = not self.training or torch.rand(()) >= self.drop
        x = self.layer1(x) if kept else x
        x = self.layer2(x)
        return self.linear(F.avg_pool2d(x, x.shape[-1]).view(len(x), -1))


class Body(nn.Module):
    """A stem, a body and a linear layer; what comes between and behind them is for subclasses to say."""

    def __init__(self, head=None):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.body = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8, CLASSES) if head is None else head

    def features(self, x):
        return self.body(self.stem(x)).mean((2, 3))

    def forward(self, x):
        return self.fc(self.features(x))


def body(name, forward, **layers):
    """Return what makes a body of this class name and forward pass, with layers that are made anew for each."""

    def make(head=None):
        model = type(name, (Body,), {"forward": forward})(head)
        for layer, made in layers.items():
            setattr(model, layer, made())
        return model

    return make


def half():
    return nn.Dropout(0.5)


@dataclass
class Output:
    logits: Tensor
    features: Tensor


def checkpointed(*, reentrant):
    def forward(m, x):
        return m.fc(checkpoint(m.body, m.stem(x), use_reentrant=reentrant).mean((2, 3)))

    return body("Checkpointed", forward)()


Dropped = body("Dropped", lambda m, x: m.fc(m.drop(m.features(x))), drop=half)
DroppedMaps = body("DroppedMaps", lambda m, x: m.fc(m.drop(m.body(m.stem(x))).mean((2, 3))), drop=half)
Noisy = body("Noisy", lambda m, x: m.fc((z := m.features(x)) + m.training * torch.randn_like(z)))
Gated = body(  # has an adapter whose gate starts at 0
    "Gated",
    lambda m, x: m.fc((z := m.features(x)) + m.gate * m.adapter(z)),
    gate=lambda: nn.Parameter(torch.zeros(())),
    adapter=lambda: nn.Linear(8, 8),
)
WithFeatures = body("WithFeatures", lambda m, x: (z := m.features(x), m.fc(z)))
InMapping = body("InMapping", lambda m, x: {"features": (z := m.features(x)), "out": m.fc(z)})
InDataclass = body("InDataclass", lambda m, x: Output(m.fc(z := m.features(x)), z))
LogSoftmax = body("LogSoftmax", lambda m, x: m.act(m.fc(m.features(x))), act=lambda: nn.LogSoftmax(1))
FunctionalLogSoftmax = body("FunctionalLogSoftmax", lambda m, x: m.fc(m.features(x)).log_softmax(1))
Temperature = body("Temperature", lambda m, x: m.fc(m.features(x)) / 0.1)
Siamese = body("Siamese", lambda m, x: m.fc(m.features(x)) + m.fc(m.features(x.flip(-1))))
TwoHeads = body("TwoHeads", lambda m, x: (m.fc(z := m.features(x)), m.other(z)), other=lambda: nn.Linear(8, CLASSES))


class LoRA(nn.Module):
    """A frozen layer, and a product of two narrow ones that starts at 0 beside it."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A, self.lora_B = nn.Linear(8, rank, bias=False), nn.Linear(rank, CLASSES, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x):
        return self.base(x) + self.lora_B(self.lora_A(x))


class Convolutional(nn.Module):
    """All convolutions, the head too."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.pool, self.out = nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, CLASSES, 1)

    def forward(self, x):
        return self.out(self.pool(self.body(x))).squeeze(-1).squeeze(-1)


class Segmenter(nn.Module):
    """Maps at half the size, classified by a 1x1 convolution, then enlarged; another one lies beside it."""

    def __init__(self, head=None):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.out = nn.Conv2d(6, 4, 1) if head is None else head
        self.aside = nn.Conv2d(6, 4, 1)

    def forward(self, x):
        return F.interpolate(self.out(self.body(x)), size=x.shape[2:], mode="bilinear")


class Recurrent(nn.Module):
    """A GRU that reads words; its last state is classified."""

    def __init__(self):
        super().__init__()
        self.table, self.gru, self.out = nn.Embedding(20, 6), nn.GRU(6, 8, batch_first=True), nn.Linear(8, CLASSES)

    def forward(self, ids):
        _, state = self.gru(self.table(ids))
        return self.out(state[-1])


class TiedWords(nn.Module):
    """Predicts a word by the product with all words' vectors, which is no layer."""

    def __init__(self):
        super().__init__()
        self.table, self.gru = nn.Embedding(20, 8), nn.GRU(8, 8, batch_first=True)

    def forward(self, ids):
        _, state = self.gru(self.table(ids))
        return F.linear(state[-1], self.table.weight)


class ViT(nn.Module):
    """A vision transformer with a class token."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.cls, self.place = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 17, 8))
        layers = [nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True) for _ in range(2)]
        self.blocks, self.norm, self.head = nn.Sequential(*layers), nn.LayerNorm(8), nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.place
        return self.head(self.norm(self.blocks(x))[:, 0])
