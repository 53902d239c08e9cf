"""Counts against formulas by hand, and against what torch counts when the op really runs."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate, DenseMultiMix, Mixup, MultiMix, PuzzleMix
from multimix.ops import dense_mixed_cross_entropy, dirichlet, mixed_cross_entropy
from multimix.plan import Subject, TupleProblem, count_network, tuple_works, with_tuples
from multimix.plan.forms import forms
from multimix.plan.measure import counted
from multimix.plan.rates import features
from multimix.plan.work import Recorder
from multimix.train.config import AdamW

TINY = Subject("preact_resnet18", 5, (3, 8, 8), 4, width=2, strides=(1, 1, 1, 1), final_norm=False)


def flops(count, part):
    return sum(work.flops for work in (*count.works, *count.updates) if work.part == part)


def convolutions(subject):
    """Multiply-adds of an image, convolution by convolution: every map has 8 × 8 positions."""
    widths = [subject.width * 2**i for i in range(4)]
    total, before = subject.shape[0] * widths[0] * 9, widths[0]
    for width in widths:
        total += before * width * 9 + 3 * width * width * 9
        total += before * width if before != width else 0
        before = width
    return 64 * total


def test_arithmetic_of_a_network_is_that_of_its_convolutions():
    count = count_network(TINY)
    each = convolutions(TINY)
    stem = 64 * 3 * 2 * 9  # whose inputs need no gradient
    assert flops(count, "encoder forward") == 2 * 4 * each
    assert flops(count, "encoder backward") == 2 * 4 * (2 * each - stem)
    assert flops(count, "classifier") == 3 * 2 * 4 * 16 * 5
    assert (count.positions, count.width) == (64, 16)
    assert flops(count, "optimiser") == 0


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "filled"),
    [(16, 8, 1, 1), (12, 20, 1, 16 / 12 * 24 / 20), (3, 12, 1, 16 / 12), (12, 12, 12, 1), (8, 10, 2, 1)],
)
def test_channels_of_a_convolution_fill_blocks_of_eight_but_those_of_images_and_groups(inputs, outputs, groups, filled):
    recorder = Recorder()
    with torch.device("meta"), recorder:
        convolution = torch.nn.Conv2d(inputs, outputs, 3, groups=groups)
        convolution(torch.empty(2, inputs, 5, 5, requires_grad=True)).sum().backward()
    found = {work.kind: work for work in recorder.works if work.kind in ("conv", "conv_backward")}
    assert set(found) == {"conv", "conv_backward"}
    for work in found.values():
        assert work.filled == pytest.approx(filled)
        counted_in = [amount for name, amount in features(work).items() if name.startswith(f"{work.kind}@")]
        assert sum(counted_in) == pytest.approx(work.flops * filled)


def test_a_dense_form_classifies_every_position_and_a_teacher_only_looks():
    plain, dense = count_network(TINY), count_network(replace(TINY, dense=True, teacher=True))
    assert flops(dense, "classifier") == 64 * flops(plain, "classifier")
    assert flops(dense, "teacher") == 2 * 4 * (convolutions(TINY) + 64 * 16 * 5)
    assert flops(dense, "encoder backward") == flops(plain, "encoder backward")
    assert plain.teacher_bytes < dense.teacher_bytes < dense.saved_bytes


def test_parameters_and_what_the_optimiser_keeps():
    network = TINY.build("cpu")
    numbers = sum(p.numel() for p in network.parameters())
    count = count_network(TINY)
    assert count.parameters == numbers
    assert count.buffers == 2 * sum(count.norms)
    assert count.state_bytes == 4 * numbers  # momentum
    largest = max(p.numel() for p in network.parameters())
    assert count.update_bytes == 4 * (numbers + largest)  # gradients, and one with its decay added; all else in place
    adam = count_network(replace(TINY, optimizer=AdamW()))
    assert adam.state_bytes == 8 * numbers + 4 * len(list(network.parameters()))  # two moments, and counts of steps


def test_bytes_and_memory_of_a_product():
    recorder = Recorder()
    with recorder:
        a, b = torch.empty(3, 5, device="meta"), torch.empty(5, 7, device="meta")
        c = a @ b
        assert recorder.live == 4 * (15 + 35 + 21)
        del a, b
        d = c[0].relu_()
    assert (recorder.live, recorder.peak) == (4 * 21, 4 * 71)
    product, relu = recorder.works
    assert (product.kind, product.flops, product.bytes) == ("matmul", 2 * 3 * 5 * 7, 4 * (15 + 35 + 21))
    assert (relu.kind, relu.flops, relu.bytes) == ("move", 0, 2 * 4 * 7)
    assert d.shape == (7,)


@pytest.mark.parametrize(("b", "k", "n"), [(8, 5, 20), (64, 10, 4000), (32, 300, 1500)])
@pytest.mark.parametrize("taught", [False, True])
def test_interpolation_multiplies_as_often_as_the_op_does(b, k, n, taught, generator):
    logits = torch.randn(b, k, generator=generator, requires_grad=True)
    teacher = torch.randn(b, k, generator=generator) if taught else None
    labels, weights = torch.randint(k, (b,), generator=generator), dirichlet(n, b, 1.0, generator=generator)
    with FlopCounterMode(display=False) as counter:
        mixed_cross_entropy(logits, labels, weights, teacher_logits=teacher, gamma=0.5).backward()
    problem = TupleProblem(MultiMix(n), b, k, taught=taught)
    assert counter.get_total_flops() == problem.flops
    assert sum(work.flops for work in tuple_works(problem)) == problem.flops


def test_dense_interpolation_multiplies_at_every_position(generator):
    b, r, k, n = 8, 6, 5, 3000
    logits = torch.randn(b, r, k, generator=generator, requires_grad=True)
    weights, attention = dirichlet(n, b, 1.0, generator=generator), torch.rand(b, r, generator=generator)
    with FlopCounterMode(display=False) as counter:
        dense_mixed_cross_entropy(logits, torch.randint(k, (b,), generator=generator), weights, attention).backward()
    assert counter.get_total_flops() == TupleProblem(DenseMultiMix(n), b, k, positions=r).flops == 2 * 3 * r * n * b * k


def test_as_many_weights_are_drawn_as_enter_tuples():
    assert TupleProblem(MultiMix(1000), 64, 10).drawn == 64_000
    assert TupleProblem(MultiMix(1000, tuple_length=4), 64, 10).drawn == 4000
    assert TupleProblem(DenseMultiMix(100), 64, 10, positions=16).drawn == 16 * 6400
    assert TupleProblem(DenseMultiMix(100, shared=True), 64, 10, positions=16).drawn == 6400


@pytest.mark.parametrize(
    ("settings", "share", "logarithmic"),
    [
        ({"alpha": 1.5}, 0.0, False),
        ({"alpha": (0.5, 2.0)}, 1 / 3, False),
        ({"alpha": (0.5, 2.0), "spread": "log-uniform"}, 0.5, False),
        ({"effective": 2.0}, 1.0, True),
        ({"effective": 200.0}, 0.0, False),  # more than there are: alpha = 1
    ],
)
def test_low_concentrations_cost_more_draws(settings, share, logarithmic):
    works = {w.kind: w for w in tuple_works(TupleProblem(MultiMix(1000, **settings), 64, 10)) if w.part == "draw"}
    assert ("draw_low" in works) == (share > 0)
    if share:
        assert works["draw_low"].bytes == pytest.approx(share * works["draw"].bytes, abs=1)
    assert ("draw_log" in works) == logarithmic


def test_forms_of_methods():
    both = Alternate((SelfDistilled(MultiMix(7)), Mixup()), (0.25, 0.75))
    (first, tuples), (second, pairs) = forms(both)
    assert (first, second) == (0.25, 0.75)
    assert (tuples.teacher, tuples.tuples.tuples, tuples.dense) == (True, 7, False)
    assert (pairs.teacher, pairs.tuples, pairs.mixes) == (False, None, True)
    assert forms(with_tuples(both, 9))[0][1].tuples.tuples == 9
    assert forms(SelfDistilled(DenseMultiMix()))[0][1].dense


def test_wrong_methods_and_models_are_named():
    with pytest.raises(ValueError, match=r"method must be erm, .* got puzzlemix"):
        forms(PuzzleMix())
    with pytest.raises(ValueError, match="tuples are not drawn by erm, got 5"):
        with_tuples(ERM(), 5)
    with pytest.raises(ValueError, match="tuples must be at least 1, got 0"):
        with_tuples(MultiMix(), 0)
    with pytest.raises(ValueError, match="name must be a known model, got 'preact'"):
        count_network(Subject("preact", 5, (3, 8, 8), 4))


def test_a_counted_case_runs_on_the_cpu():
    case = counted("product", lambda device: lambda: torch.ones(2, 3, device=device) @ torch.ones(3, 4, device=device))
    assert [work.flops for work in case.works if work.flops] == [2 * 2 * 3 * 4]
    assert torch.equal(case.call(), torch.full((2, 4), 3.0))
