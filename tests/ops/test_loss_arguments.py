"""What the losses refuse, and in which words."""

from dataclasses import replace

import pytest
import torch

from multimix import ops
from ops.samples import sample

pytestmark = pytest.mark.bad_input


FLAT = [
    ({"logits": torch.randn(7)}, r"logits must have shape \(b, k\), got \(7,\)"),
    ({"logits": torch.randn(6, 5)}, "targets has 7 rows for a mini-batch of 6"),
    ({"logits": torch.zeros(7, 5, dtype=torch.long)}, "logits must be floating-point, got torch.int64"),
    ({"logits": torch.zeros(7, 5, device="meta")}, "tensors lie on different devices: logits on meta, targets on cpu"),
    ({"targets": torch.zeros(7, 4)}, r"targets holds probabilities and must have shape \(b, 5\), got \(7, 4\)"),
    ({"targets": torch.zeros(7, 1, dtype=torch.long)}, r"targets holds class indices and must have shape \(b,\)"),
    ({"targets": torch.zeros(6, dtype=torch.long)}, "targets has 6 rows for a mini-batch of 7"),
    ({"targets": torch.full((7, 5), 0.5)}, "targets must have rows that sum to 1"),
    ({"targets": torch.tensor([[1.5, -0.5, 0, 0, 0]] * 7)}, "targets must not be negative"),
    ({"targets": torch.zeros(7, dtype=torch.bool)}, "targets must be class indices or probabilities"),
    ({"targets": torch.zeros(7, 5, dtype=torch.complex64)}, "targets must be class indices or probabilities"),
    ({"weights": torch.full((3, 6), 1 / 6)}, "weights has 6 columns for a mini-batch of 7"),
    ({"weights": torch.full((2, 3, 7), 1 / 7)}, r"weights must have shape \(n, 7\), got \(2, 3, 7\)"),
    ({"weights": torch.ones(3, 7)}, "weights must have rows that sum to 1"),
    ({"weights": torch.full((3, 7), float("nan"))}, "weights must"),
    ({"weights": torch.tensor([[2.0, -1, 0, 0, 0, 0, 0]])}, "weights must not be negative, got -1"),
    ({"weights": torch.zeros(0, 7)}, "weights must have at least one row"),
    ({"weights": torch.eye(7, dtype=torch.long)}, "weights must be floating-point, got torch.int64"),
    ({"teacher": torch.randn(7, 4)}, r"teacher_logits must have the shape of logits, \(7, 5\), got \(7, 4\)"),
    ({"teacher": torch.randn(7, 5), "gamma": 1.1}, r"gamma must lie in \[0, 1\], got 1.1"),
]
DENSE = [
    ({"logits": torch.randn(7, 5)}, r"logits must have shape \(b, r, k\), got \(7, 5\)"),
    ({"attention": torch.ones(7, 3)}, r"attention must have shape \(7, 2\), got \(7, 3\)"),
    ({"attention": -torch.ones(7, 2)}, "attention must not be negative or NaN, got -1"),
    ({"attention": torch.full((7, 2), float("nan"))}, "attention must not be negative or NaN, got nan"),
    ({"weights": torch.full((3, 3, 7), 1 / 7)}, r"weights must have shape \(n, 7\) or \(2, n, 7\)"),
    ({"weights": torch.full((7,), 1 / 7)}, r"weights must have shape \(n, 7\) or \(2, n, 7\), got \(7,\)"),
    ({"teacher": torch.randn(7, 5)}, "teacher_logits must have the shape of logits"),
]


@pytest.mark.parametrize(("r", "change", "message"), [(None, *case) for case in FLAT] + [(2, *case) for case in DENSE])
def test_the_argument_is_named(r, change, message):
    of_type = "floating-point" in message or "class indices or" in message
    with pytest.raises(TypeError if of_type else ValueError, match=message):
        replace(sample(7, 3, 5, r=r, dtype=torch.float32), **change).loss()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"impl": "fast"}, "impl must be one of auto, plain, commuted, fused, got 'fast'"),
        ({"chunk": 0}, "chunk must be at least 1, got 0"),
        ({"balanced": 1.5}, r"balanced must lie in \[0, 1\], got 1.5"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sample(7, 3, 5).loss(**options)


@pytest.mark.parametrize("impl", ["commuted", "fused"])
@pytest.mark.parametrize("name", ["targets", "weights", "attention"])
def test_no_form_swallows_gradients(name, impl):
    s = sample(7, 3, 5, r=2, soft=True)
    s = replace(s, **{name: getattr(s, name).clone().requires_grad_()})
    with pytest.raises(ValueError, match=f"impl='{impl}' gives no gradient to {name}; use impl='plain' or detach"):
        s.loss(impl=impl)


@pytest.mark.parametrize("impl", ["auto", "plain", "commuted", "fused"])
@pytest.mark.parametrize("label", [5, -1])
@pytest.mark.parametrize("r", [None, 2])
def test_a_label_out_of_range_is_named_whatever_the_form(r, label, impl):
    s = sample(7, 3, 5, r=r)
    targets = s.targets.clone()
    targets[3] = label
    with pytest.raises(ValueError, match=rf"targets must lie in 0\.\.4 for 5 classes, got {label}"):
        replace(s, targets=targets).loss(impl=impl)


@pytest.mark.parametrize("shape", [(3, 6), (2, 7), (3, 7, 1)])
def test_lazy_weights_must_be_drawn_as_asked(shape):
    lazy = ops.LazyWeights(3, lambda rows: torch.zeros(shape))
    with pytest.raises(ValueError, match=r"weights.draw must return one row a tuple, \(3, 7\) when asked for 3, got"):
        replace(sample(7, 3, 5, dtype=torch.float32), weights=lazy).loss(impl="fused")


def test_lazy_weights_have_one_set_for_each_position():
    for r, sets, expected in ((None, 2, "None"), (2, 3, "None or the number of positions, 2")):
        lazy = ops.LazyWeights(3, lambda rows: torch.full((rows, 7), 1 / 7), sets)
        with pytest.raises(ValueError, match=f"weights.sets must be {expected}, got {sets}"):
            replace(sample(7, 3, 5, r=r, dtype=torch.float32), weights=lazy).loss()


@pytest.mark.parametrize("dense", [False, True])
def test_unknown_keywords_are_refused_with_the_known_ones(dense):
    with pytest.raises(TypeError, match="alpha is no option of a mixed cross-entropy, which has teacher_logits, gamma"):
        sample(7, 3, 5, r=2 if dense else None).loss(alpha=1.0)
    with pytest.raises(TypeError, match="mask is no option of a mixed cross-entropy"):
        sample(7, 3, 5, r=2 if dense else None).loss(mask=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": torch.ones(7, 2, dtype=torch.bool)}, "masks and label maps need a network with an affine head"),
        ({"impl": "fused"}, "impl='fused' needs a network with an affine head; head is None: use impl='auto'"),
        ({"teacher_logits": torch.zeros(6, 2, 4)}, "teacher_logits must have the shape of logits"),
    ],
)
def test_what_needs_an_affine_head_is_refused_without_one(options, message):
    embeddings, targets, weights = torch.randn(7, 2, 4), torch.zeros(7, dtype=torch.long), torch.full((3, 7), 1 / 7)
    given = ops.LossOptions(classify=lambda z: z, teach=lambda z: z, **options)
    with pytest.raises(ValueError, match=message):
        ops.mixed_losses(embeddings, targets, weights, given)


def test_attention_and_masks_are_of_positions():
    s = sample(7, 3, 5)
    for name in ("attention", "mask"):
        with pytest.raises(
            ValueError, match=rf"logits must have shape \(b, r, k\) where there is {name}, got \(7, 5\)"
        ):
            ops.mixed_losses(s.logits, s.targets, s.weights, ops.LossOptions(**{name: torch.ones(7, 5)}))
