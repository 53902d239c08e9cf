"""Segmentation: digits scattered over a noisy canvas; every position has a label of its own, some have none."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import multimix as mm

SIDE, IGNORED, EPOCHS = 32, 255, 8


class Segmenter(nn.Module):
    """Convolutions, and a 1 x 1 convolution that gives 11 logits at every pixel: ten digits and the ground."""

    def __init__(self):
        super().__init__()
        layers, channels = [], 1
        for width, dilation in ((24, 1), (24, 2), (48, 4), (48, 1)):
            layers += [
                nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        self.encoder = nn.Sequential(*layers)
        self.head = nn.Conv2d(channels, 11, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        return self.head(self.encoder(images))


def scenes(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return canvases with four digits each (count, 1, side, side), and label maps; faint pixels have no label."""
    pixels, labels = load_digits(return_X_y=True)
    digits, labels = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 8, 8) / 16, torch.tensor(labels)
    images, maps = torch.zeros(count, SIDE, SIDE), torch.full((count, SIDE, SIDE), 10)
    for image, labelled in zip(images, maps, strict=True):
        for quarter in range(4):
            which = int(torch.randint(len(digits), (), generator=generator))
            shift = torch.randint(0, 9, (2,), generator=generator)
            top, left = (16 * (quarter // 2) + int(shift[0]), 16 * (quarter % 2) + int(shift[1]))
            digit = digits[which]
            image[top : top + 8, left : left + 8] = digit
            there = torch.where(digit > 0.4, labels[which], torch.where(digit > 0, IGNORED, 10))
            labelled[top : top + 8, left : left + 8] = there
    return (images + 0.3 * torch.randn(images.shape, generator=generator)).unsqueeze(1), maps


def train(method: mm.Method, images: Tensor, maps: Tensor) -> nn.Module:
    """Return a network, trained with a method."""
    torch.manual_seed(0)
    model = Segmenter()
    objective = mm.CrossEntropy(class_weights=(1.0,) * 10 + (0.2,), ignore_index=IGNORED)
    net = mm.adapt(model, encoder="encoder", head="head", dense=True, objective=objective)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=generator).split(16):
            method(net, images[batch], maps[batch], generator=generator).total.backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


def mean_iou(predicted: Tensor, maps: Tensor) -> float:
    """Return the intersection over union of each class, averaged over classes; pixels without a label do not count."""
    known = maps != IGNORED
    overlaps = []
    for c in range(11):
        guessed, true = (predicted == c) & known, (maps == c) & known
        overlaps.append(((guessed & true).sum() / (guessed | true).sum().clamp_min(1)).item())
    return sum(overlaps) / len(overlaps)


def main() -> None:
    """Train on 96 scenes, test on 200."""
    generator = torch.Generator().manual_seed(0)
    (x, y), (x_test, y_test) = scenes(96, generator), scenes(200, generator)
    for method in (mm.ERM(), mm.Mixup(alpha=0.2), mm.CutMix(), mm.DenseMultiMix(tuples=32, shared=True)):
        model = train(method, x, y)
        with torch.no_grad():
            score = mean_iou(model(x_test).argmax(1), y_test)
        print(f"{method.name:16} mean IoU {score:6.1%} (one seed, {len(y_test)} scenes)")


if __name__ == "__main__":
    main()
