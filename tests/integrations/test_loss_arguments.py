"""What MultiMixLoss refuses, in one line that names the argument."""

import pytest
import torch

import multimix as mm

pytestmark = pytest.mark.bad_input


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"reduction": "none"}, ValueError, "reduction must be 'mean', got 'none': tuples mix examples"),
        ({"method": mm.MultiMix(), "tuples": 5}, TypeError, "give method or settings, not both, got method=MultiMix"),
        (
            {"method": mm.CutMix()},
            TypeError,
            "method must be MultiMix, .* got CutMix.*call any other on multimix.adapt",
        ),
        ({"method": "multimux"}, ValueError, "unknown method 'multimux'; did you mean multimix"),
        ({"size_average": True}, TypeError, "MultiMixLoss has no setting 'size_average'; .* tuples, tuple_length"),
        ({"tuples": 0}, ValueError, "tuples must be at least 1, got 0"),
        ({"label_smoothing": -1}, ValueError, r"label_smoothing must lie in \[0, 1\], got -1"),
        ({"ignore_index": None}, TypeError, "ignore_index must be an integer, got None"),
        ({"seed": 0.5}, TypeError, "seed must be an integer or None, got 0.5"),
        ({"weight": mm.MultiMix()}, TypeError, "weight must be a tensor .* got MultiMix"),
        ({"weight": torch.tensor([1.0, -1.0])}, ValueError, "weight must be a floating-point tensor .* not negative"),
        ({"weight": torch.zeros(2)}, ValueError, "weight must be .* not all 0"),
        ({"weight": torch.ones(2, 2)}, ValueError, r"weight must be a floating-point tensor \(k,\)"),
    ],
)
def test_bad_settings_are_named(given, error, message):
    with pytest.raises(error, match=message):
        mm.MultiMixLoss(**given)


LOGITS, LABELS = torch.randn(6, 4), torch.arange(6) % 4


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("input", "target", "error", "message"),
    [
        (LOGITS, torch.eye(4)[LABELS].long(), ValueError, r"target must be class indices \(6,\) or"),
        (LOGITS, LABELS[:5], ValueError, r"got torch.int64 \(5,\)"),
        (LOGITS, LABELS.float(), ValueError, r"or floating-point probabilities \(6, 4\), got torch.float32"),
        (LOGITS.view(6, 4, 1, 1), LABELS, ValueError, r"class indices \(6, 1, 1\)"),
        (LOGITS, LABELS.bool(), TypeError, "target must be a tensor of class indices or probabilities, got torch.bool"),
        (LOGITS, [0] * 6, TypeError, "target must be a tensor of class indices or probabilities, got list"),
        (LOGITS[0], LABELS[0], ValueError, r"input must have shape \(b, k\) or \(b, k, d1, ...\), got \(4,\)"),
        (LOGITS.long(), LABELS, TypeError, "input must be logits, a floating-point tensor, got torch.int64"),
        (LOGITS, LABELS, ValueError, "weight must hold one number a class, 4, got 3"),
        (LOGITS, LOGITS.softmax(1), ValueError, "ignore_index must be left out for probabilities, as in torch, got 2"),
    ],
)
def test_bad_arguments_are_named(input, target, error, message, training):
    weight, ignore_index = torch.ones(3) if "weight" in message else None, 2 if "ignore" in message else -100
    with pytest.raises(error, match=message):
        mm.MultiMixLoss(weight, ignore_index=ignore_index).train(training)(input, target)


@pytest.mark.parametrize("weight", [None, torch.ones(4)])
def test_labels_out_of_range_are_refused(weight):
    with pytest.raises(ValueError, match=r"targets must lie in 0\.\.3 for 4 classes, got 4"):
        mm.MultiMixLoss(weight)(LOGITS, torch.tensor([0, 4, 1, -100, 2, 3]))
