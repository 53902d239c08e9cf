"""Awkward arguments of ops: sizes of one, odd shapes, extreme values, several dtypes and layouts of memory."""

import inspect
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

LONG = os.environ.get("MULTIMIX_FUZZ") == "long"
"""Whether thousands of examples are tried, different ones each time, instead of the same few."""
COVERED: set[str] = set()  # names of the ops that some law is about

sizes = st.integers(1, 7)
sides = st.integers(1, 6)
seeds = st.integers(0, 2**31)
shares = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 1e-7, 1 - 1e-7]), st.floats(0, 1))
dtypes = st.sampled_from([torch.float64, torch.float32, torch.bfloat16])
full_dtypes = st.sampled_from([torch.float64, torch.float32])
layouts = st.sampled_from(["contiguous", "transposed", "strided", "offset"])
kinds = st.sampled_from(["normal", "normal", "zero", "constant", "huge", "tiny", "wide"])
ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("b", "n", "m", "d", "k"), sizes),
    **dict.fromkeys(("h", "w"), sides),
    **dict.fromkeys(("c", "r"), st.integers(1, 4)),
    **dict.fromkeys(("own", "taught", "balanced"), st.booleans()),
    "rest": st.lists(sizes, max_size=3),
    "seed": seeds,
    "share": shares,
    "dtype": dtypes,
    "layout": layouts,
    "kind": kinds,
    "impl": st.sampled_from(["auto", "plain", "commuted", "fused"]),
    "data": st.data(),
}
"""What the arguments of laws are drawn from, by their names, where a law says nothing else."""


def law(*names: str, examples: int = 20, **strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that tries a law about ops, of which these are the names, with many arguments.

    Strategies are of the arguments that ``ARGUMENTS`` does not have, or has otherwise.
    """
    COVERED.update(names)
    chosen = settings(
        max_examples=100 * examples if LONG else examples,
        derandomize=not LONG,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    patient = pytest.mark.timeout(3600 if LONG else 300)

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        asked = {name: ARGUMENTS[name] for name in inspect.signature(test).parameters if name in ARGUMENTS}
        return patient(chosen(given(**{**asked, **strategies})(test)))

    return decorate


def generator(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def chance(probability: float, *shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=generator(seed)) < probability


def laid(values: Tensor, layout: str) -> Tensor:
    """Return the same values in memory that lies otherwise."""
    if values.ndim < 2 and layout == "transposed":
        layout = "strided"
    if layout == "transposed":
        return values.mT.contiguous().mT
    if layout == "strided":
        filler = torch.nan if values.is_floating_point() else 0
        room = values.new_full((*values.shape[:-1], 2 * values.shape[-1]), filler)
        room[..., ::2] = values
        return room[..., ::2]
    if layout == "offset":
        return torch.cat([values.new_zeros(1), values.flatten()])[1:].view(values.shape)
    return values.contiguous()


def scaled(values: Tensor, kind: str) -> Tensor:
    """Return standard normal values brought to a kind of extreme that every op has to bear."""
    factors = {"normal": 1.0, "zero": 0.0, "huge": 1e4, "tiny": 1e-12}
    if kind in factors:
        return values * factors[kind]
    if kind == "constant":
        return values.flatten()[:1].expand(values.numel()).reshape(values.shape)
    return values * torch.logspace(-6, 3, values.numel(), dtype=values.dtype).view(values.shape)


@st.composite
def tensors(draw: st.DrawFn, *shape: int, dtype: Any = full_dtypes, kind: Any = kinds) -> Tensor:
    values = torch.randn(*shape, generator=generator(draw(seeds)), dtype=torch.float64)
    chosen = draw(dtype) if isinstance(dtype, st.SearchStrategy) else dtype
    extreme = draw(kind) if isinstance(kind, st.SearchStrategy) else kind
    return laid(scaled(values, extreme).to(chosen), draw(layouts))


def normals(*shape: int, kind: Any = "normal") -> st.SearchStrategy[Tensor]:
    return tensors(*shape, dtype=torch.float64, kind=kind)


@st.composite
def simplices(draw: st.DrawFn, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Draw rows that sum to 1: even, one-hot, sparse or anything between."""
    alpha = draw(st.sampled_from([0.01, 0.3, 1.0, 100.0]))
    form = draw(st.sampled_from(["drawn", "even", "one-hot"]))
    raw = torch.rand(*shape, generator=generator(draw(seeds)), dtype=torch.float64)
    if form == "even":
        rows = torch.ones(shape, dtype=torch.float64)
    elif form == "one-hot":
        rows = torch.nn.functional.one_hot(raw.argmax(-1), shape[-1]).double()
    else:
        rows = (raw.clamp_min(1e-9).log() / alpha).softmax(-1)
    return laid((rows / rows.sum(-1, keepdim=True)).to(dtype), draw(layouts))


@st.composite
def labels(draw: st.DrawFn, b: int, k: int, *, soft: bool | None = None) -> Tensor:
    """Draw targets: class indices of some integer type, or class probabilities."""
    if draw(st.booleans()) if soft is None else soft:
        return draw(simplices(b, k))
    indices = torch.randint(k, (b,), generator=generator(draw(seeds)))
    return laid(indices.to(draw(st.sampled_from([torch.int64, torch.int32]))), draw(layouts))


TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.bfloat16: 3e-2}
"""How far a result may be off, as a share of the size of its terms."""


def close(found: Tensor, expected: Any, dtype: torch.dtype | None = None, *, scale: float | None = None) -> None:
    """Assert that a result has the expected shape and values, off by rounding of a dtype at most."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    found = found.detach()
    assert found.shape == expected.shape, f"{tuple(found.shape)} instead of {tuple(expected.shape)}"
    size = largest(expected) if scale is None else scale
    assert bool(found.isfinite().all()), "not finite"
    worst = float((found.double() - expected).abs().max()) if found.numel() else 0.0
    assert worst <= TOLERANCE[dtype or found.dtype] * size + 1e-300, f"off by {worst:.3g} where values reach {size:.3g}"


def largest(*values: Tensor) -> float:
    """Return the largest magnitude in tensors, above 0."""
    return max(1e-30, *(float(each.detach().double().abs().max()) for each in values if each.numel()))


def on_simplex(rows: Tensor, dtype: torch.dtype | None = None) -> None:
    """Assert that rows are finite, not negative, and sum to 1."""
    assert bool(rows.isfinite().all()), "not finite"
    assert float(rows.min()) >= 0
    off = float((rows.double().sum(-1) - 1).abs().max())
    assert off <= 10 * TOLERANCE[dtype or rows.dtype], f"a row is off by {off:.3g}"


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    loss.backward()
    assert leaf.grad is not None
    assert bool(leaf.grad.isfinite().all())
    return leaf.grad
