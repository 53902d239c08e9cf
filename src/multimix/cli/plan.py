"""``multimix plan``."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.table import Table

from multimix.cli._arguments import configured
from multimix.cli._parser import Parser, output_file
from multimix.plan import PRESETS, Assumed, Link, Rates, Row, Setup, Subject, load_rates, simulate, with_tuples
from multimix.plan.record import BAR, calibrate, check
from multimix.plan.simulate import Scaling
from multimix.train import TrainConfig

_RECIPE = "cifar10"
_DEVICES = tuple(2**power for power in range(13))
_SHAPES: dict[str, tuple[int, tuple[int, int, int]]] = {
    "digits": (10, (1, 8, 8)),
    "cifar10": (10, (3, 32, 32)),
    "cifar100": (100, (3, 32, 32)),
    "svhn": (10, (3, 32, 32)),
    "fashion-mnist": (10, (1, 28, 28)),
    "tiny-imagenet": (200, (3, 64, 64)),
    "imagenet": (1000, (3, 224, 224)),
}
"""Classes and images of data sets that go by a name: planning needs no data."""


def main(arguments: list[str]) -> None:
    """Predict time, memory and traffic of a training step on 1 to thousands of devices."""
    recipe = None if not arguments or arguments[0].startswith("-") else arguments[0]  # further on it could be a value
    given, rest = _parser().parse_known_args(arguments if recipe is None else arguments[1:])
    if given.calibrate is not None or given.check is not None:
        _measure(given, rest if recipe is None else [recipe, *rest])
        return
    config = configured(recipe or _RECIPE, given.method, rest, prog="multimix plan")
    if given.tuples is not None:
        config = replace(config, method=with_tuples(config.method, given.tuples))
    rates = _rates(given)
    setup = _setup(config, given)
    scalings: tuple[Scaling, ...] = ("strong", "weak") if given.scaling == "both" else (given.scaling,)
    tables = {scaling: simulate(setup, rates, given.devices, scaling) for scaling in scalings}
    _say(config, setup, rates)
    for scaling, rows in tables.items():
        show(rows, scaling, setup, asked=len(given.devices))


def _parser() -> Parser:
    parser = Parser(
        prog="multimix plan",
        usage="multimix plan [RECIPE] [--method NAME] [--devices N ...] [--FIELD VALUE ...]\n"
        "       multimix plan [--calibrate FILE] [--check FILE]",
        description="Predict time, memory and traffic of a training step on one or many devices, of which none need be"
        f" there. Any field of the recipe ({_RECIPE} if none is named) can be given, as to multimix train.",
    )
    parser.add_argument("--method", metavar="NAME", help="how examples are mixed, instead of the recipe's")
    parser.add_argument("--tuples", type=int, metavar="N", help="interpolated tuples a step")
    parser.add_argument("--devices", type=int, nargs="+", default=_DEVICES, metavar="N", help="default: 1 2 4 ... 4096")
    parser.add_argument("--scaling", choices=("strong", "weak", "both"), default="both", help="of a fixed mini-batch of"
                        " all devices together, or of each (default: both)")  # fmt: skip
    parser.add_argument("--rates", type=Path, metavar="FILE", help="of --calibrate; default: those of the package")
    parser.add_argument("--device", choices=("cpu", *PRESETS), default="cpu", help="cpu, by measured rates, or an"
                        " accelerator, by rates that are assumed (default: cpu)")  # fmt: skip
    for name, what in _ASSUMPTIONS.items():
        parser.add_argument(f"--{name}", type=float, metavar="X", help=what)
    parser.add_argument("--fsdp", action="store_true", help="share weights, gradients and the optimiser's state out")
    parser.add_argument("--overlap", type=float, default=0.0, metavar="X", help="share of the backward pass"
                        " behind which gradients are sent (default: 0)")  # fmt: skip
    parser.add_argument("--classes", type=int, metavar="K", help="of data that has no name")
    parser.add_argument("--shape", type=int, nargs=3, metavar=("C", "H", "W"), help="of images, likewise")
    parser.add_argument(
        "--calibrate", type=output_file, metavar="FILE", help="measure this machine and write its rates"
    )
    parser.add_argument(
        "--check", type=output_file, metavar="FILE", help="measure other cases against them and append those"
    )
    parser.add_argument("--rounds", type=int, default=15, help="times that each case is measured (default: 15)")
    parser.add_argument("--clock", choices=("wall", "busy"), default="wall", help="busy: time that the process"
                        " computes, of one thread on a machine that is shared (default: wall)")  # fmt: skip
    return parser


_ASSUMPTIONS = {
    "peak": "assumed TFLOP/s",
    "utilisation": "assumed share of them that is reached",
    "memory": "assumed GB/s of memory",
    "call": "assumed µs to start a kernel",
    "link": "assumed GB/s that a device sends, within a node",
    "network": "assumed GB/s that a device sends, between nodes",
    "node": "assumed devices of a node",
    "latency": "assumed µs of a message",
}


def _rates(given: Namespace) -> Rates:
    wanted = {name: getattr(given, name) for name in _ASSUMPTIONS if getattr(given, name) is not None}
    for name, value in wanted.items():
        if not value > 0:
            raise ValueError(f"--{name} must be greater than 0, got {value:g}")
    if given.device == "cpu":
        fitted = load_rates(given.rates)
        for name in ("peak", "utilisation", "memory", "call"):
            if name in wanted:
                raise ValueError(f"--{name} goes with an accelerator ({', '.join(PRESETS)}); a cpu has measured rates")
        return replace(fitted, link=_link(fitted.link, wanted))
    if given.rates is not None:
        raise ValueError(f"--rates are of a cpu; {given.device} is assumed")
    preset = PRESETS[given.device]
    return Assumed(
        preset.name,
        1e12 * wanted["peak"] if "peak" in wanted else preset.peak,
        1e9 * wanted["memory"] if "memory" in wanted else preset.memory,
        _link(preset.link, wanted),
        wanted.get("utilisation", preset.utilisation),
        1e-6 * wanted["call"] if "call" in wanted else preset.call,
    )


def _link(link: Link, wanted: dict[str, float]) -> Link:
    return Link(
        1e9 * wanted["link"] if "link" in wanted else link.rate,
        1e-6 * wanted["latency"] if "latency" in wanted else link.latency,
        int(wanted.get("node", link.node)),
        1e9 * wanted["network"] if "network" in wanted else link.network,
    )


def _setup(config: TrainConfig, given: Namespace) -> Setup:
    for count in given.devices:
        if count < 1:
            raise ValueError(f"--devices must be at least 1, got {count}")
    classes, shape = _data(config, given)
    subject = Subject(
        config.model,
        classes,
        shape,
        config.batch_size,
        width=config.width,
        strides=config.strides,
        final_norm=config.final_norm,
        optimizer=config.optimizer,
    )
    return Setup(
        subject,
        config.method,
        device="cpu" if given.device == "cpu" else "cuda",
        half=config.precision != "32-true",
        sync_batchnorm=config.sync_batchnorm,
        fsdp=given.fsdp,
        overlap=given.overlap,
    )


def _data(config: TrainConfig, given: Namespace) -> tuple[int, tuple[int, int, int]]:
    classes, shape = _SHAPES.get(config.data, (given.classes, given.shape))
    classes, shape = given.classes or classes, given.shape or shape
    if classes is None or shape is None:
        raise ValueError(f"--classes and --shape C H W must be given for data {config.data!r}, which is not looked at")
    if classes < 1 or min(shape) < 1:
        raise ValueError(f"--classes and --shape must be at least 1, got {classes} and {' '.join(map(str, shape))}")
    c, h, w = shape
    if config.image_size is not None:
        h = w = config.image_size
    return classes, (c, h, w)


def _say(config: TrainConfig, setup: Setup, rates: Rates) -> None:
    subject = setup.subject
    c, h, w = subject.shape
    wide = "" if subject.width is None else f" of width {subject.width}"
    print(f"{config.recipe}: {config.title}, {config.model}{wide}, {subject.classes} classes, images {c} × {h} × {w}")
    print(f"rates: {rates.told}")
    if config.channels_last:
        print("channels_last: rates are of the usual format of memory; with channels last a step may be faster")


def show(rows: list[Row], scaling: str, setup: Setup, *, asked: int) -> None:
    """Print a table of devices."""
    batch = setup.subject.batch
    title = f"{scaling} scaling: mini-batch of {batch}, " + ("shared out" if scaling == "strong" else "on each device")
    table = Table(title=title, title_justify="left")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    for row in rows:
        cost = row.cost
        shares = (f"{100 * share:.1f}" for share in (row.encoder, row.interpolation, row.communication))
        table.add_row(
            f"{row.devices}",
            f"{row.batch}",
            f"{1e3 * cost.time:.4g}",
            f"{row.images_a_second:.4g}",
            *shares,
            f"{cost.peak_bytes / 2**20:.4g}",
            f"{cost.sent_bytes / 2**20:.4g}",
            f"{row.efficiency:.3f}",
        )
    _console().print(table)
    if missing := asked - len(rows):
        print(f"left out: {missing} numbers of devices between which {batch} images cannot be shared out evenly")


_HEADINGS = (
    "devices",
    "images each",
    "ms a step",
    "images/s",
    "network %",
    "tuples %",
    "communication %",
    "MiB a device",
    "MiB sent a step",
    "efficiency",
)


def _console() -> Console:
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width of its own
        console.width = 160
    return console


def _measure(given: Namespace, rest: list[str]) -> None:
    if rest:
        raise ValueError(f"{rest[0]} does not go with --calibrate and --check")
    if given.rounds < 1:
        raise ValueError(f"--rounds must be at least 1, got {given.rounds}")
    how = {"rounds": given.rounds, "clock": given.clock}
    if given.calibrate is None:
        measured = check(given.check, **how)
    elif given.check in (None, given.calibrate):
        measured = calibrate(given.calibrate, checking=given.check is not None, **how)[1:]
    else:
        raise ValueError(
            f"--check must be the file of --calibrate, {given.calibrate}, or stand alone, got {given.check}"
        )
    _compare(measured)


def _compare(records: list[dict[str, Any]]) -> None:
    """Print what is predicted beside what was measured."""
    table = Table(title="predicted and measured", title_justify="left")
    for heading in ("case", "", "ms p10", "ms p50", "predicted", "error %", "MiB", "predicted", "error %"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for record in records:
        times = (f"{1e3 * record[name]:.2f}" for name in ("seconds_p10", "seconds_p50", "predicted_seconds"))
        memory = (
            (f"{record['peak_bytes'] / 2**20:.1f}", f"{record['predicted_peak_bytes'] / 2**20:.1f}",
             f"{100 * record['memory_error']:+.1f}")
            if "peak_bytes" in record else ("", "", "")
        )  # fmt: skip
        table.add_row(record["case"], record["record"], *times, f"{100 * record['error']:+.1f}", *memory)
    _console().print(table)
    held = [record for record in records if record["record"] == "check"]
    if held:
        for name, key in (("time", "error"), ("memory", "memory_error")):
            errors = [abs(cast("float", record[key])) for record in held]
            within = sum(error <= BAR for error in errors)
            print(
                f"{name}: {within} of {len(held)} held-out cases within {BAR:.0%}, the worst off by {max(errors):.1%}"
            )
