"""How long counted work takes: by constants fitted to measurements, or by a device's assumed peak rates."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from multimix.plan.traffic import Link
from multimix.plan.work import Work

KNOTS: dict[str, tuple[int, ...]] = {
    "conv": (8, 16, 32, 64, 256),
    "conv_backward": (8, 16, 32, 64, 256),
    "matmul": (8, 64, 512),
    "norm": (2**18, 2**22, 2**26),
    "norm_backward": (2**18, 2**22, 2**26),
    "move": (2**18, 2**22, 2**26),
    "exp": (2**18, 2**24),
}
"""Sizes at which a kind's cost of one operation, or byte, is fitted; in between it is linear in the logarithm."""
COUNTED_IN_FLOPS = ("conv", "conv_backward", "matmul")


class Rates(Protocol):
    """What a device needs for counted work."""

    @property
    def link(self) -> Link:
        """How devices of this kind are joined."""

    @property
    def told(self) -> str:
        """Where the rates come from, in a line."""

    def seconds(self, work: Work) -> float:
        """Return the time that work takes."""


def features(work: Work) -> dict[str, float]:
    """Return what the time of some work is linear in, by the name of the constant that it is multiplied with."""
    amount = work.flops * work.filled if work.kind in COUNTED_IN_FLOPS else work.bytes
    found = {
        f"{work.kind}@{knot}" if knot else work.kind: share * amount
        for knot, share in _hats(work.size, KNOTS.get(work.kind, (0,)))
        if share * amount
    }
    if work.kind in ("conv", "conv_backward"):
        found[f"{work.kind} bytes"] = work.bytes
    if work.calls:
        found["call"] = work.calls
    return found


def _hats(size: float, knots: tuple[int, ...]) -> list[tuple[int, float]]:
    """Return the knots that a size lies between, with the weight of each, which sum to 1."""
    if len(knots) == 1 or size <= knots[0]:
        return [(knots[0], 1.0)]
    for low, high in pairwise(knots):
        if size < high:
            share = math.log(size / low) / math.log(high / low)
            return [(low, 1 - share), (high, share)]
    return [(knots[-1], 1.0)]


@dataclass(frozen=True)
class Fitted:
    """Rates that were measured."""

    constants: dict[str, float]
    """Seconds of one operation, byte or call, by :func:`features`."""
    about: dict[str, Any] = field(default_factory=dict)
    """Machine, threads, versions, commit and date of the measurement."""
    link: Link = field(default_factory=lambda: Link(1.25e9, 5e-5))
    """Assumed: nothing here measures a network."""

    def seconds(self, work: Work) -> float:
        """Return the time that work takes.

        Raises:
            ValueError: If there is no constant for it.
        """
        missing = [name for name in features(work) if name not in self.constants]
        if missing:
            raise ValueError(f"rates know no {missing[0]!r}; calibrate anew with multimix plan --calibrate FILE")
        return sum(self.constants[name] * amount for name, amount in features(work).items())

    @property
    def told(self) -> str:
        """Where the rates come from, in a line."""
        where = self.about
        return (
            f"measured on {where.get('device_name')} with {where.get('threads')} thread(s), torch {where.get('torch')},"
            f" commit {where.get('commit')}, {where.get('date')}; links between devices assumed, not measured"
        )

    def record(self) -> dict[str, Any]:
        """Return what :func:`load_rates` reads."""
        return {"record": "rates", "constants": self.constants, "link": asdict(self.link), **self.about}


@dataclass(frozen=True)
class Assumed:
    """Rates by data sheet: each operation takes as long as its arithmetic or its bytes, whichever is slower."""

    name: str
    peak: float
    """Floating-point operations a second of products and convolutions, in the precision of the network."""
    memory: float
    """Bytes a second."""
    link: Link
    utilisation: float = 0.4
    """Share of the peak that is reached."""
    call: float = 5e-6
    """Seconds to start a kernel."""

    def seconds(self, work: Work) -> float:
        """Return the time that work takes."""
        return max(work.flops / (self.peak * self.utilisation), work.bytes / self.memory) + work.calls * self.call

    @property
    def told(self) -> str:
        """Where the rates come from, in a line."""
        between = self.link.network or self.link.rate
        return (
            f"{self.name}: assumed, not measured: {self.peak / 1e12:g} TFLOP/s of which {self.utilisation:.0%},"
            f" memory {self.memory / 1e9:g} GB/s, links {self.link.rate / 1e9:g} GB/s in a node of {self.link.node} and"
            f" {between / 1e9:g} GB/s beyond, {1e6 * self.link.latency:g} µs a message, {1e6 * self.call:g} µs a kernel"
        )


_NODE = 8
PRESETS: dict[str, Assumed] = {
    "a100": Assumed("a100", 312e12, 2.039e12, Link(300e9, 5e-6, _NODE, 25e9)),
    "h100": Assumed("h100", 989e12, 3.35e12, Link(450e9, 5e-6, _NODE, 50e9)),
}
"""Data sheets: bfloat16 without sparsity, 80 GB SXM boards, NVLink one way; 200 and 400 Gbit/s a device between
nodes."""


def load_rates(path: Path | None = None) -> Fitted:
    """Return the rates of a record of ``multimix plan --calibrate``, by default those that come with the package.

    Raises:
        ValueError: If the file holds none.
    """
    text = (files("multimix.plan") / "rates-cpu.json" if path is None else path).read_text(encoding="utf-8")
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"--rates must be a file of JSON lines, got {path}: {error}") from None
        if isinstance(record, dict) and record.get("record") == "rates":
            return _read(record, path)
    raise ValueError(f"--rates must hold the rates that multimix plan --calibrate writes, got none in {path}")


def _read(record: dict[str, Any], path: Path | None) -> Fitted:
    try:
        constants = {str(name): float(value) for name, value in record["constants"].items()}
        link = Link(**record["link"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"--rates: the rates in {path} are damaged ({type(error).__name__}: {error})") from None
    about = {name: value for name, value in record.items() if name not in ("record", "constants", "link")}
    return Fitted(constants, about, link)


def total(works: Iterable[Work], rates: Rates) -> float:
    """Return the time of all work, one operation after the other."""
    return sum(rates.seconds(work) for work in works)
