"""The default of MultiMix: which settings serve both regimes, training that over-fits and training that is short?

Few images a tuple (2 effective ones, today's default) are the most accurate loss on 200 digits that are fitted to the
end, and slow short training down. Balancing their gradient, or taking half of the loss clean, may keep the one and
mend the other. Success: within 0.3 points of `multimix` where training over-fits, and no more than 0.3 below plain
training where it is short, in the mean. The two studies of photographs were written when those of digits had shown
balanced tuples of 2 to serve both, before any of their own runs.
"""

from dataclasses import replace

from comparison import RECOMMENDED
from few_cifar10 import few_cifar10
from multimix.lab.recipes import Study, arms, cifar10_small, digits, digits_few
from multimix.lab.train import TrainConfig
from multimix.methods import ERM, MultiMix
from multimix.protocols import Method


def defaults_few() -> Study:
    """On 200 digits that are fitted to the end, how accurate is each form of MultiMix that could be the default?"""
    return _study("defaults-few", defaults_few.__doc__ or "", digits_few())


def defaults_short() -> Study:
    """On 1,294 digits for 16 epochs, how accurate is each form of MultiMix that could be the default?"""
    return _study("defaults-short", defaults_short.__doc__ or "", replace(digits(), validate_every=16))


def defaults_photos_few() -> Study:
    """On 1,000 images of CIFAR-10 that are fitted to the end, are balanced tuples of 2 as good as unbalanced ones?"""
    base = few_cifar10().arms["erm"][0]
    forms: dict[str, Method] = {"erm": ERM(), "multimix": MultiMix(balanced=False), "balanced": MultiMix(balanced=True)}
    question = defaults_photos_few.__doc__ or ""
    return Study(name="defaults-photos-few", question=question, arms=arms(base, forms), seeds=8)


def defaults_photos_short() -> Study:
    """On a tenth of CIFAR-10 for 25 epochs, at four times the usual weight decay: below plain training or not?"""
    base = cifar10_small()
    base = replace(base, optimizer=replace(base.optimizer, weight_decay=4 * base.optimizer.weight_decay))
    forms: dict[str, Method] = {"erm": ERM(), "multimix": MultiMix(balanced=False), "balanced": MultiMix(balanced=True)}
    question = defaults_photos_short.__doc__ or ""
    return Study(name="defaults-photos-short", question=question, arms=arms(base, forms), seeds=6)


def _study(name: str, question: str, base: TrainConfig) -> Study:
    forms: dict[str, Method] = {
        "erm": ERM(),
        "multimix": MultiMix(balanced=False),
        "clean": MultiMix(clean=0.5, balanced=False),
        "balanced": MultiMix(balanced=True),
        "balanced-clean": MultiMix(balanced=True, clean=0.5),
        "recommended": RECOMMENDED,
    }
    return Study(name=name, question=question, arms=arms(base, forms), seeds=8)
