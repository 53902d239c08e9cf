"""Interpolation as pure functions on tensors: weights, attention, mixed losses, pairs and boxes.

Everything random is drawn from a ``torch.Generator``; everything here imports torch alone.
"""

from multimix.ops._attention import attention, reweight
from multimix.ops._balance import balance_gain, balance_gradient
from multimix.ops._checks import as_probabilities, check_batch
from multimix.ops._forms import soft_cross_entropy
from multimix.ops._interpolate import interpolate, interpolate_positions
from multimix.ops._lazy import LazyWeights
from multimix.ops._loss import IMPLS, Impl, MixedLosses, dense_mixed_cross_entropy, mixed_cross_entropy, mixed_losses
from multimix.ops._pairs import draw_partners, mix_pairs
from multimix.ops._regions import Box, draw_box, paste_box
from multimix.ops._simplex import alpha_for, beta, check_concentration, dirichlet, draw_between, scatter_tuples

__all__ = [
    "IMPLS",
    "Box",
    "Impl",
    "LazyWeights",
    "MixedLosses",
    "alpha_for",
    "as_probabilities",
    "attention",
    "balance_gain",
    "balance_gradient",
    "beta",
    "check_batch",
    "check_concentration",
    "dense_mixed_cross_entropy",
    "dirichlet",
    "draw_between",
    "draw_box",
    "draw_partners",
    "interpolate",
    "interpolate_positions",
    "mix_pairs",
    "mixed_cross_entropy",
    "mixed_losses",
    "paste_box",
    "reweight",
    "scatter_tuples",
    "soft_cross_entropy",
]
