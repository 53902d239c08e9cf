"""What draws and small ops refuse, by name."""

import numpy as np
import pytest
import torch

from multimix import ops

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


@pytest.mark.bad_input
@pytest.mark.parametrize(("draw", "given"), [DRAWS[name] for name in DRAWS if name != "lazy"])
@pytest.mark.parametrize("generator", [7, torch.Generator], ids=["seed", "class"])
def test_what_is_no_generator_is_refused(generator, draw, given):
    draw(**given, generator=torch.Generator().manual_seed(0))
    with pytest.raises(TypeError, match=r"^generator must be a torch.Generator or None, got"):
        draw(**given, generator=generator)


@pytest.mark.bad_input
@pytest.mark.parametrize(("name", "argument"), [case for case in CASES if case[1] in SIZES])
def test_sizes_are_whole_numbers_and_large_enough(name, argument):
    draw, given = DRAWS[name]
    with pytest.raises(TypeError, match=f"^{argument} must be an integer, got 2.5"):
        draw(**{**given, argument: 2.5})
    least = 0 if name in MAY_BE_EMPTY else 1
    with pytest.raises(ValueError, match=f"^{argument} must be at least {least}, got {least - 1}"):
        draw(**{**given, argument: least - 1})
    if least == 0:
        draw(**{**given, argument: 0})


@pytest.mark.bad_input
@pytest.mark.parametrize("value", ["0.5", None, True], ids=str)
@pytest.mark.parametrize(("name", "argument"), [case for case in CASES if case[1] in NUMBERS])
def test_numbers_are_numbers(name, argument, value):
    draw, given = DRAWS[name]
    with pytest.raises(TypeError, match=f"^{argument} must be a"):
        draw(**{**given, argument: value})


def test_sizes_may_be_whole_numbers_of_numpy():
    assert ops.dirichlet(np.int64(3), np.int32(4), 1.0).shape == (3, 4)


@pytest.mark.bad_input
@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, "float32"], ids=str)
def test_weights_are_floating_point(dtype):
    with pytest.raises(TypeError, match=r"^dtype must be floating-point, got"):
        ops.dirichlet(3, 4, 1.0, dtype=dtype)


@pytest.mark.bad_input
@pytest.mark.parametrize("alpha", [torch.ones(4), torch.ones(3, 1), torch.zeros(3), torch.full((3,), torch.nan)])
def test_impossible_tensors_of_concentrations_are_refused(alpha):
    with pytest.raises(ValueError, match=r"^alpha must be"):
        ops.dirichlet(3, 4, alpha)


HALVES, QUARTERS = torch.full((4,), 0.5), torch.full((2, 4), 0.25)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("error", "act", "message"),
    [
        (ValueError, lambda: ops.interpolate(HALVES, torch.ones(4, 2)), r"weights must have shape \(n, m\), got"),
        (
            ValueError,
            lambda: ops.interpolate(QUARTERS, torch.ones(3, 2)),
            "weights has 4 columns for a mini-batch of 3",
        ),
        (TypeError, lambda: ops.interpolate(QUARTERS, torch.ones(4, 3).byte()), "values must be floating-point"),
        (
            ValueError,
            lambda: ops.scatter_tuples(QUARTERS, 3),
            "tuple_length must not exceed the mini-batch of 3, got 4",
        ),
        (ValueError, lambda: ops.draw_box(8, 8, 1.5), r"lam must lie in \[0, 1\], got 1.5"),
        (TypeError, lambda: ops.draw_between((1.0, 2.0, 3.0), 2), "bounds must be a number or a range"),
        (ValueError, lambda: ops.soft_cross_entropy(QUARTERS, HALVES), "targets must have the shape of logits"),
        (TypeError, lambda: ops.soft_cross_entropy(QUARTERS.long(), QUARTERS), "logits must be floating-point"),
        (TypeError, lambda: ops.check_batch(QUARTERS.long(), HALVES), "inputs must be floating-point"),
    ],
)
def test_the_argument_is_named(error, act, message):
    with pytest.raises(error, match=f"^{message}"):
        act()
