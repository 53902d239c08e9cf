"""A training loop of your own, three lines of which are ours; real images (scikit-learn's digits), three methods."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import multimix as mm

EPOCHS, BATCH = 20, 64


def convolutions() -> nn.Module:
    """Return a small network for 8 x 8 images."""
    return nn.Sequential(
        nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        ),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def train(method: mm.Method, images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """Return a network, trained with a method."""
    torch.manual_seed(0)
    model = convolutions()
    net = mm.adapt(model, encoder="0", head="3")  # 1: the network, split at two of its modules
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    generator = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            losses = method(net, images[batch], labels[batch], generator=generator)  # 2: the losses
            losses.total.backward()  # 3: and on as ever
            optimizer.step()
            optimizer.zero_grad()
        schedule.step()
    return model.eval()


def main() -> None:
    """Train on a fifth of the digits, test on the others."""
    images, labels = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(images, labels, train_size=360, stratify=labels, random_state=0)
    x, x_test = (torch.tensor(part, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1 for part in (x, x_test))
    y, y_test = torch.tensor(y), torch.tensor(y_test)
    for method in (mm.ERM(), mm.MultiMix(), mm.SelfDistilled(mm.DenseMultiMix())):
        model = train(method, x, y)
        with torch.no_grad():
            accuracy = (model(x_test).argmax(1) == y_test).float().mean()
        print(f"{method.name:16} test accuracy {accuracy:6.1%} (one seed, {len(y_test)} images)")


if __name__ == "__main__":
    main()
