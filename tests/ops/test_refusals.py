"""What ops refuse, by the name of the argument, with what was expected and what came."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from multimix import ops
from multimix.ops import BinaryCrossEntropy, CrossEntropy, SampleWeighted, SquaredError
from ops.samples import sample

pytestmark = pytest.mark.bad_input

DRAWS = {
    "dirichlet": (ops.dirichlet, {"n": 3, "m": 4, "alpha": 1.0}),
    "beta": (ops.beta, {"n": 3, "alpha": 0.5}),
    "beta-uniform": (ops.beta, {"n": 3, "alpha": 1.0}),
    "draw_between": (ops.draw_between, {"bounds": (0.5, 2.0), "n": 3}),
    "scatter_tuples": (ops.scatter_tuples, {"weights": torch.full((3, 2), 0.5), "b": 4}),
    "draw_partners": (ops.draw_partners, {"b": 4}),
    "draw_couples": (ops.draw_couples, {"b": 4}),
    "zeta_weights": (ops.zeta_weights, {"b": 4, "gamma": 2.8}),
    "draw_mask": (ops.draw_mask, {"height": 4, "width": 4, "lam": 0.5, "decay": 3.0}),
    "draw_box": (ops.draw_box, {"height": 4, "width": 4, "lam": 0.5}),
    "draw_boxes": (ops.draw_boxes, {"height": 4, "width": 4, "lam": torch.full((3,), 0.5)}),
    "lazy": (lambda n, sets, generator=None: ops.LazyWeights(n, torch.ones, sets), {"n": 3, "sets": 2}),
}
SIZES, NUMBERS = {"n", "m", "b", "sets", "height", "width"}, {"alpha", "gamma", "lam", "decay", "bounds"}
MAY_BE_EMPTY = {"beta", "beta-uniform", "draw_between", "draw_partners", "draw_couples"}
CASES = [(name, argument) for name, (_, given) in DRAWS.items() for argument in given]


@pytest.mark.parametrize(("draw", "given"), [DRAWS[name] for name in DRAWS if name != "lazy"])
def test_what_is_no_generator_is_refused(draw, given):
    draw(**given, generator=torch.Generator().manual_seed(0))
    for wrong in (7, torch.Generator):
        with pytest.raises(TypeError, match=r"^generator must be a torch.Generator or None, got"):
            draw(**given, generator=wrong)


@pytest.mark.parametrize(("name", "argument"), [case for case in CASES if case[1] in SIZES])
def test_sizes_are_whole_numbers_and_large_enough(name, argument):
    draw, given = DRAWS[name]
    with pytest.raises(TypeError, match=f"^{argument} must be an integer.*, got 2.5"):
        draw(**{**given, argument: 2.5})
    least = 0 if name in MAY_BE_EMPTY else 1
    with pytest.raises(ValueError, match=f"^{argument} must be at least {least}, got {least - 1}"):
        draw(**{**given, argument: least - 1})
    draw(**{**given, argument: np.int64(max(least, 2))})
    if least == 0:
        draw(**{**given, argument: 0})


@pytest.mark.parametrize("value", ["0.5", None, True], ids=str)
@pytest.mark.parametrize(("name", "argument"), [case for case in CASES if case[1] in NUMBERS])
def test_numbers_are_numbers(name, argument, value):
    draw, given = DRAWS[name]
    with pytest.raises(TypeError, match=f"^{argument} must be a"):
        draw(**{**given, argument: value})


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf, -math.inf, (2.0, 1.0), (1.0,) * 3], ids=str)
@pytest.mark.parametrize("name", ["dirichlet", "beta"])
def test_impossible_concentrations_are_refused(name, alpha):
    draw, given = DRAWS[name]
    with pytest.raises(ValueError, match=r"^alpha must"):
        draw(**{**given, "alpha": alpha})


FLAT, DENSE = sample(7, 3, 5, dtype=torch.float32), sample(7, 3, 5, r=2, dtype=torch.float32)
HALVES, QUARTERS = torch.full((4,), 0.5), torch.full((2, 4), 0.25)
OTHER = nn.ParameterDict({"objective": HALVES})
FEATURES, LOGITS, LABELS = torch.ones(2, 3, 4), torch.zeros(3, 5), torch.arange(3)
MAPS, WEIGHTED = torch.zeros(3, 2, 4, 4), SampleWeighted(CrossEntropy())
LARGE = torch.zeros(2, 2, 100, 100)
OBJECTIVES = [CrossEntropy(), BinaryCrossEntropy(), SquaredError()]
SEVERAL = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
UNARY, PAIRS = torch.tensor([0.0, 1, 3]).view(1, 3, 1, 1).expand(1, 3, 2, 2), torch.ones(1, 1, 2)
INTEGER_ROWS = (
    "targets that are class indices must have shape (b,), got (3, 5); integers (b, k) are taken where each row"
)


def flat(**change):
    return lambda: replace(FLAT, **change).loss()


def dense(**change):
    return lambda: replace(DENSE, **change).loss()


def lazy(s, draw, sets=None):
    return lambda: replace(s, weights=ops.LazyWeights(3, draw, sets)).loss(impl="fused")


def mixed(**options):
    """What is mixed of embeddings, by a head that is not affine."""
    given = ops.LossOptions(classify=lambda z: z, teach=lambda z: z, **options)
    return lambda: ops.mixed_losses(torch.randn(7, 2, 4), FLAT.targets, FLAT.weights, given)


def objective(**options):
    return lambda: ops.mixed_losses(LOGITS, LABELS, QUARTERS[:, :3] * 4 / 3, ops.LossOptions(**options))


def objective_at_positions(**options):
    return lambda: ops.mixed_losses(torch.zeros(3, 2, 5), LABELS, QUARTERS[:, :3] * 4 / 3, ops.LossOptions(**options))


def solve(unary=UNARY, vertical=PAIRS, horizontal=PAIRS.mT):
    return lambda: ops.solve_ordered_labels(unary, vertical, horizontal)


def even(rows):
    return torch.full((rows, 7), 1 / 7)


WRONG_TYPES = [
    (lambda: ops.dirichlet(3, 4, 1.0, dtype=torch.int64), "dtype must be floating-point, got torch.int64"),
    (lambda: ops.dirichlet(3, 4, 1.0, dtype="float32"), "dtype must be floating-point, got float32"),
    (lambda: ops.interpolate(QUARTERS, torch.ones(4, 3).byte()), "values must be floating-point"),
    (lambda: ops.soft_cross_entropy(QUARTERS.long(), QUARTERS), "logits must be floating-point"),
    (lambda: ops.check_batch(QUARTERS.long(), HALVES), "inputs must be floating-point"),
    (lambda: ops.as_probabilities(SEVERAL.bool(), 3), "targets must be … got torch.bool; several labels"),
    (lambda: ops.as_probabilities([0, 1], 5), "targets must be a tensor, got list"),
    (lambda: SquaredError().targets(LABELS + 0j, 1), "targets must be real numbers, got torch.complex64"),
    (lambda: ops.objective_of(OTHER), "objective of the network must be an Objective"),
    (flat(logits=torch.zeros(7, 5, dtype=torch.long)), "logits must be floating-point, got torch.int64"),
    (flat(targets=torch.zeros(7, 5, dtype=torch.complex64)), "targets must be class indices or probabilities"),
    (flat(weights=torch.eye(7, dtype=torch.long)), "weights must be floating-point, got torch.int64"),
    (lambda: FLAT.loss(alpha=1.0), "alpha is no option of a mixed cross-entropy, which has teacher_logits, gamma"),
    (lambda: DENSE.loss(mask=None), "mask is no option of a mixed cross-entropy"),
    (lambda: ops.soft_cross_entropy([1.0], HALVES), "logits must be a tensor, got list"),
    (lambda: ops.mixed_cross_entropy(None, LABELS, QUARTERS), "logits must be a tensor, got NoneType"),
    (lambda: ops.mixed_cross_entropy(LOGITS, LABELS, [[1.0]]), "weights must be a tensor, got list"),
    (lambda: ops.dense_mixed_cross_entropy(FEATURES, LABELS[:2], QUARTERS[:, :2] * 2, None), "attention must be a"),
    (lambda: ops.mixed_losses(LOGITS, LABELS, QUARTERS, "plain"), "options must be LossOptions or None, got 'plain'"),
    (lambda: ops.LossOptions(objective="x"), "objective must be an Objective such as CrossEntropy(), got 'x'"),
    (lambda: ops.LazyWeights(3, 3), "draw must be a function of a number of rows, got 3"),
    (lazy(FLAT, lambda rows: None), "weights.draw(3) must be a tensor, got NoneType"),
    (lazy(FLAT, lambda rows: torch.ones(rows, 7).long()), "weights must be floating-point, got torch.int64"),
    (lambda: ops.as_probabilities(QUARTERS, 4, dtype=torch.int64), "dtype must be floating-point, got torch.int64"),
    (lambda: ops.as_probabilities(LABELS, 2.5), "num_classes must be an integer, got 2.5"),
    (lambda: ops.attention(FEATURES.long()), "features must be floating-point, got torch.int64"),
    (lambda: ops.attention(FEATURES, mask=torch.ones(2, 3)), "mask must be boolean, … got torch.float32"),
    (objective_at_positions(mask=torch.zeros(3, 2)), "mask must be boolean, … got torch.float32"),
    (lambda: ops.reweight(QUARTERS.long(), torch.ones(4, 2)), "weights must be floating-point, got torch.int64"),
    (lambda: ops.scatter_tuples(QUARTERS.long(), 4), "weights must be floating-point, got torch.int64"),
    (lambda: ops.alpha_for("2", 8), "effective must be a number, got '2'"),
    (lambda: ops.mix_pairs(LABELS, LABELS, HALVES), "values must be floating-point, got torch.int64"),
    (lambda: ops.mix_pairs(LOGITS, LABELS > 0, HALVES[0]), "partners must be indices, int64 or int32, got torch.bool"),
    (lambda: ops.mix_pairs(LOGITS, LABELS, 0.5), "lam must be a tensor, got float"),
    (lambda: ops.paste_box([0], LABELS, (0, 1, 0, 1)), "images must be a tensor, got list"),
    (lambda: ops.paste_boxes(MAPS, LABELS, (0, 1)), "boxes must be Boxes, as draw_boxes returns them, got (0, 1)"),
    *((lambda each=each: each.targets([0, 1], 5), "targets must be a tensor, got list") for each in OBJECTIVES),
    *((lambda each=each: each([0.0], LOGITS), "outputs must be a tensor, got list") for each in OBJECTIVES),
    *((lambda each=each: each(LOGITS.long(), LOGITS), "outputs must be floating-point") for each in OBJECTIVES),
    (lambda: SampleWeighted("x"), "objective must be an Objective such as CrossEntropy(), got 'x'"),
    (lambda: WEIGHTED.join(LABELS, [1, 2, 3], 5), "weights must be a tensor, got list"),
    (lambda: WEIGHTED.join(LABELS, HALVES[:3] + 0j, 5), "weights must be real numbers, got torch.complex64"),
]
WRONG_VALUES = [
    (lambda: ops.dirichlet(3, 4, torch.ones(4)), "alpha must have shape (3,), got (4,)"),
    (lambda: ops.dirichlet(3, 4, torch.zeros(3)), "alpha must be above 0 and finite, got a tensor with 0"),
    (lambda: ops.dirichlet(3, 4, torch.full((3,), math.nan)), "alpha must be above 0 and finite"),
    (
        lambda: ops.draw_between((1.0, 2.0, 3.0), 2),
        "bounds must be a range (low, high) with low <= high, got (1.0, 2.0, 3.0)",
    ),
    (lambda: ops.draw_box(8, 8, 1.5), "lam must lie in [0, 1], got 1.5"),
    (lambda: ops.scatter_tuples(QUARTERS, 3), "tuple_length must not exceed the mini-batch of 3, got 4"),
    (lambda: ops.interpolate(HALVES, torch.ones(4, 2)), "weights must have shape (n, 4), got (4,)"),
    (lambda: ops.soft_cross_entropy(QUARTERS, HALVES), "targets must have shape (2, 4), got (4,)"),
    (lambda: ops.soft_cross_entropy(LOGITS, LOGITS + 1), "targets must have rows that sum to 1, … off by 4"),
    (lambda: ops.soft_cross_entropy(LOGITS, LOGITS / 0), "targets must have rows that sum to 1, … off by nan"),
    (lambda: ops.draw_between((2.0, 1.0), 2), "bounds must be a range (low, high) with low <= high, got (2.0, 1.0)"),
    (lambda: ops.draw_between(math.nan, 2), "bounds must be above -inf and finite, got nan"),
    (lambda: ops.draw_boxes(4, 4, HALVES * math.nan), "lam must lie in [0, 1], got [nan"),
    (lambda: ops.draw_mask(4, 4, 0.5, math.nan), "decay must be above -inf and finite, got nan"),
    (lambda: ops.scatter_tuples(QUARTERS / 0, 4), "weights must have rows that sum to 1, got a row that is off by inf"),
    (lambda: ops.mix_pairs(LOGITS, LABELS, HALVES[0] * 4), "lam must lie in [0, 1], got 2.0"),
    (lambda: ops.mix_pairs(LOGITS, LABELS, HALVES), "lam must be one number, or one an example, (3,), got (4,)"),
    (lambda: ops.mix_pairs(LOGITS, LABELS + 1, HALVES[0]), "partners must lie in 0..2, got [1, 2, 3]"),
    (lambda: ops.mix_pairs(LOGITS, LABELS[:2], HALVES[0]), "partners must have shape (3,), got (2,)"),
    (
        lambda: ops.paste_boxes(LARGE, LABELS[:2] - 1, ops.Boxes(LARGE[0, 0, :2, :2], LARGE[0, 0, :2, :2])),
        "partners must",
    ),
    (lambda: ops.paste_box(MAPS, LABELS, (0, 9, 0, 1)), "box must lie within images of 4 x 4 pixels, got (0, 9, 0, 1)"),
    (lambda: ops.paste_box(MAPS[0], LABELS, (0, 1, 0, 1)), "images must have shape (b, c, h, w), got (2, 4, 4)"),
    (lambda: ops.paste_box(MAPS, LABELS[:0], (0, 1, 0, 1)), "partners must have shape (3,), got (0,)"),
    # attention
    (lambda: ops.attention(FEATURES, class_weights=torch.ones(2, 4)), "class_weights … query='cam', got query='gap'"),
    (lambda: ops.attention(FEATURES[:, :0]), "features must have at least one position, got (2, 0, 4)"),
    (lambda: ops.reweight(QUARTERS, -torch.ones(4, 2)), "attention must not be negative or NaN, got -1"),
    (lambda: ops.attention(QUARTERS), "features must have shape (b, r, d), got (2, 4)"),
    (lambda: ops.attention(FEATURES, query="max"), "query must be one of gap, cam, uniform, got 'max'"),
    (lambda: ops.attention(FEATURES, activation="tanh"), "activation must be one of relu, softmax, got 'tanh'"),
    (lambda: ops.attention(FEATURES, query="cam"), "class_weights must be given for query='cam'"),
    (lambda: ops.attention(FEATURES, query="cam", class_weights=torch.ones(2, 5)), "class_weights … (2, 4)"),
    (lambda: ops.attention(FEATURES, mask=torch.ones(2, 4)), "mask must have shape (2, 3), got (2, 4)"),
    (lambda: ops.reweight(torch.ones(3, 5), torch.ones(4, 2)), "weights must have shape (n, 4), got (3, 5)"),
    (lambda: ops.reweight(torch.ones(4, 3, 4), torch.ones(4, 2)), "weights must have shape (2, n, 4), got (4, 3, 4)"),
    # targets, and objectives that they may be for
    (lambda: ops.as_probabilities(torch.tensor([[1, 1, 0, 0, 0]] * 3), 5), INTEGER_ROWS),
    (lambda: ops.as_probabilities(torch.zeros(3, 5).long(), 5), INTEGER_ROWS),
    (lambda: ops.as_probabilities(torch.tensor([[2, -1, 0, 0, 0]] * 3), 5), INTEGER_ROWS),
    (lambda: ops.as_probabilities(torch.rand(6, 1), 5), "targets … (b, 5), got (6, 1); values to predict"),
    (
        lambda: CrossEntropy().targets(torch.rand(6, 8, 8), 5),
        "targets … got (6, 8, 8); label maps (b, h, w) are integers",
    ),
    (
        lambda: CrossEntropy().targets(torch.rand(6, 5, 8, 8), 5),
        "targets … got (6, 5, 8, 8); label maps … position (b, r, 5)",
    ),
    (
        lambda: BinaryCrossEntropy().targets(torch.rand(6, 1, 8, 8), 1),
        "targets … got (6, 1, 8, 8); at every position (b, r, 1), of",
    ),
    (lambda: ops.as_probabilities(SEVERAL, 3), "targets must have rows that … off by 1; several labels"),
    (lambda: ops.as_probabilities(LABELS - 100, 5), "targets must … got -100; CrossEntropy(ignore_index=-100)"),
    (lambda: CrossEntropy().targets(LABELS + 253, 5), "targets … got 255; CrossEntropy(ignore_index=255)"),
    (lambda: BinaryCrossEntropy().targets(LABELS, 5), "targets must … got (3,); class indices are for"),
    (lambda: BinaryCrossEntropy().targets(LOGITS + 9, 5), "targets must lie in [0, 1] … got 9"),
    (lambda: BinaryCrossEntropy().targets(LOGITS - 9, 5), "targets must lie in [0, 1] … got -9"),
    (lambda: SquaredError().targets(torch.rand(3), 5), "targets must have one number an output, (b, 5), got (3,)"),
    (lambda: SquaredError()(LOGITS, LOGITS[:, :1]), "targets must have shape (3, 5), got (3, 1)"),
    (lambda: CrossEntropy(class_weights=(-1.0, 2.0)), "class_weights … must be at least 0 and finite"),
    (lambda: CrossEntropy(class_weights=(0.0, 0.0)), "class_weights must not all be 0, got (0.0, 0.0)"),
    (lambda: CrossEntropy(class_weights=(1.0,))(LOGITS, LOGITS), "class_weights must hold … 5, got 1"),
    (lambda: CrossEntropy(label_smoothing=1.1), "label_smoothing must lie in [0, 1], got 1.1"),
    (lambda: SquaredError().targets(LOGITS / 0, 5), "targets must be finite values, got NaN or infinity"),
    (lambda: CrossEntropy(ignore_index=9).targets(SEVERAL, 3), "targets … sum to at most 1, … off by 1; several"),
    (lambda: CrossEntropy().losses(LOGITS, LOGITS, (LOGITS[1:], 0.5)), "taught must have shape (3, 5), got (2, 5)"),
    (lambda: CrossEntropy().losses(LOGITS, LOGITS, (LOGITS, 2)), "gamma must lie in [0, 1], got 2"),
    (lambda: CrossEntropy().losses(LOGITS, LOGITS, present=HALVES), "present must have shape (3,), got (4,)"),
    (lambda: WEIGHTED.join(LABELS, HALVES, 5), "weights must have shape (3,), one an example, got (4,)"),
    (lambda: WEIGHTED.join(LABELS, HALVES[:3] - 1, 5), "weights must be finite and not negative, got -0.5"),
    (lambda: WEIGHTED.join(LABELS, HALVES[:3] / 0, 5), "weights must be finite and not negative, got inf"),
    (lambda: WEIGHTED.join(LABELS, HALVES[:3] * 0, 5), "weights must not all be 0"),
    (lambda: WEIGHTED.targets(LABELS, 5), "targets must be rows (b, 6) as SampleWeighted.join(targets, weights, 5)"),
    (lambda: WEIGHTED.targets(LOGITS, 5), "targets must be rows (b, 6) as … got torch.float32 (3, 5)"),
    (lambda: WEIGHTED(LOGITS, LOGITS), "targets must have shape (3, 6), got (3, 5)"),
    # mixed losses
    (flat(logits=torch.randn(7)), "logits must have shape (b, k), got (7,)"),
    (flat(logits=torch.randn(6, 5)), "targets has 7 rows for a mini-batch of 6"),
    (flat(logits=torch.zeros(7, 5, device="meta")), "tensors lie on different devices: logits on meta, targets on cpu"),
    (flat(targets=torch.tensor([[1.5, -0.5, 0, 0, 0]] * 7)), "targets must not be negative, got -0.5"),
    (flat(weights=torch.full((3, 6), 1 / 6)), "weights must have shape (n, 7), got (3, 6)"),
    (flat(weights=torch.full((2, 3, 7), 1 / 7)), "weights must have shape (n, 7), got (2, 3, 7)"),
    (flat(weights=torch.full((3, 7), math.nan)), "weights must have rows that sum to 1"),
    (flat(weights=torch.tensor([[2.0, -1, 0, 0, 0, 0, 0]])), "weights must not be negative, got -1"),
    (flat(weights=torch.zeros(0, 7)), "weights must have at least one row"),
    (flat(teacher=torch.randn(7, 4)), "teacher_logits must have shape (7, 5), got (7, 4)"),
    (flat(teacher=torch.randn(7, 5), gamma=1.1), "gamma must lie in [0, 1], got 1.1"),
    (dense(logits=torch.randn(7, 5)), "logits must have shape (b, r, k), got (7, 5)"),
    (dense(attention=torch.ones(7, 3)), "attention must have shape (7, 2), got (7, 3)"),
    (dense(attention=-torch.ones(7, 2)), "attention must not be negative or NaN, got -1"),
    (dense(attention=torch.full((7, 2), math.nan)), "attention must not be negative or NaN, got nan"),
    (dense(weights=torch.full((3, 3, 7), 1 / 7)), "weights must have shape (2, n, 7), got (3, 3, 7)"),
    (dense(weights=torch.full((7,), 1 / 7)), "weights must have shape (n, 7), got (7,)"),
    (dense(teacher=torch.randn(7, 5)), "teacher_logits must have shape (7, 2, 5), got (7, 5)"),
    (lambda: FLAT.loss(impl="fast"), "impl must be one of auto, plain, commuted, fused, got 'fast'"),
    (lambda: FLAT.loss(chunk=0), "chunk must be at least 1, got 0"),
    (lambda: FLAT.loss(balanced=1.5), "balanced must lie in [0, 1], got 1.5"),
    (lazy(FLAT, lambda rows: torch.zeros(2, 7)), "weights.draw(3) must have shape (3, 7), got (2, 7)"),
    (lazy(FLAT, lambda rows: torch.ones(rows, 7)), "weights must have rows that sum to 1, … off by 6"),
    (lazy(FLAT, even, 2), "weights.sets must be None, got 2"),
    (lazy(DENSE, even, 3), "weights.sets must be None or the number of positions, 2, got 3"),
    (objective(attention=torch.ones(3, 5)), "logits where there is attention must have shape (b, r, k), got (3, 5)"),
    (objective(mask=torch.ones(3, 5)), "logits where there is mask must have shape (b, r, k), got (3, 5)"),
    (mixed(mask=torch.ones(7, 2, dtype=torch.bool)), "masks and label maps need a network with an affine head"),
    (mixed(impl="fused"), "impl='fused' needs a network with an affine head; head is None: use impl='auto'"),
    (mixed(teacher_logits=torch.zeros(6, 2, 4)), "teacher_logits must have shape (7, 2, d), got (6, 2, 4)"),
    # what is solved
    (solve(vertical=PAIRS[:, 1:]), "vertical must have shape (1, 1, 2), got (1, 0, 2)"),
    (solve(horizontal=-PAIRS.mT), "horizontal must be finite and not negative, got -1"),
    (solve(vertical=PAIRS / 0), "vertical must be finite and not negative, got inf"),
    (solve(unary=-UNARY), "unary must be convex in the label, got a second difference of -1"),
    (solve(unary=UNARY / 0), "unary must be finite, got NaN or infinity"),
    (lambda: ops.transport_blocks(PAIRS, PAIRS > 0, -1.0), "eps must be at least 0, got -1.0"),
    (lambda: ops.transport_blocks(PAIRS, PAIRS.mT > 0, 1.0), "seen must have shape (1, 1, 2), got (1, 2, 1)"),
    (lambda: ops.sinkhorn(HALVES), "cost must have shape (..., r, s), none of them 0, got (4,)"),
    (lambda: ops.sinkhorn(torch.zeros(2, 0, 3)), "cost must have shape (..., r, s), none of them 0, got (2, 0, 3)"),
    (lambda: ops.sinkhorn(QUARTERS, 0.0), "epsilon must be above 0 and finite, got 0.0"),
    (lambda: ops.sinkhorn(QUARTERS, iterations=0), "iterations must be at least 1, got 0"),
    (lambda: ops.sinkhorn(QUARTERS, tolerance=math.nan), "tolerance must be at least 0, got nan"),
]


@pytest.mark.parametrize(("error", "rows"), [(TypeError, WRONG_TYPES), (ValueError, WRONG_VALUES)])
def test_the_argument_is_named(error, rows):
    for act, said in rows:  # … stands for some words
        with pytest.raises(error, match="^" + ".*".join(map(re.escape, said.split(" … ")))):
            act()


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: ops.as_probabilities(LABELS + 5, 5), "for 5 classes, got 7"),
        (lambda: BinaryCrossEntropy().targets(torch.rand(3), 5), "(b, 5), got (3,)"),
        (flat(targets=torch.zeros(7, 4)), "(b, 5), got (7, 4)"),
        (flat(weights=torch.ones(3, 7)), "off by 6"),
    ],
)
def test_there_is_no_hint_where_none_fits(act, said):
    with pytest.raises(ValueError, match=f"{re.escape(said)}$"):
        act()


@pytest.mark.parametrize("label", [5, -1])
@pytest.mark.parametrize("s", [FLAT, DENSE], ids=["flat", "dense"])
def test_a_label_out_of_range_is_named_whatever_the_form(s, label):
    targets = s.targets.index_fill(0, torch.tensor([3]), label)
    for impl in ("auto", "plain", "commuted", "fused"):
        with pytest.raises(ValueError, match=rf"targets must lie in 0\.\.4 for 5 classes, got {label}"):
            replace(s, targets=targets).loss(impl=impl)


@pytest.mark.parametrize("name", ["targets", "weights", "attention"])
def test_no_form_swallows_gradients(name):
    s = sample(7, 3, 5, r=2, soft=True)
    s = replace(s, **{name: getattr(s, name).clone().requires_grad_()})
    for impl in ("commuted", "fused"):
        with pytest.raises(ValueError, match=f"impl='{impl}' gives no gradient to {name}; use impl='plain' or detach"):
            s.loss(impl=impl)
