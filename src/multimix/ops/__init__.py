"""Interpolation as pure functions on tensors: weights, attention, mixed losses, pairs and boxes.

Everything random is drawn from a ``torch.Generator``; everything here imports torch alone.
"""

from multimix.ops._attention import *
from multimix.ops._checks import *
from multimix.ops._gather import *
from multimix.ops._grids import *
from multimix.ops._images import *
from multimix.ops._loss import *
from multimix.ops._objectives import *
from multimix.ops._options import *
from multimix.ops._pairs import *
from multimix.ops._samples import *
from multimix.ops._simplex import *
from multimix.ops._transport import *

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
    "Rows",
    "SampleWeighted",
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
    "check_objective",
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
