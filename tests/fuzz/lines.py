"""Wrong command lines that are wrong by their words alone: names, types, ranges, and what does not go together."""

from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any, get_args, get_type_hints

from multimix.lab.bench import BENCHES
from multimix.lab.cli.__main__ import COMMANDS
from multimix.lab.detect import DetectConfig
from multimix.lab.evaluate import SUITES
from multimix.lab.recipes import RECIPES
from multimix.lab.recipes.detection import DETECTION_RECIPES
from multimix.lab.train import SGD, Cosine, TrainConfig
from multimix.methods import METHODS
from multimix.names import METHOD_NAMES

from .ground import Ground
from .ranges import refused
from .strategies import LONG
from .wrong import TINY, Wrong, family

STUDIES = Path(__file__).parents[2] / "studies"
TRAIN = ("train", "digits", *TINY, "--name", "run", "--quiet")
ERM = (*TRAIN, "--method", "erm")
PAPER = (*TRAIN, "--method", "multimix-paper")
COMPARE = ("compare", "digits", "--methods", "erm")
DETECT = ("detect", "coco-mini", "--name", "run", "--quiet")
EVALUATE = ("evaluate", "nowhere")
REPORT = ("report", "nowhere")
OPS = ("bench", "ops")

FOX = "🦊"
ODD = (
    *("", "-", " ", "\u200b", "né", "数字", FOX, "\udcff\udcfe"),
    *("a" * 3000, "../..", "digits\n", "{}", "%s", "--", "'\""),
)
"""Names that nothing goes by: empty, invisible, not ASCII, not UTF-8, long, and what a careless reader would expand."""
NOT_INT = ("x", "", "1.5", "1e3", "½", "0x10", "1,000", "-", "\udcff")
NOT_FLOAT = ("x", "", "1,5", "½", "0x1p3", "1/2", "\udcff")
TEXTS: dict[str, tuple[str, ...]] = {
    "device": ("tpu", "cuda:64", "cuda:-1", "cpu:0:0", "CUDA", "", "cuda:x", FOX),
    "model": ("resnet18", "timm:", "timm:resnet", "torchvision:", "torchvision:nope", ":", "", "timm:../x", FOX),
    "data": ("digit", "digits ", "cifar", "npz:", "folder:", "folder:/nowhere", "coco:/x", "", FOX, ":"),
}
"""Texts that training does not know."""
TIMES = 200 if LONG else 15  # how often each name is mistyped


def typo(rng: Random, name: str, known: Iterable[str]) -> str:
    """Return a name with a letter too many, too few, swapped or another, which is none of the known ones."""
    known = {*known, name}
    while True:
        at = rng.randrange(len(name))
        letter = rng.choice("abcdefghijklmnopqrstuvwxyz")
        before, here, behind = name[:at], name[at], name[at + 1 :]
        swapped = before + behind[:1] + here + behind[1:]
        edited = rng.choice([before + behind, before + letter + here + behind, before + letter + behind, swapped])
        if edited and edited.lower().replace("_", "-") not in known and not edited.startswith("-"):
            return edited


@family
def commands(rng: Random, _: Ground) -> Iterator[Wrong]:
    for name in (*ODD, *(typo(rng, rng.choice(list(COMMANDS)), {*COMMANDS, "help"}) for _ in range(TIMES))):
        yield Wrong((name, *rng.choice([(), ("digits",), ("run",)])), ("command",))


@family
def names(rng: Random, _: Ground) -> Iterator[Wrong]:
    for name in ODD:
        if name.strip() and not name.startswith("-"):
            yield Wrong(("train", name, *TINY), ("recipe",))
            yield Wrong(("compare", name, "--methods", "erm"), ("recipe",))
            yield Wrong(("detect", name), ("recipe",))
        for option in ("method", "data", "model"):
            yield Wrong((*TRAIN, f"--{option}={name}"), (option,))
    methods = [*METHOD_NAMES, *(f"distilled-{name}" for name in METHOD_NAMES)]
    kinds: tuple[tuple[tuple[str, ...], Iterable[str], str], ...] = (
        ((*TRAIN, "--method", "{}"), methods, "method"),
        (("train", "{}"), RECIPES, "recipe"),
        ((*COMPARE, "{}"), methods, "method"),
        (("compare", "{}"), RECIPES, "recipe"),
        (("compare", f"{STUDIES}/{{}}.py"), ("comparison",), "file"),
        (("compare", f"{STUDIES}/sweeps.py:{{}}"), ("distillation",), "sweeps.py"),
        (("detect", "{}"), DETECTION_RECIPES, "recipe"),
        (("bench", "{}"), BENCHES, "suite"),
        (("list", "{}"), ("methods",), "unrecognized"),
    )
    for words, known, about in kinds * TIMES:
        wrong = typo(rng, rng.choice(list(known)), known)
        yield Wrong(tuple(word.format(wrong) for word in words), (about,))


@family
def options(rng: Random, _: Ground) -> Iterator[Wrong]:
    of: dict[tuple[str, ...], list[str]] = {
        TRAIN: [*(f.name.replace("_", "-") for f in fields(TrainConfig)), "method", "resume", "optimizer.momentum"],
        COMPARE: ["seeds", "jobs", "out", "epochs", "label"],
        OPS: ["out", "device", "rounds", "threads"],
        DETECT: ["backbone", "records", "resume", "epochs", "min-size", "norm"],
        REPORT: ["out", "format", "suite", "records", "paired", "metrics"],
        EVALUATE: ["suites", "examples", "batch-size", "ood.sets", "occlusion.grid"],
    }
    every = {*chain(*of.values()), "quiet", "again", "name", "help"}
    every |= {f"no-{name}" for name in every}
    flags = {name.replace("_", "-") for name, hint in get_type_hints(TrainConfig).items() if hint is bool}
    for line, known in [*of.items()] * TIMES:
        yield Wrong((*line, f"--{typo(rng, rng.choice(known), every)}", "3"), ("--", "unrecognized"))
        option = rng.choice([name for name in known if "." not in name])
        if option not in flags:
            yield Wrong((*line, f"--{option}"), (option, "recipe", "unrecognized"))


@family
def train_values(rng: Random, _: Ground) -> Iterator[Wrong]:
    for name, texts in TEXTS.items():
        yield from (Wrong((*ERM, f"--{name}={value}"), (name, "folder:/nowhere")) for value in texts)
    for cls, prefix in ((TrainConfig, ""), (SGD, "optimizer."), (Cosine, "schedule.")):
        yield from values(ERM, cls, prefix)


@family
def method_values(rng: Random, _: Ground) -> Iterator[Wrong]:
    for method in METHODS:
        yield from values((*TRAIN, "--method", method.name), method, "method.")
        distilled = [*values((*TRAIN, "--method", f"distilled-{method.name}"), method, "method.method.")]
        yield from rng.sample(distilled, len(distilled) // 5)


@family
def suite_values(rng: Random, _: Ground) -> Iterator[Wrong]:
    for suite in SUITES:
        yield from values((*EVALUATE, "--suites", suite.name), suite.Settings, f"{suite.name}.")


@family
def detect_values(rng: Random, _: Ground) -> Iterator[Wrong]:
    yield from values(DETECT, DetectConfig, "")
    for betas in (("0.9",), ("0.9", "0.99", "0.999"), ("nan", "0.9")):
        yield Wrong((*DETECT, "--optimizer.betas", *betas), ("betas", "unrecognized options"))


def values(line: tuple[str, ...], cls: type[Any], prefix: str) -> Iterator[Wrong]:
    """Yield a command line with each value that a field of a class of settings does not take."""
    for name, value in [*refused(cls), *_mistyped(cls)]:
        option = f"--{prefix}{name}".replace("_", "-")
        words = (option, *map(str, value)) if isinstance(value, tuple) else (f"{option}={value}",)
        stem = {"severities": "severit"}.get(name, name.removesuffix("s"))
        yield Wrong((*line, *words), (stem, "unrecognized options"))


def _mistyped(cls: type[Any]) -> Iterator[tuple[str, str]]:
    """Yield the fields of a dataclass for numbers and truth values, each with texts that are none."""
    hints = get_type_hints(cls)
    for f in fields(cls):
        kinds = {hints[f.name], *get_args(hints[f.name])}
        texts = ("maybe",) if bool in kinds else NOT_FLOAT if float in kinds else NOT_INT if int in kinds else ()
        yield from ((f.name, text) for text in texts)


@family
def numbers(rng: Random, _: Ground) -> Iterator[Wrong]:
    counts = (*NOT_INT, "0", "-1", "-99999999999999999999")
    for line, names, values in (
        (COMPARE, ("seeds", "jobs"), counts),
        (EVALUATE, ("examples", "batch-size"), counts),
        (REPORT, ("format",), ("htm", "", "CSV", FOX)),
        (OPS, ("device",), ("gpu", "", "CPU", FOX)),
        (OPS, ("rounds", "threads"), counts),
    ):
        yield from (Wrong((*line, f"--{name}={value}"), (name,)) for name in names for value in values)


_METHODS = "--method.methods"
CONFLICTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("train", "digits", "--resume", "run"), "--resume"),
    (("train", "--resume", "run", "--name", "x"), "--resume"),
    (("train", "--quiet"), "recipe"),
    (("train", "digits", "mixup", *TINY), "mixup"),
    (("detect", "--resume", "run", "--epochs", "3"), "--resume"),
    (("detect", "coco-mini", "--resume", "run"), "--resume"),
    (("detect", "--quiet"), "recipe"),
    ((*DETECT, "--init", "random"), "trainable-stages"),
    ((*DETECT, "--min-size", "300", "--max-size", "200"), "max-size"),
    ((*TRAIN, "--optimizer.nesterov", "--optimizer.momentum", "0"), "nesterov"),
    ((*TRAIN, "--method", "multimix", "--method.alpha", "1", "--method.effective", "3"), "effective"),
    ((*TRAIN, "--method", "multimix", "--method.alpha", "2", "1"), "alpha"),
    ((*PAPER, f"{_METHODS}.x.alpha", "1"), "methods.x"),
    ((*PAPER, f"{_METHODS}.0", "1"), "methods.0"),
    ((*PAPER, "--method.probabilities", "0.5"), "probabilities"),
    ((*PAPER, "--method.probabilities", "nan", "1"), "probabilities"),
    ((*TRAIN, f"{_METHODS}.²", "1"), "methods"),
    ((*TRAIN, "--strides", "1", "2"), "strides"),
    ((*TRAIN, "--strides", "0", "0", "0", "0"), "strides"),
    ((*TRAIN, "--train-size", "100000"), "train-size"),
    ((*TRAIN, "--precision", "16-mixed"), "16-mixed"),
    ((*TRAIN, "--model", "wide_resnet16_8", "--final-norm"), "final-norm"),
    ((*TRAIN, "--model", "timm:resnet18"), "width"),
    (("compare", "digits", "--methods"), "--methods"),
    (("compare", "digits", "--methods", "all", "--method.alpha", "1"), "alpha"),
    ((*OPS, "pairs"), "pairs"),
    (("bench",), "suite"),
    (("report",), "RUN"),
    (("evaluate",), "RUN"),
    (("list", "--all"), "--all"),
    (("list", "--", "x"), "x"),
    (("list", "\udcff"), "\\udcff"),
    # the two dashes that part options from other words, where one word is due
    (("train", "digits", "--method=--"), "method"),
    (("detect", "coco-mini", "--name=--"), "name"),
    ((*COMPARE, "--out=--"), "out"),
    ((*EVALUATE, "--batch-size=--"), "batch-size"),
    ((*REPORT, "--suite=--"), "suite"),
    ((*OPS, "--device=--"), "device"),
)
"""Options that each are right, but not together; and what the message must name."""


@family
def conflicts(rng: Random, _: Ground) -> Iterator[Wrong]:
    return (Wrong(line, (about,)) for line, about in CONFLICTS)
