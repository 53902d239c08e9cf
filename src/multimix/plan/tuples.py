r"""What interpolation costs, by formula: n tuples over all devices' examples, on every device.

With :math:`B = D b` the examples of D devices, one draws n B weights, and multiplies (n, B) by (B, k) two or three
times; in the dense form r times as much. The clean logits are there already.
"""

import math
from dataclasses import dataclass

from multimix.methods import DenseMultiMix, MultiMix
from multimix.methods._tuples import DEFAULT_EFFECTIVE
from multimix.ops import _fused, _loss, _simplex
from multimix.plan.work import Work

_BYTES = 4
"""Of a number: losses are in float32 whatever the precision of the network."""
_DRAW_CALLS = 30
"""Kernels of a draw: with few tuples they are what it costs."""


@dataclass(frozen=True)
class TupleProblem:
    """How large the interpolation of one step is."""

    method: MultiMix | DenseMultiMix
    examples: int
    """Of all devices together, B."""
    classes: int
    positions: int = 1
    """Of the dense form, r; 1 of the pooled one."""
    width: int = 1
    """Of an embedding, d, which attention looks at."""
    own: int = 1
    """Examples of this device, b."""
    taught: bool = False
    mixed_labels: bool = False
    """Targets are probabilities."""
    device: str = "cpu"

    @property
    def dense(self) -> bool:
        """Return whether every position is interpolated."""
        return isinstance(self.method, DenseMultiMix)

    @property
    def sets(self) -> int:
        """Return how many sets of weights are drawn."""
        return self.positions if isinstance(self.method, DenseMultiMix) and not self.method.shared else 1

    @property
    def is_small(self) -> bool:
        """Return whether the op leaves it to autograd, all tuples at once."""
        side = max(self.examples, self.classes)
        return self.device == "cpu" and self.positions * self.method.tuples * side < _loss._SMALL

    @property
    def chunk(self) -> tuple[int, int]:
        """Return how many tuples of how many positions are computed at a time."""
        if self.is_small:
            return self.method.tuples, self.positions
        numbers = _fused._NUMBERS.get(self.device, _fused._NUMBERS["cuda"])
        side = max(self.examples, self.classes)
        count = min(self.method.tuples, max(1, numbers // side))
        return count, min(self.positions, max(1, numbers // (side * count)))

    @property
    def chunks(self) -> int:
        """Return how many chunks there are."""
        count, together = self.chunk
        return -(-self.method.tuples // count) * -(-self.positions // together)

    @property
    def products(self) -> int:
        """Return how many products of (n, B) and (B, k) a position takes: logits, gradient, perhaps labels, teacher."""
        return 2 + self.multiplies_labels + self.taught

    @property
    def multiplies_labels(self) -> bool:
        """Return whether labels are a product too, and not added up by class."""
        few = self.device != "cpu" or self.classes <= _fused._FEW_CLASSES
        return self.mixed_labels or self.is_small or few

    @property
    def flops(self) -> int:
        """Return the floating-point operations of all products, two a multiply-add."""
        return 2 * self.products * self.positions * self.method.tuples * self.examples * self.classes

    @property
    def drawn(self) -> int:
        """Return how many weights are drawn."""
        length = min(self.method.tuple_length or self.examples, self.examples)
        return self.sets * self.method.tuples * length

    @property
    def peak_bytes(self) -> int:
        """Return the memory of the logits' copy and gradient and of one chunk, which does not grow with n beyond it."""
        count, together = self.chunk
        weights, mixed = together * count * self.examples, together * count * self.classes
        logits = self.positions * self.examples * self.classes
        kept = (2 if self.dense else 1) * weights + (3 + self.taught) * mixed
        drawing = 4 * weights  # normal numbers, their cubes, uniform ones and logarithms
        return _BYTES * (2 * logits + self.examples * self.classes * self.multiplies_labels + max(kept, drawing))


def tuple_works(problem: TupleProblem) -> list[Work]:
    """Return the operations of drawing and interpolating, forward and backward."""
    return [*_draw(problem), *_attend(problem), *_interpolate(problem)]


def _draw(p: TupleProblem) -> list[Work]:
    n, sets = p.method.tuples, p.sets
    size = _BYTES * p.drawn
    draws = -(-n // p.chunk[0]) * (-(-sets // p.chunk[1]))
    low, logarithmic = _concentrations(p)
    works = [Work("draw", "draw", 0, size, size / draws, _DRAW_CALLS * draws)]
    if low:
        works.append(Work("draw", "draw_low", 0, round(low * size), size / draws, 0))
    if logarithmic:
        works.append(Work("draw", "draw_log", 0, size, size / draws, 0))
    if p.method.tuple_length is not None and p.method.tuple_length < p.examples:
        works.append(Work("draw", "choose", 0, _BYTES * sets * n * p.examples, size / draws, 4 * draws))
    return works


def _concentrations(p: TupleProblem) -> tuple[float, bool]:
    """Return the share of concentrations below 1, and whether some are so low that logarithms are taken."""
    m = min(p.method.tuple_length or p.examples, p.examples)
    if p.method.alpha is not None:
        ends = p.method.alpha if isinstance(p.method.alpha, tuple) else (p.method.alpha,) * 2
        low, high = ends
    else:
        given = DEFAULT_EFFECTIVE if p.method.effective is None else p.method.effective
        ends = given if isinstance(given, tuple) else (given,) * 2
        low, high = ((e - 1) / (m - e) if e < m else 1.0 for e in ends)
    if high <= low:
        share = float(low < 1)
    elif p.method.spread == "uniform":
        share = (min(high, 1.0) - min(low, 1.0)) / (high - low)
    else:
        share = math.log(min(high, 1.0) / min(low, 1.0)) / math.log(high / low)
    return share, low < _simplex._UNDERFLOWS


def _attend(p: TupleProblem) -> list[Work]:
    """Attention of this device's images, and each chunk's weights made theirs."""
    if not isinstance(p.method, DenseMultiMix):
        return []
    features = p.own * p.positions * p.width
    weights = p.positions * p.method.tuples * p.examples
    attention = (
        []
        if p.method.query == "uniform"
        else [
            Work("interpolation", "move", 0, _BYTES * features, _BYTES * features),
            Work("interpolation", "matmul", 2 * features, _BYTES * features, 1.0),
        ]
    )
    return [*attention, *_passes(p, _BYTES * weights, reads=(2, 1, 2, 3))]


def _interpolate(p: TupleProblem) -> list[Work]:
    n, k = p.method.tuples, p.classes
    weights, mixed = _BYTES * p.positions * n * p.examples, _BYTES * p.positions * n * k
    logits = _BYTES * p.positions * p.examples * k
    moved = p.products * (weights + mixed + logits * -(-n // p.chunk[0]))
    side = min(p.chunk[0], p.examples, k)
    works = [Work("interpolation", "matmul", p.flops, moved, float(side), p.products * p.chunks)]
    exponentials = 2 + p.taught
    works.append(
        Work("interpolation", "exp", 0, 2 * exponentials * mixed, 2 * mixed / p.chunks, exponentials * p.chunks)
    )
    if p.multiplies_labels:
        works += _passes(p, mixed, reads=(3, 1, 3))
    else:
        works.append(Work("interpolation", "scatter", 0, 2 * weights, weights / p.chunks, 4 * p.chunks))
    if p.taught:
        works += _passes(p, mixed, reads=(3, 1, 3))
    if p.method.gain_power:
        works += _passes(p, weights, reads=(2, 2, 1))
    # a copy of the clean logits, and their gradient, to which each chunk adds
    works.append(Work("interpolation", "move", 0, 8 * logits, 2 * logits, 8))
    if n > p.chunk[0]:
        works += [Work("interpolation", "move", 0, 3 * logits * (-(-n // p.chunk[0]) - 1), logits, p.chunks)]
    return works


def _passes(p: TupleProblem, size: int, reads: tuple[int, ...]) -> list[Work]:
    """Return passes over numbers of ``size`` bytes in all, of which each moves so many times that."""
    return [Work("interpolation", "move", 0, times * size, times * size / p.chunks, p.chunks) for times in reads]
