"""Handwritten digits: the data that comes with the installation."""

from multimix.lab.train import SGD, Cosine, TrainConfig


def digits() -> TrainConfig:
    """Return a run on scikit-learn's 1,797 digits of 8 × 8 pixels that takes seconds on a CPU.

    Source: our own. Command: ``multimix train digits``. Hardware: 2 CPU cores; the demo's record says how long it takes
    and what accuracy it reaches.
    """
    return TrainConfig(
        recipe="digits",
        data="digits",
        crop_padding=1,
        flip=False,
        model="preact_resnet18",
        width=8,
        strides=(1, 2, 1, 1),
        optimizer=SGD(learning_rate=0.2, weight_decay=5e-4),
        schedule=Cosine(warmup_epochs=1),
        epochs=16,
        batch_size=128,
    )
