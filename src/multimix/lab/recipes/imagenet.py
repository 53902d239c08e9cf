"""ImageNet."""

from multimix.lab.train import SGD, Cosine, Step, TrainConfig
from multimix.names import multimix_paper


def imagenet() -> TrainConfig:
    """Return 100 epochs of ResNet-50 on ImageNet in bfloat16.

    Source: our own. Command: ``multimix train imagenet --root DATA``. Hardware: one large GPU. No figure has been
    measured here.
    """
    return TrainConfig(
        recipe="imagenet",
        data="imagenet",
        validation=0.01,
        workers=8,
        model="torchvision:resnet50",
        optimizer=SGD(learning_rate=0.1, nesterov=True, weight_decay=1e-4),
        schedule=Cosine(warmup_epochs=5),
        epochs=100,
        batch_size=256,
        precision="bf16-mixed",
    )


def imagenet_paper() -> TrainConfig:
    """Return the published setting: ResNet-50, 300 epochs, batch 1024, a tenth of the rate every 75 epochs.

    Source: the settings of AlignMixup's code, which the MultiMix paper follows; a step takes 8 mini-batches of 128 and
    images are mixed within one, as on each of its 8 GPUs. Reported: 78.81 %. Colour jitter and PCA lighting of that
    code are left out. Command:
    ``multimix train imagenet-paper --root DATA``. Hardware: one large GPU; time not measured.
    """
    return TrainConfig(
        recipe="imagenet-paper",
        label="multimix-paper",
        data="imagenet",
        validation=0.0,
        workers=8,
        model="torchvision:resnet50",
        method=multimix_paper(),
        optimizer=SGD(learning_rate=0.1, nesterov=True, weight_decay=1e-4),
        schedule=Step(milestones=(0.25, 0.5, 0.75)),
        epochs=300,
        batch_size=128,
        accumulate=8,
        precision="bf16-mixed",
    )
