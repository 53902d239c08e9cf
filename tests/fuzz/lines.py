"""Wrong command lines that are wrong by their words alone: names, types, ranges, and what does not go together."""

import types
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from multimix.lab.bench import SUITES as BENCHES
from multimix.lab.cli.__main__ import COMMANDS
from multimix.lab.evaluate import SUITES
from multimix.lab.recipes import RECIPES
from multimix.lab.recipes.detection import DETECTION_RECIPES
from multimix.lab.train import SGD, Cosine, TrainConfig
from multimix.methods import METHODS
from multimix.names import METHOD_NAMES

from .wrong import TINY, Wrong

STUDIES = Path(__file__).parents[2] / "studies"
TRAIN = ("train", "digits", *TINY, "--name", "run", "--quiet")
DETECT = ("detect", "coco-mini", "--name", "run", "--quiet")
ODD = (
    "",
    "-",
    " ",
    "\u200b",
    "né",
    "数字",
    "🦊",
    "\udcff\udcfe",
    "a" * 3000,
    "../..",
    "digits\n",
    "{}",
    "%s",
    "--",
    "'\"",
)
"""Names that nothing goes by: empty, invisible, not ASCII, not UTF-8, long, and what a careless reader would expand."""

NOT_INT = ("x", "", "1.5", "1e3", "½", "0x10", "1,000", "-", "\udcff")
NOT_FLOAT = ("x", "", "1,5", "½", "0x1p3", "1/2", "\udcff")
NOT_COUNT = ("0", "-1", "-99999999999999999999")
NOT_POSITIVE = ("0", "-0.1", "nan", "inf", "-inf")
NOT_SHARE = ("-0.1", "1.1", "nan", "inf")
NOT_SHARE_BELOW_1 = (*NOT_SHARE, "1")

TRAIN_RANGES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("epochs", "batch-size", "accumulate", "validate-every", "checkpoint-steps", "width"), NOT_COUNT),
    **dict.fromkeys(("train-size", "image-size"), NOT_COUNT),
    **dict.fromkeys(("crop-padding", "workers", "split-seed"), ("-1", "-7")),
    "seed": ("-1", str(2**64), str(10**30)),
    **dict.fromkeys(("validation", "ema"), NOT_SHARE_BELOW_1),
    "clip": NOT_POSITIVE,
    "optimizer.learning-rate": NOT_POSITIVE,
    "optimizer.momentum": NOT_SHARE_BELOW_1,
    "optimizer.weight-decay": ("-1e-9", "nan", "-inf"),
    "schedule.final": NOT_SHARE,
    "schedule.warmup-epochs": ("-1", "nan", "-inf"),
    "device": ("tpu", "cuda:64", "cuda:-1", "cpu:0:0", "CUDA", "", "cuda:x", "🦊"),
    "precision": ("fp8", "16", "32", "bf16", ""),
    "model": ("resnet18", "timm:", "timm:resnet", "torchvision:", "torchvision:nope", ":", "", "timm:../x", "🦊"),
    "data": ("digit", "digits ", "cifar", "npz:", "folder:", "folder:/nowhere", "coco:/x", "", "🦊", ":"),
}
METHOD_RANGES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("alpha", "alpha1", "alpha2"), NOT_POSITIVE),
    **dict.fromkeys(("tuples", "tuple_length", "labels", "patch", "grid", "part", "iterations", "images"), NOT_COUNT),
    **dict.fromkeys(("width", "channels", "side", "size", "transport_size"), NOT_COUNT),
    **dict.fromkeys(("prob", "balance_power", "adversarial", "r", "held_out", "share"), NOT_SHARE),
    **dict.fromkeys(("beta", "transport_eps", "tau", "omega", "distance_weight", "decay"), ("-1", "nan")),
    **dict.fromkeys(("adversarial_eps", "clean", "eta"), ("-1", "nan")),
    **dict.fromkeys(("epsilon", "sigma", "learning_rate", "sparsity", "delta"), ("-1", "nan", "inf")),
    "tolerance": ("-1", "nan"),
    "confidence": ("-1", "nan"),
    "effective": ("0.5", "-1", "nan", "inf"),
}
SUITE_RANGES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("examples", "bins", "steps", "restarts", "curve_examples", "ood_examples"), NOT_COUNT),
    **dict.fromkeys(("autoattack_examples", "autoattack_batch_size", "train_examples", "knn_neighbours"), NOT_COUNT),
    **dict.fromkeys(("validation_examples", "grid", "neighbours", "picture_examples", "thresholds"), NOT_COUNT),
    **dict.fromkeys(("mixing_batches", "mixing_batch", "positions"), NOT_COUNT),
    **dict.fromkeys(("fgsm_epsilon", "pgd_epsilon", "pgd_step", "l2_epsilon", "l2_step"), ("-1", "nan", "inf")),
    **dict.fromkeys(("energy_temperature", "odin_temperature"), NOT_POSITIVE),
    "odin_epsilon": ("-1", "nan", "inf"),
    "mahalanobis_shrinkage": ("-1", "nan", "2"),
    "severities": ("0", "6", "-1"),
    "fractions": ("0.5", "0.5 0.2", "0 1", "0 nan", "-1 0"),
    "curve": ("-1", "nan"),
    "norms": ("l3",),
    "scores": ("mpsp",),
    "corruptions": ("snwo",),
    "query": ("cem",),
    "picture": ("pca2",),
    "reference": ("trian",),
    "threshold": ("-1", "nan"),
}
DETECT_RANGES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("finest", "coarsest", "anchor", "channels", "hidden", "proposals", "sampled"), NOT_COUNT),
    **dict.fromkeys(("max-size", "epochs", "batch-size", "checkpoint-steps", "min-size"), NOT_COUNT),
    **dict.fromkeys(("seed", "workers", "trainable-stages"), ("-1",)),
    "score-threshold": NOT_SHARE_BELOW_1,
    "clip": NOT_POSITIVE,
    "init": ("rnd", ""),
    "norm": ("batch", ""),
    "optimizer.betas": ("0.9", "0.9 1", "-0.1 0.9", "nan 0.9", "0.9 0.99 0.999"),
    "optimizer.learning-rate": NOT_POSITIVE,
}


def typo(rng: Random, name: str, known: Iterable[str]) -> str:
    """Return a name with a letter too many, too few, swapped or another, which is none of the known ones."""
    known = {*known, name}
    while True:
        at = rng.randrange(len(name))
        letter = rng.choice("abcdefghijklmnopqrstuvwxyz")
        edited = rng.choice(
            [
                name[:at] + name[at + 1 :],
                name[:at] + letter + name[at:],
                name[:at] + letter + name[at + 1 :],
                name[:at] + name[at : at + 2][::-1] + name[at + 2 :],
            ]
        )
        if edited and edited.lower().replace("_", "-") not in known and not edited.startswith("-"):
            return edited


def commands(rng: Random) -> Iterator[Wrong]:
    """Commands that there are none of."""
    for name in ODD:
        yield Wrong((name,), ("command",))
    while True:
        name = typo(rng, rng.choice(list(COMMANDS)), {*COMMANDS, "help"})
        yield Wrong((name, *rng.choice([(), ("digits",), ("run",)])), ("command",))


def names(rng: Random) -> Iterator[Wrong]:
    """Names of recipes, methods, studies, data sets, models and suites that there are none of."""
    for name in ODD:
        if name.strip() and not name.startswith("-"):
            yield Wrong(("train", name, *TINY), ("recipe",))
            yield Wrong(("compare", name, "--methods", "erm"), ("recipe",))
            yield Wrong(("detect", name), ("recipe",))
        yield Wrong(("train", "digits", f"--method={name}"), ("method",))
        yield Wrong((*TRAIN, f"--data={name}"), ("data",))
        yield Wrong((*TRAIN, f"--model={name}"), ("model",))
    methods = {*METHOD_NAMES, *(f"distilled-{name}" for name in METHOD_NAMES)}
    while True:
        method = typo(rng, rng.choice(sorted(methods)), methods)
        yield Wrong((*TRAIN, "--method", method), ("method",))
        yield Wrong(("train", typo(rng, rng.choice(list(RECIPES)), RECIPES)), ("recipe",))
        yield Wrong(("compare", "digits", "--methods", "erm", method), ("method",))
        yield Wrong(("compare", typo(rng, rng.choice(list(RECIPES)), RECIPES)), ("recipe",))
        yield Wrong(("compare", f"{STUDIES}/{typo(rng, 'comparison', ())}.py"), ("file",))
        yield Wrong(("compare", f"{STUDIES}/sweeps.py:{typo(rng, 'distillation', ())}"), ("sweeps.py",))
        yield Wrong(("detect", typo(rng, rng.choice(list(DETECTION_RECIPES)), DETECTION_RECIPES)), ("recipe",))
        yield Wrong(("bench", typo(rng, rng.choice(list(BENCHES)), BENCHES)), ("suite",))
        yield Wrong(("list", typo(rng, "methods", ())), ("unrecognized",))


def options(rng: Random) -> Iterator[Wrong]:
    """Options that there are none of, or that lack their value."""
    of = {
        TRAIN: [*(f.name.replace("_", "-") for f in fields(TrainConfig)), "method", "resume", "optimizer.momentum"],
        ("compare", "digits", "--methods", "erm"): ["seeds", "jobs", "out", "epochs", "label"],
        ("bench", "ops"): ["out", "device"],
        DETECT: ["backbone", "records", "resume", "epochs", "min-size", "norm"],
        ("report", "nowhere"): ["out", "format", "suite", "records", "paired", "metrics"],
        ("evaluate", "nowhere"): ["suites", "examples", "batch-size", "ood.sets", "occlusion.grid"],
    }
    every = {*(name for known in of.values() for name in known), "quiet", "again", "name", "help"}
    every |= {f"no-{name}" for name in every}
    while True:
        for line, known in of.items():
            yield Wrong((*line, f"--{typo(rng, rng.choice(known), every)}", "3"), ("--", "unrecognized"))
            option = rng.choice([name for name in known if "." not in name])
            if not _is_flag(option):
                yield Wrong((*line, f"--{option}"), (option, "recipe", "unrecognized"))


def _is_flag(option: str) -> bool:
    return get_type_hints(TrainConfig).get(option.replace("-", "_")) is bool


def train_values(rng: Random) -> Iterator[Wrong]:
    """Values of training's fields that are of a wrong type or out of range."""
    base = (*TRAIN, "--method", "erm")
    lines = [Wrong((*base, f"--{name}", *value.split(" ")), _about(name)) for name, value in _values(TRAIN_RANGES)]
    for owner, prefix in ((TrainConfig(), ""), (SGD(), "optimizer."), (Cosine(), "schedule.")):
        for name, value in _mistyped(type(owner)):
            lines.append(Wrong((*base, f"--{prefix}{name}={value}"), _about(name)))
    return _shuffled(rng, lines)


def method_values(rng: Random) -> Iterator[Wrong]:
    """Values of every method's settings that are of a wrong type or out of range."""
    lines = []
    for method in METHODS:
        for name, value in [*_mistyped(method), *_ranged(method, METHOD_RANGES)]:
            said = f"--method.{name}".replace("_", "-")
            lines.append(Wrong((*TRAIN, "--method", method.name, f"{said}={value}"), _about(name)))
            if rng.random() < 0.2:
                said = said.replace("--method", "--method.method")
                lines.append(Wrong((*TRAIN, "--method", f"distilled-{method.name}", f"{said}={value}"), _about(name)))
    return _shuffled(rng, lines)


def suite_values(rng: Random) -> Iterator[Wrong]:
    """Values of every suite's settings that are of a wrong type or out of range; there need be no run."""
    lines = []
    for suite in SUITES:
        for name, value in [*_mistyped(suite.Settings), *_ranged(suite.Settings, SUITE_RANGES)]:
            said = f"--{suite.name}.{name}".replace("_", "-")
            lines.append(Wrong(("evaluate", "nowhere", "--suites", suite.name, said, *value.split(" ")), _about(name)))
    return _shuffled(rng, lines)


def detect_values(rng: Random) -> Iterator[Wrong]:
    """Values of detection's fields that are out of range."""
    lines = [Wrong((*DETECT, f"--{name}", *value.split(" ")), _about(name)) for name, value in _values(DETECT_RANGES)]
    return _shuffled(rng, lines)


def numbers(rng: Random) -> Iterator[Wrong]:
    """Numbers of the commands' own options."""
    wrong: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[str, ...]]] = {
        ("compare", "digits", "--methods", "erm"): (("seeds", "jobs"), (*NOT_INT, *NOT_COUNT)),
        ("evaluate", "nowhere"): (("examples", "batch-size"), (*NOT_INT, *NOT_COUNT)),
        ("report", "nowhere"): (("format",), ("htm", "", "CSV", "🦊")),
        ("bench", "ops"): (("device",), ("gpu", "", "CPU", "🦊")),
    }
    lines = [
        Wrong((*line, f"--{name}={value}"), (name,))
        for line, (options, values) in wrong.items()
        for name in options
        for value in values
    ]
    return _shuffled(rng, lines)


def conflicts(rng: Random) -> Iterator[Wrong]:
    """Options that each are right, but not together."""
    study = f"{STUDIES}/sweeps.py:effective"
    lines = [
        Wrong(("train", "--resume", "run", "--epochs", "3"), ("--resume",)),
        Wrong(("train", "digits", "--resume", "run"), ("--resume",)),
        Wrong(("train", "--resume", "run", "--method", "erm"), ("--resume",)),
        Wrong(("train", "--resume", "run", "--name", "x"), ("--resume",)),
        Wrong(("train", "--quiet"), ("recipe",)),
        Wrong(("train", "digits", "mixup", *TINY), ("mixup",)),
        Wrong(("detect", "--resume", "run", "--epochs", "3"), ("--resume",)),
        Wrong(("detect", "coco-mini", "--resume", "run"), ("--resume",)),
        Wrong(("detect", "--quiet"), ("recipe",)),
        Wrong(DETECT, ("backbone",)),
        Wrong((*DETECT, "--init", "random"), ("trainable-stages",)),
        Wrong((*DETECT, "--min-size", "300", "--max-size", "200"), ("max-size",)),
        Wrong((*TRAIN, "--compile", "--method", "manifold-mixup"), ("compile",)),
        Wrong((*TRAIN, "--optimizer.nesterov", "--optimizer.momentum", "0"), ("nesterov",)),
        Wrong((*TRAIN, "--method", "multimix", "--method.alpha", "1", "--method.effective", "3"), ("effective",)),
        Wrong((*TRAIN, "--method", "multimix", "--method.alpha", "2", "1"), ("alpha",)),
        Wrong((*TRAIN, "--method", "multimix", "--method.method.alpha", "1"), ("--method.method",)),
        Wrong((*TRAIN, "--method", "multimix-paper", "--method.methods.9.alpha", "1"), ("methods.9",)),
        Wrong((*TRAIN, "--method", "multimix-paper", "--method.methods.x.alpha", "1"), ("methods.x",)),
        Wrong(
            (*TRAIN, "--method", "multimix-paper", "--method.methods.99999999999999999999.alpha", "1"), ("methods.9",)
        ),
        Wrong((*TRAIN, "--method", "multimix-paper", "--method.methods.0", "1"), ("methods.0",)),
        Wrong((*TRAIN, "--method", "multimix-paper", "--method.probabilities", "0.5"), ("probabilities",)),
        Wrong((*TRAIN, "--method", "multimix-paper", "--method.probabilities", "nan", "1"), ("probabilities",)),
        Wrong((*TRAIN, "--method.methods.²", "1"), ("methods",)),
        Wrong((*TRAIN, "--strides", "1", "2"), ("strides",)),
        Wrong((*TRAIN, "--strides", "0", "0", "0", "0"), ("strides",)),
        Wrong((*TRAIN, "--train-size", "5"), ("train-size",)),
        Wrong((*TRAIN, "--train-size", "100000"), ("train-size",)),
        Wrong((*TRAIN, "--device", "cuda:64"), ("cuda:64",)),
        Wrong((*TRAIN, "--precision", "16-mixed"), ("precision", "16-mixed")),
        Wrong((*TRAIN, "--model", "wide_resnet16_8", "--final-norm"), ("final-norm",)),
        Wrong((*TRAIN, "--model", "timm:resnet18"), ("width", "strides")),
        Wrong(("compare", study, "--label", "x"), ("--label",)),
        Wrong(("compare", study, "--seed", "3"), ("--seed",)),
        Wrong(("compare", study, "--method.alpha", "1"), ("--method",)),
        Wrong(("compare", study, "--arms", "nobody"), ("nobody",)),
        Wrong(("compare", "digits"), ("--methods",)),
        Wrong(("compare", "digits", "--methods", "erm", "mixup", "--label", "one"), ("--label",)),
        Wrong(("compare", "digits", "--methods"), ("--methods",)),
        Wrong(("compare", "digits", "--methods", "all", "--method.alpha", "1"), ("alpha",)),
        Wrong(("report", "nowhere", "--metrics", "nll"), ("--metrics",)),
        Wrong(("bench", "ops", "pairs"), ("pairs",)),
        Wrong(("bench",), ("suite",)),
        Wrong(("report",), ("RUN",)),
        Wrong(("evaluate",), ("RUN",)),
        *(Wrong((*line, f"--{name}=--"), (name,)) for line, name in _DASHED),
        Wrong(("list", "--all"), ("--all",)),
        Wrong(("list", "--", "x"), ("x",)),
        Wrong(("list", "methods", "recipes"), ("methods",)),
        Wrong(("list", "--quiet"), ("--quiet",)),
        Wrong(("list", "\udcff"), ("\\udcff",)),
        Wrong(("list", ""), ("unrecognized",)),
    ]
    return _shuffled(rng, lines)


_DASHED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("train", "digits"), "method"),
    (("train", "digits"), "name"),
    (("detect", "coco-mini"), "name"),
    (("compare", "digits", "--methods", "erm"), "out"),
    (("evaluate", "nowhere"), "batch-size"),
    (("report", "nowhere"), "suite"),
    (("bench", "ops"), "out"),
    (("bench", "ops"), "device"),
)
"""Options that take one word, and get the two dashes that part options from other words."""


def _about(name: str) -> tuple[str, ...]:
    """Return the name of a field, or the words that are left over where it takes fewer of them."""
    plain = name.rpartition(".")[2]
    return (plain, _SAID.get(plain, plain), "unrecognized options")


def _shuffled(rng: Random, lines: list[Wrong]) -> Iterator[Wrong]:
    rng.shuffle(lines)
    return iter(lines)


def _values(ranges: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    for name, values in ranges.items():
        for value in values:
            yield name, value


def _ranged(cls: type[Any], ranges: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    for f in fields(cls):
        for value in ranges.get(f.name, ()):
            yield f.name, value


def _mistyped(cls: type[Any]) -> Iterator[tuple[str, str]]:
    """Yield the fields of a dataclass, each with texts that are no value of its type."""
    for name, hint in get_type_hints(cls).items():
        if name in {f.name for f in fields(cls)} and not name.startswith("_"):
            for value in _no_value(hint):
                yield name.replace("_", "-"), value


def _no_value(hint: Any) -> tuple[str, ...]:
    """Return texts that are no value of a type; none of a type that takes any text."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if str in kinds or any(is_dataclass(kind) for kind in kinds) or hint is Any:
        return ()
    if bool in kinds:
        return ("maybe",)
    if any(get_origin(kind) is Literal for kind in kinds):
        return ("nope", "")
    inner = [kind for kind in kinds if get_origin(kind) is tuple]
    if inner and str in get_args(inner[0]):
        return ()
    numbers = {*kinds, *(part for kind in inner for part in get_args(kind))}
    return NOT_FLOAT if float in numbers else NOT_INT if int in numbers else ()


_SAID = {"severities": "severity", "corruptions": "corruption", "data": "folder:/nowhere"}
"""Where a message has another word than the field's."""

LINES = (commands, names, options, train_values, method_values, suite_values, detect_values, numbers, conflicts)
"""Every family of wrong words."""
