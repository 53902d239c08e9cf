"""Interpolation as pure functions on tensors: weights, attention, mixed losses, pairs and boxes.

Everything random is drawn from a ``torch.Generator``; everything here imports torch alone.
"""

from multimix.ops._adain import channel_statistics, exchange_styles, mix_styles, paste_styles
from multimix.ops._attention import attention, reweight
from multimix.ops._balance import balance_gain, balance_gradient, shares_of
from multimix.ops._blocks import solve_ordered_labels, transport_blocks
from multimix.ops._checks import (
    accurate,
    as_probabilities,
    batch_size,
    check_batch,
    check_examples,
    check_generator,
    no_autocast,
    rows_of,
    widest,
)
from multimix.ops._comix import comix_masks
from multimix.ops._gather import Gather, gathered, processes
from multimix.ops._loss import dense_mixed_cross_entropy, mixed_cross_entropy, mixed_losses
from multimix.ops._objectives import (
    CROSS_ENTROPY,
    BinaryCrossEntropy,
    CrossEntropy,
    Impl,
    LossKeywords,
    LossOptions,
    Objective,
    SquaredError,
    check_fit,
    objective_of,
    soft_cross_entropy,
)
from multimix.ops._regions import Box, Boxes, draw_box, draw_boxes, draw_mask, paste_box, paste_boxes, paste_where
from multimix.ops._simplex import (
    LazyWeights,
    Mode,
    alpha_for,
    beta,
    check_concentration,
    dirichlet,
    draw_between,
    draw_couples,
    draw_partners,
    interpolate,
    mix_pairs,
    scatter_tuples,
)
from multimix.ops._static_saliency import saliency_peaks, static_saliency
from multimix.ops._transport import barycentre, sinkhorn
from multimix.ops._zeta import zeta_weights

__all__ = [
    "CROSS_ENTROPY",
    "BinaryCrossEntropy",
    "Box",
    "Boxes",
    "CrossEntropy",
    "Gather",
    "Impl",
    "LazyWeights",
    "LossKeywords",
    "LossOptions",
    "Mode",
    "Objective",
    "SquaredError",
    "accurate",
    "alpha_for",
    "as_probabilities",
    "attention",
    "balance_gain",
    "balance_gradient",
    "barycentre",
    "batch_size",
    "beta",
    "channel_statistics",
    "check_batch",
    "check_concentration",
    "check_examples",
    "check_fit",
    "check_generator",
    "comix_masks",
    "dense_mixed_cross_entropy",
    "dirichlet",
    "draw_between",
    "draw_box",
    "draw_boxes",
    "draw_couples",
    "draw_mask",
    "draw_partners",
    "exchange_styles",
    "gathered",
    "interpolate",
    "mix_pairs",
    "mix_styles",
    "mixed_cross_entropy",
    "mixed_losses",
    "no_autocast",
    "objective_of",
    "paste_box",
    "paste_boxes",
    "paste_styles",
    "paste_where",
    "processes",
    "reweight",
    "rows_of",
    "saliency_peaks",
    "scatter_tuples",
    "shares_of",
    "sinkhorn",
    "soft_cross_entropy",
    "solve_ordered_labels",
    "static_saliency",
    "transport_blocks",
    "widest",
    "zeta_weights",
]
