"""What each field of every configuration may hold and what it refuses, written down apart from its annotation."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import inf, nan
from typing import Any

from hypothesis import strategies as st

from multimix.distill import SelfDistilled
from multimix.lab.detect import DetectConfig
from multimix.lab.evaluate import SUITES
from multimix.lab.train import SGD, AdamW, BinaryCrossEntropy, Cosine, CrossEntropy, Step, TrainConfig
from multimix.methods import ERM, METHODS, Alternate, AttentiveMix, Chain, Mixup, Ramp, SuperMix, Until


@dataclass(frozen=True)
class Range:
    """What is allowed, besides what the field's type has of None, choices and truth values, and what is not."""

    allowed: st.SearchStrategy[Any]
    refused: tuple[Any, ...]


positive = st.one_of(st.sampled_from([1e-300, 1.0, 1e300]), st.floats(1e-6, 1e6))
share = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
below_1 = st.floats(0, 1, exclude_max=True)
inside = st.floats(1e-6, 1 - 1e-6)
count = st.one_of(st.sampled_from([1, 2**31]), st.integers(1, 1000))
natural = st.just(0) | count
text = st.text("aé数🦊 \\\"'\n:/%{}", max_size=8)


def tuples(items: st.SearchStrategy[Any], least: int) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, min_size=least, max_size=4).map(tuple)


NO_NUMBER = ("x", True, nan)
COUNT = Range(count, (0, -1, -99999999999999999999, 1.5, *NO_NUMBER))
SEVERAL = Range(st.integers(2, 50), (1, *COUNT.refused))
NATURAL = Range(natural, (-1, -7, 1.5, *NO_NUMBER))
SEED = Range(natural, (2**64, 10**30, *NATURAL.refused))
POSITIVE = Range(positive, (0, -0.1, inf, -inf, *NO_NUMBER))
NOT_NEGATIVE = Range(st.just(0.0) | positive, (-1, -1e-9, -inf, *NO_NUMBER))
FINITE = Range(NOT_NEGATIVE.allowed, (inf, *NOT_NEGATIVE.refused))
SHARE = Range(share, (-0.1, 1.1, inf, *NO_NUMBER))
SHARE_BELOW_1 = Range(below_1, (1, *SHARE.refused))
SHARE_ABOVE_0 = Range(inside | st.just(1.0), (0, *SHARE.refused))
INSIDE = Range(inside, (0, 1, *SHARE.refused))
CHOICE = Range(st.nothing(), ("nope", "", 7))
FREE = Range(natural, ())
AMOUNTS = Range(tuples(positive, 1), ((), (0.0, 0.0), (-1.0, 1.0), (inf,), (nan,), ("x",), "even", 2.0))

RANGES: dict[str, Range] = {
    **dict.fromkeys(("accumulate", "anchor", "autoattack_batch_size", "autoattack_examples", "batch_size"), COUNT),
    **dict.fromkeys(("bins", "channels", "checkpoint_steps", "coarsest", "curve_examples", "devices", "epochs"), COUNT),
    **dict.fromkeys(("examples", "finest", "grid", "hidden", "image_size", "iterations", "knn_neighbours"), COUNT),
    **dict.fromkeys(("mixing_batches", "neighbours", "nodes", "ood_examples", "part", "patch", "patches"), COUNT),
    **dict.fromkeys(("picture_examples", "positions", "proposals", "restarts", "sampled", "side", "size"), COUNT),
    **dict.fromkeys(("steps", "train_examples", "train_size", "transport_size", "tuple_length", "tuples"), COUNT),
    **dict.fromkeys(("depth", "lambdas", "validate_every", "validation_examples", "width"), COUNT),
    **dict.fromkeys(("images", "labels", "mixing_batch"), SEVERAL),
    **dict.fromkeys(("crop_padding", "split_seed", "trainable_stages", "warmup", "workers"), NATURAL),
    **dict.fromkeys(("alpha", "alpha1", "alpha2", "clip", "delta", "epsilon", "factor", "learning_rate"), POSITIVE),
    **dict.fromkeys(("energy_temperature", "odin_temperature", "fgsm_epsilon", "l2_epsilon", "l2_step"), POSITIVE),
    **dict.fromkeys(("pgd_epsilon", "pgd_step", "tau_max", "tau_std"), POSITIVE),
    **dict.fromkeys(("adversarial_eps", "beta", "clean", "decay", "distance_weight", "eta", "gamma"), FINITE),
    **dict.fromkeys(("consistency", "fine", "sigma", "sparsity", "tau", "transport_eps"), FINITE),
    **dict.fromkeys(("tolerance", "warmup_epochs", "weight_decay"), NOT_NEGATIVE),
    **dict.fromkeys(("adversarial", "balance_power", "final", "fraction", "mahalanobis_shrinkage", "omega"), SHARE),
    **dict.fromkeys(("attention", "odin_epsilon", "prob", "r", "threshold"), SHARE),
    **dict.fromkeys(("ema", "held_out", "momentum", "score_threshold", "validation"), SHARE_BELOW_1),
    **dict.fromkeys(("activation", "buffer_rule", "impl", "interpolation", "mode", "norm", "picture"), CHOICE),
    **dict.fromkeys(("distance", "form", "precision", "query", "reference", "saliency", "spread", "teacher"), CHOICE),
    "tuples_over": CHOICE,
    **dict.fromkeys(("class_weights", "positive_weights"), AMOUNTS),
    "ignore_index": Range(st.integers(-100, 255), ("x", 1.5, True)),
    "label_smoothing": SHARE,
    "objective": Range(st.builds(CrossEntropy, AMOUNTS.allowed) | st.builds(BinaryCrossEntropy), ("x", 7, SGD())),
    "share": SHARE_ABOVE_0,
    "confidence": INSIDE,
    "effective": Range(st.floats(1.1, 1e6), (0.5, 1, -1, inf, (3.0, 2.0), (2.0,), *NO_NUMBER)),
    "seed": FREE,
    "thresholds": Range(st.integers(1, 200), (201, *COUNT.refused)),
    "betas": Range(st.tuples(below_1, below_1), ((0.9, 1.0), (-0.1, 0.9), (nan, 0.9))),
    "curve": Range(tuples(share, 0), ((-1.0,), (nan,), (inf,))),
    "fractions": Range(st.just((0.0, 0.5)), ((0.5,), (0.5, 0.2), (0.0, 1.0), (0.0, nan), (-1.0, 0.0), ())),
    "grids": Range(tuples(count, 1), ((0,), (4, -1), ())),
    "max_size": Range(st.integers(1000, 2000), COUNT.refused),
    "logger": Range(tuples(text, 0), ((1,), "wandb", True)),
    "levels": Range(st.tuples(st.floats(-5, 0), st.floats(1, 5)), ((1.0, 0.0), (0.0,), (0.0, nan))),
    "milestones": Range(tuples(inside, 0), ((0.0,), (1.0,), (0.5, nan))),
    "min_size": Range(tuples(st.integers(1, 100), 1), ((0,), (800, -1), ())),
    "probabilities": Range(st.none(), ((0.5, 0.5), (nan,), (-1.0,))),
    **dict.fromkeys(
        ("scales", "sides"),
        Range(st.tuples(share, share).map(lambda pair: tuple(sorted(pair))), ((0.8, 0.1), (0.1, 1.1), (0.1,))),
    ),
    "sigmas": Range(st.just((0.1, 2.0)), ((0.5, 0.2), (0.0, 1.0), (0.5,), (0.2, inf), (nan, 1.0))),
    "stages": Range(tuples(natural, 1), ((-1,), (0, -7), ())),
    "strides": Range(tuples(count, 1), ((1.5, 2),)),
    "severity": Range(st.floats(0.1, 10), (0, 0.05, 10.5, inf, *NO_NUMBER)),
    "corruptions": Range(st.nothing(), (("snwo",), ())),
    "norms": Range(st.nothing(), (("l3",), ("linf", "linf"), ())),
    "scores": Range(st.nothing(), (("mpsp",), ("msp", "msp"), ())),
    "sets": Range(st.none(), ()),
    "severities": Range(st.nothing(), ((0,), (6,), (-1,), ())),
    # where a class means something else by a name
    "AugMix.mean": Range(st.none(), ((), (inf,), (nan,), ("x",), (0.5,), 0.5)),
    "AugMix.std": Range(st.none(), ((), (0.0,), (-1.0,), (nan,), ("x",), 0.5)),
    "AlignMix.tolerance": NOT_NEGATIVE,
    "CMixup.sigma": POSITIVE,
    "DecoupledMixup.method": Range(st.builds(Mixup, alpha=positive), ("x", 7, SGD())),
    "DenseMultiMix.clean": SHARE,
    "DetectConfig.init": CHOICE,
    "DetectConfig.seed": NATURAL,
    "EmbeddingSettings.seed": NATURAL,
    "IntrusionSettings.seed": NATURAL,
    "IntrusionSettings.threshold": SHARE_ABOVE_0,
    "MultiMix.clean": SHARE,
    "Ramp.prob": Range(st.tuples(share, share), ((0.5,), (0.5, 1.1), (nan, 0.5), 0.5, "x")),
    "Ramp.shape": CHOICE,
    "Ramp.strength": Range(st.none(), (("alpha", 0.1), ("beta", 0.1, 1.0), (0.1, 0.2, 0.3), "alpha", 0.5)),
    "RecursiveMix.consistency": FINITE,
    "RecursiveMix.max_area": SHARE_ABOVE_0,
    "SelfDistilled.gamma": SHARE,
    "SelfDistilled.warmup": Range(st.booleans(), ("x", 2)),
    "StyleCutMix.gamma": SHARE,
    "StyleCutMix.learning_rate": FINITE,
    "StyleMix.learning_rate": FINITE,
    **dict.fromkeys(("AttentiveMix.teacher", "SuperMix.teacher"), Range(st.none(), ("x",))),
    "SuperMix.tolerance": SHARE,
    "TrainConfig.seed": SEED,
    "ZetaMixup.gamma": Range(positive.filter(lambda value: value < 1e200), POSITIVE.refused),
}
"""Ranges by the name of a field, and of its class where that decides."""

CONFIGS: dict[type[Any], dict[str, Any]] = {
    **{cls: {} for cls in METHODS if cls not in (ERM, AttentiveMix, SuperMix)},
    **{cls: {"teacher": None} for cls in (AttentiveMix, SuperMix)},
    SelfDistilled: {"method": ERM()},
    Until: {"method": ERM()},
    Ramp: {"method": Mixup()},
    Alternate: {"methods": (ERM(),)},
    Chain: {"first": Mixup(), "then": ERM()},
    **{cls: {} for cls in (TrainConfig, SGD, AdamW, Step, Cosine, DetectConfig)},
    **{cls: {} for cls in (CrossEntropy, BinaryCrossEntropy)},
    **{suite.Settings: {} for suite in SUITES},
}
"""Every class of settings, with values of the fields that have no default."""


def range_of(cls: type[Any], name: str) -> Range | None:
    """Return the range of a field, None where the table has none."""
    return RANGES.get(f"{cls.__name__}.{name}", RANGES.get(name))


def refused(cls: type[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a class of settings, each with every value that it refuses."""
    for f in fields(cls):
        for value in found.refused if (found := range_of(cls, f.name)) else ():
            yield f.name, value
