"""200 classes of 10 images each: the loss alone, and mixed inputs, where plain training over-fits.

TinyImageNet-200 at 16 x 16 pixels. The settings are those of a first look at plain training alone, with seed 0, which
is among the seeds here too; nothing else is tuned. Each seed has training images of its own, and the same 10,000 to be
tested on once.
"""

from dataclasses import replace

from multimix.lab.recipes import Study, arms, tiny_imagenet_small
from multimix.lab.train import SGD, CrossEntropy
from multimix.methods import ERM, Alternate, CutMix, Mixup, MultiMix
from multimix.protocols import Method


def many_classes() -> Study:
    """Does MultiMix pay as a loss alone with 200 classes of 10 images each, which plain training over-fits?

    Success: a form of ours at least 0.5 point above cross-entropy, the paired 95 % interval above 0, with an NLL below
    that of label smoothing.
    """
    base = replace(
        tiny_imagenet_small(),
        train_size=2000,
        split_seed=None,
        image_size=16,
        crop_padding=2,
        width=16,
        optimizer=SGD(learning_rate=0.1, nesterov=True, weight_decay=1e-3),
        batch_size=64,
        epochs=100,
        validate_every=100,
    )
    forms: dict[str, Method] = {
        "erm": ERM(),
        "multimix": MultiMix(balanced=False),
        "balanced": MultiMix(),
        "coin": Alternate((Mixup(), CutMix())),
    }
    chosen = arms(base, forms)
    smoothed = replace(chosen["erm"][0], label="smoothing", objective=CrossEntropy(label_smoothing=0.1))
    question = " ".join((many_classes.__doc__ or "").split())
    return Study(name="many-classes", question=question, arms={**chosen, "smoothing": (smoothed,)}, seeds=8)
