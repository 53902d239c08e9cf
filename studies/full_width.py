"""5,000 images of CIFAR-10 on a network of full width: mixed inputs, and the paper's own methods. For one GPU.

Each study is meant to take five minutes of one large GPU in bfloat16. Neither has been run. Nothing is tuned.
"""

from dataclasses import replace

from encoder import PAPER
from multimix.lab.recipes import Study, arms, cifar10
from multimix.lab.train import SGD, Step, TrainConfig
from multimix.methods import ERM, Alternate, Chain, CutMix, Mixup, MultiMix
from multimix.protocols import Method


def full_width_mixed() -> Study:
    """On mixed inputs of 5,000 images at full width: does MultiMix in the same step add to a coin of Mixup and CutMix?

    Success: at least 1.0 point, the paired 95 % interval above 0, with NLL and ECE no worse.
    """
    few = MultiMix(effective=1.5, clean=0.5, balanced=False)
    forms: dict[str, Method] = {
        "erm": ERM(),
        "coin": Alternate((Mixup(), CutMix())),
        "coin+multimix": Alternate((Chain(Mixup(), few), Chain(CutMix(), few))),
    }
    return Study(name="full-width-mixed", question=_said(full_width_mixed), arms=arms(_base(100), forms), seeds=3)


def full_width_paper() -> Study:
    """The paper's own methods on 5,000 images at full width, its schedule and weight decay: is its order seen?

    Success: dense-multimix-paper above multimix-paper above AlignMix above the others, in the mean.
    """
    base = replace(
        _base(150),
        final_norm=False,
        optimizer=SGD(learning_rate=0.1, weight_decay=1e-4),
        schedule=Step(milestones=(0.25, 0.5, 0.75)),
    )
    return Study(name="full-width-paper", question=_said(full_width_paper), arms=arms(base, PAPER), seeds=1)


def _base(epochs: int) -> TrainConfig:
    return replace(
        cifar10(),
        train_size=5000,
        split_seed=None,
        epochs=epochs,
        validate_every=epochs,
        precision="bf16-mixed",
        channels_last=True,
    )


def _said(about: object) -> str:
    return " ".join((about.__doc__ or "").split())
