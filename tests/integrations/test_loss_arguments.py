"""What MultiMixLoss refuses, in one line that names the argument."""

import pytest
import torch

import multimix as mm


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"reduction": "none"}, ValueError, "reduction must be 'mean', got 'none': tuples mix examples"),
        ({"reduction": "sum"}, ValueError, "reduction must be 'mean', got 'sum'"),
        ({"method": mm.MultiMix(), "tuples": 5}, TypeError, "give method or settings, not both, got method=MultiMix"),
        (
            {"method": mm.CutMix()},
            TypeError,
            "method must be MultiMix, .* got CutMix.*call any other on multimix.adapt",
        ),
        ({"method": "distilled-multimix"}, TypeError, "method must be MultiMix, .* got 'distilled-multimix'"),
        ({"method": "multimux"}, ValueError, "unknown method 'multimux'; did you mean multimix"),
        ({"size_average": True}, TypeError, "MultiMixLoss has no setting 'size_average'; .* tuples, tuple_length"),
        ({"tuples": 0}, ValueError, "tuples must be at least 1, got 0"),
        ({"label_smoothing": -1}, ValueError, r"label_smoothing must lie in \[0, 1\], got -1"),
        ({"ignore_index": None}, TypeError, "ignore_index must be an integer, got None"),
        ({"seed": 0.5}, TypeError, "seed must be an integer or None, got 0.5"),
        ({"weight": mm.MultiMix()}, TypeError, "weight must be a tensor .* got MultiMix"),
        ({"weight": torch.tensor([1.0, -1.0])}, ValueError, "weight must be a floating-point tensor .* not negative"),
        ({"weight": torch.ones(2, 2)}, ValueError, r"weight must be a floating-point tensor \(k,\)"),
    ],
)
def test_bad_settings_are_named(given, error, message):
    with pytest.raises(error, match=message):
        mm.MultiMixLoss(**given)


@pytest.mark.bad_input
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("input", "target", "error", "message"),
    [
        (
            torch.randn(6, 4),
            torch.eye(4)[torch.arange(6) % 4].long(),
            ValueError,
            r"target must be class indices \(6,\) or",
        ),
        (torch.randn(6, 4), torch.zeros(5).long(), ValueError, r"got torch.int64 \(5,\)"),
        (torch.randn(6, 4), torch.zeros(6), ValueError, r"or floating-point probabilities \(6, 4\), got torch.float32"),
        (torch.randn(6, 4, 2, 2), torch.zeros(6).long(), ValueError, r"class indices \(6, 2, 2\)"),
        (torch.randn(6, 4), torch.ones(6).bool(), TypeError, "target must be a tensor of class indices or prob.*bool"),
        (torch.randn(6, 4), [0] * 6, TypeError, "target must be a tensor of class indices or probabilities, got list"),
        (
            torch.randn(4),
            torch.tensor(1),
            ValueError,
            r"input must have shape \(b, k\) or \(b, k, d1, ...\), got \(4,\)",
        ),
        (
            torch.ones(6, 4).long(),
            torch.zeros(6).long(),
            TypeError,
            "input must be logits, a floating-point tensor, got",
        ),
        (torch.randn(6, 4, 2), torch.zeros(6, 2).long(), ValueError, "weight must hold one number a class, 4, got 3"),
    ],
)
def test_bad_arguments_are_named(input, target, error, message, training):
    loss_of = mm.MultiMixLoss(torch.ones(3) if "weight" in message else None).train(training)
    with pytest.raises(error, match=message):
        loss_of(input, target)


@pytest.mark.bad_input
def test_labels_out_of_range_and_ignored_probabilities_are_refused():
    with pytest.raises(ValueError, match=r"targets must lie in 0\.\.3 for 4 classes, got 4"):
        mm.MultiMixLoss()(torch.randn(3, 4), torch.tensor([0, 4, 1]))
    with pytest.raises(ValueError, match=r"targets must lie in 0\.\.3 for 4 classes, got 4"):
        mm.MultiMixLoss(torch.ones(4))(torch.randn(3, 4), torch.tensor([0, 4, -100]))
    with pytest.raises(ValueError, match="ignore_index must be left out for probabilities, as in torch, got 2"):
        mm.MultiMixLoss(ignore_index=2)(torch.randn(3, 4), torch.full((3, 4), 0.25))
