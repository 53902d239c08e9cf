"""Fine-tune a timm model: pre-trained on five digits, fine-tuned on few images of the other five."""

import copy

import timm
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import multimix as mm

EPOCHS = 25


def images_of(digits: range) -> tuple[Tensor, Tensor]:
    """Return all images of some digits, enlarged to 32 x 32 pixels, and their classes from 0 on."""
    pixels, labels = load_digits(return_X_y=True)
    there = (labels >= digits.start) & (labels < digits.stop)
    images = torch.tensor(pixels[there], dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    return nn.functional.interpolate(images, size=32, mode="bilinear"), torch.tensor(labels[there]) - digits.start


def train(model: nn.Module, method: mm.Method, x: Tensor, y: Tensor, *, epochs: int, rate: float) -> None:
    """Train a model in place."""
    net = mm.adapt(model)  # timm's models need no names
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.05)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(32):
            method(net, x[batch], y[batch], generator=generator).total.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval()


def main() -> None:
    """Pre-train, then fine-tune with two methods from the same weights."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", in_chans=1, num_classes=5)
    train(model, mm.ERM(), *images_of(range(5)), epochs=4, rate=3e-3)
    x, y = images_of(range(5, 10))
    model.reset_classifier(5)
    shuffled = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    few, rest = shuffled[:100], shuffled[100:]
    for method in (mm.ERM(), mm.MultiMix(), mm.Alternate((mm.MultiMix(), mm.CutMix()))):
        tuned = copy.deepcopy(model)
        train(tuned, method, x[few], y[few], epochs=EPOCHS, rate=1e-3)
        with torch.no_grad():
            accuracy = (tuned(x[rest]).argmax(1) == y[rest]).float().mean()
        print(f"{method.name:10} test accuracy {accuracy:6.1%} (one seed, fine-tuned on {len(few)} images)")


if __name__ == "__main__":
    main()
