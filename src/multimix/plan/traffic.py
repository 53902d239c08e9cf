"""What devices in data-parallel training send each other in a step, and how long that takes."""

import math
from dataclasses import dataclass

from multimix.plan.forms import Form
from multimix.plan.network import NetworkCount

_FLOAT, _INDEX = 4, 8
_BUCKET = 25 * 2**20
"""Gradients are reduced in buckets of so many bytes, torch's default."""


@dataclass(frozen=True)
class Link:
    """How devices are joined."""

    rate: float
    """Bytes a second that a device sends, and receives, within a node."""
    latency: float
    """Seconds of one message."""
    node: int = 1
    """Devices of a node."""
    network: float | None = None
    """Bytes a second of a device between nodes; as within one if None."""

    def seconds(self, traffic: "Traffic", devices: int) -> float:
        """Return how long it takes to send; a ring is as fast as its slowest link."""
        rate = self.rate if devices <= self.node or self.network is None else self.network
        return traffic.bytes / rate + traffic.messages * self.latency


@dataclass(frozen=True)
class Traffic:
    """What one device sends in a step for one purpose."""

    purpose: str
    bytes: float
    messages: int
    """One after the other."""


def reduced(purpose: str, size: float, devices: int, times: int = 1) -> Traffic:
    """Return the traffic of ``times`` all-reduces of ``size`` bytes each.

    A ring sends 2 (D - 1) / D of them a device; a tree, which libraries take for small ones, waits for 2 log2 D
    messages. Here the bytes are those of the ring and the messages those of the tree.
    """
    return Traffic(purpose, 2 * (devices - 1) / devices * size * times, 2 * math.ceil(math.log2(devices)) * times)


def gathered(purpose: str, own: float, devices: int, times: int = 1) -> Traffic:
    """Return the traffic of ``times`` all-gathers to which each device adds ``own`` bytes, D - 1 times that sent."""
    return Traffic(purpose, (devices - 1) * own * times, math.ceil(math.log2(devices)) * times)


def scattered(purpose: str, size: float, devices: int, times: int = 1) -> Traffic:
    """Return the traffic of ``times`` reduce-scatters of ``size`` bytes each: half of an all-reduce."""
    whole = reduced(purpose, size, devices, times)
    return Traffic(purpose, whole.bytes / 2, whole.messages // 2)


def step_traffic(
    count: NetworkCount,
    form: Form,
    *,
    batch: int,
    classes: int,
    devices: int,
    sync_batchnorm: bool,
    fsdp: bool = False,
) -> list[Traffic]:
    """Return what one of ``devices`` devices with ``batch`` examples each sends in a step; nothing if it is alone.

    Logits (b, k), or (b, r, k), of all devices are gathered, with targets, and in the dense form attention (b, r); on
    the way back the gradient on all of them, D b k numbers, is added up.
    """
    if devices == 1:
        return []
    sent = _shared_weights(count, form, devices) if fsdp else [_gradients(count, devices)]
    if form.tuples is not None:
        positions = count.positions if form.dense else 1
        logits = _FLOAT * batch * positions * classes
        sent += [
            gathered("logits", logits, devices, 1 + form.teacher),
            gathered("targets", _INDEX * batch, devices),
            reduced("gradient on logits", devices * logits, devices),
        ]
        if form.dense:
            sent.append(gathered("attention", _FLOAT * batch * positions, devices))
    return sent + _statistics(count, devices, sync_batchnorm=sync_batchnorm)


def _gradients(count: NetworkCount, devices: int) -> Traffic:
    size = _FLOAT * count.parameters
    buckets = math.ceil(size / _BUCKET)
    return reduced("gradients", size / buckets, devices, buckets)


def _shared_weights(count: NetworkCount, form: Form, devices: int) -> list[Traffic]:
    """Blocks are put together for the forward pass and again for the backward pass, the rest once; a teacher, once."""
    size, groups = _FLOAT * count.parameters, len(count.blocks) + 1
    gathers = size + _FLOAT * sum(count.blocks) + (size if form.teacher else 0)
    times = groups + len(count.blocks) * (1 + form.teacher)
    return [
        scattered("gradients", size / groups, devices, groups),
        gathered("weights", gathers / devices / times, devices, times),
    ]


def _statistics(count: NetworkCount, devices: int, *, sync_batchnorm: bool) -> list[Traffic]:
    """Mean, variance and number of every channel in every layer, forward and back; or running ones once a step."""
    if not sync_batchnorm:
        return [reduced("running statistics", _FLOAT * count.buffers, devices)] if count.buffers else []
    purpose = "batch statistics"
    each = [_FLOAT * (2 * channels + 1) for channels in count.norms]
    forward = [gathered(purpose, size, devices) for size in each]
    backward = [reduced(purpose, devices * size, devices) for size in each]
    every = forward + backward
    return [Traffic(purpose, sum(t.bytes for t in every), sum(t.messages for t in every))] if every else []
