"""Sweeps over one setting at a time, on digits, where a run takes seconds."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from multimix.distill import SelfDistilled
from multimix.lab.recipes import Study, arms, digits
from multimix.lab.train import TrainConfig
from multimix.methods import ERM, Alternate, Chain, CutMix, DenseMultiMix, ManifoldMixup, Mixup, MultiMix
from multimix.names import multimix_balanced
from multimix.protocols import Method

_PAPER = (0.5, 2.0)
_SEEDS = 3


def effective() -> Study:
    """How many images should enter a tuple: from 1.5 to half of the mini-batch, ranges, uniform and log-uniform."""
    fixed = {f"effective {e:g}": MultiMix(effective=e, balanced=False) for e in (1.5, 2.0, 3.0, 4.8, 8.0, 16.0, 64.0)}
    ranges = {
        "effective 1.5 to 8": MultiMix(effective=(1.5, 8.0), balanced=False),
        "effective 1.5 to 64": MultiMix(effective=(1.5, 64.0), balanced=False),
        "effective 1.5 to 64, log": MultiMix(effective=(1.5, 64.0), spread="log-uniform", balanced=False),
        "alpha 0.5 to 2": MultiMix(alpha=_PAPER, balanced=False),
    }
    return _sweep("effective", effective, fixed | ranges)


def tuples() -> Study:
    """How many tuples, with and without the gain of the balanced gradient, which multiplies their sampling noise."""
    plain = {f"effective 2, n {n}": MultiMix(tuples=n, balanced=False) for n in (1, 10, 100, 1000, 10_000, 100_000)}
    # Not with a single tuple: the noise times the gain makes the weights non-finite within an epoch or two.
    balanced = {f"balanced, n {n}": replace(multimix_balanced(), tuples=n) for n in (10, 100, 1000, 10_000, 100_000)}
    return _sweep("tuples", tuples, plain | balanced)


def length() -> Study:
    """How many examples a tuple is drawn from: a few, or the whole mini-batch."""
    plain = {f"effective 2, m {m}": MultiMix(tuple_length=m, balanced=False) for m in (3, 8, 32)}
    paper = {f"alpha 0.5 to 2, m {m}": MultiMix(alpha=_PAPER, tuple_length=m, balanced=False) for m in (2, 3, 8, 32)}
    whole = {
        "effective 2, m 128": MultiMix(balanced=False),
        "alpha 0.5 to 2, m 128": MultiMix(alpha=_PAPER, balanced=False),
    }
    return _sweep("length", length, plain | paper | whole)


def balance() -> Study:
    """How much of the gradient to restore: powers of the gain, at the published concentration."""
    paper = {f"gain to the power {p:g}": replace(multimix_balanced(), balance_power=p) for p in (0.25, 0.5, 0.75, 1.0)}
    few = {"effective 4.8, gain to the power 1": MultiMix(effective=4.8, tuples=4000, balanced=True)}
    return _sweep("balance", balance, {"no gain": MultiMix(alpha=_PAPER, tuples=4000, balanced=False)} | paper | few)


def balance_tuples() -> Study:
    """How many tuples does each power of the gain want, at the published concentration: does restoring cost noise?"""
    found = {
        f"gain to the power {power:g}, n {n}": replace(multimix_balanced(), tuples=n, balance_power=power)
        for power in (0.0, 0.5, 1.0)
        for n in (100, 1000, 10_000)
    }
    return _sweep("balance-tuples", balance_tuples, found)


def layer() -> Study:
    """Where to interpolate: pairs at the input, after a stage or at the embedding; tuples everywhere or pooled?"""
    pairs: dict[str, Method] = {
        f"pairs at {'the input' if stage == 0 else f'stage {stage}'}": ManifoldMixup(stages=(stage,))
        for stage in range(5)
    }
    found: dict[str, Method] = {
        **pairs,
        "pairs at a random stage of 0 to 2": ManifoldMixup(),
        "pairs of every position": DenseMultiMix(alpha=2.0, tuple_length=2, shared=True, query="uniform"),
        "pairs of the embedding": MultiMix(alpha=2.0, tuple_length=2, balanced=False),
        "tuples of every position": DenseMultiMix(shared=True, query="uniform"),
        "tuples of every position, attention": DenseMultiMix(),
        "tuples of the embedding": MultiMix(balanced=False),
    }
    return _sweep("layer", layer, found)


def confidence() -> Study:
    """Which scale the balanced form wants: the limit of many images a tuple leaves logits k apart."""
    paper = {f"confidence {c:g}": replace(multimix_balanced(), confidence=c) for c in (0.8, 0.9, 0.99, 0.999)}
    return _sweep("confidence", confidence, {"no scale": multimix_balanced()} | paper)


def partners() -> Study:
    """What to train beside the tuples: the clean loss, input mixup or CutMix by a coin, or on mixed inputs."""
    paper = multimix_balanced()
    found: dict[str, Method] = {
        "effective 2": MultiMix(balanced=False),
        "effective 2, half clean": MultiMix(clean=0.5, balanced=False),
        "published, half clean": MultiMix(alpha=_PAPER, clean=0.5, balanced=False),
        "balanced": paper,
        "balanced, half clean": replace(multimix_balanced(), clean=0.5),
        **{
            f"effective 2, coin {p:g} with mixup": Alternate((MultiMix(balanced=False), Mixup()), (1 - p, p))
            for p in (0.25, 0.5, 0.75)
        },
        "effective 2, coin 0.5 with cutmix": Alternate((MultiMix(balanced=False), CutMix())),
        "balanced, coin 0.5 with mixup": Alternate((paper, Mixup())),
        "balanced, coin 0.5 with cutmix": Alternate((paper, CutMix())),
        "effective 2 on mixup": Chain(Mixup(), MultiMix(balanced=False)),
        "balanced on mixup": Chain(Mixup(), paper),
        "effective 2 on cutmix": Chain(CutMix(), MultiMix(balanced=False)),
        "mixup": Mixup(),
        "cutmix": CutMix(),
        "manifold-mixup": ManifoldMixup(),
    }
    return _sweep("partners", partners, found)


def dense() -> Study:
    """How to interpolate at every position: weights shared or not, query, activation, detached or not, balanced."""
    found: dict[str, Method] = {
        "default": DenseMultiMix(),
        "shared weights": DenseMultiMix(shared=True),
        "query cam": DenseMultiMix(query="cam"),
        "query uniform": DenseMultiMix(query="uniform"),
        "softmax": DenseMultiMix(activation="softmax"),
        "not detached": DenseMultiMix(detach=False),
        "published": DenseMultiMix(alpha=_PAPER),
        "published, balanced": DenseMultiMix(alpha=_PAPER, balanced=True),
        "published, balanced, shared": DenseMultiMix(alpha=_PAPER, balanced=True, shared=True),
        "half clean": DenseMultiMix(clean=0.5),
        "pooled (MultiMix)": MultiMix(balanced=False),
    }
    return _sweep("dense", dense, found)


def distillation() -> Study:
    """How to distil: weight of the labels, memory of the teacher, both readings, pooled and dense."""
    of = MultiMix(balanced=False)
    found: dict[str, Method] = {
        "no teacher": of,
        **{f"gamma {g:g}": SelfDistilled(of, gamma=g, warmup=True) for g in (0.25, 0.5, 0.75)},
        **{f"momentum {p:g}": SelfDistilled(of, momentum=p, warmup=True) for p in (0.9, 0.99)},
        "no warm-up": SelfDistilled(of, warmup=False),
        "teacher mix": SelfDistilled(of, teacher="mix", warmup=True),
        "dense": SelfDistilled(DenseMultiMix(), warmup=True),
        "erm with a teacher": SelfDistilled(ERM(), warmup=True),
    }
    return _sweep("distillation", distillation, found)


def decay() -> Study:
    """Which weight decay each form wants: a starved gradient leaves decay the upper hand."""
    methods: dict[str, Method] = {
        "erm": ERM(),
        "effective 2": MultiMix(balanced=False),
        "published": MultiMix(alpha=_PAPER, balanced=False),
        "balanced": multimix_balanced(),
    }
    runs: dict[str, tuple[TrainConfig, ...]] = {}
    for value in (0.0, 1e-4, 5e-4, 2e-3):
        base = _digits(value)
        runs |= arms(base, {f"{label}, decay {value:g}": method for label, method in methods.items()})
    return Study(name="decay", question=_question(decay), arms=runs, against="erm, decay 0.0005", seeds=_SEEDS)


def _digits(weight_decay: float) -> TrainConfig:
    recipe = digits()
    return replace(recipe, optimizer=replace(recipe.optimizer, weight_decay=weight_decay))


def _sweep(name: str, about: Callable[[], Study], methods: Mapping[str, Method]) -> Study:
    return Study(
        name=name, question=_question(about), arms=arms(digits(), {"erm": ERM()} | dict(methods)), seeds=_SEEDS
    )


def _question(about: Callable[[], Study]) -> str:
    return (about.__doc__ or "").strip()
