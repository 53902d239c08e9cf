"""Sizes, numbers and sources of randomness that every draw refuses by name."""

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
}
WHOLE, NUMBERS = {"n", "m", "b", "height", "width"}, {"alpha", "gamma", "lam", "decay", "bounds"}
CASES = [(name, argument) for name, (_, given) in DRAWS.items() for argument in given]


@pytest.mark.parametrize(("draw", "given"), DRAWS.values(), ids=DRAWS)
def test_all_of_them_draw(draw, given):
    draw(**given, generator=torch.Generator().manual_seed(0))


@pytest.mark.bad_input
@pytest.mark.parametrize(("draw", "given"), DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("generator", [7, "cpu", torch.Generator], ids=["seed", "text", "class"])
def test_what_is_no_generator_is_refused(generator, draw, given):
    with pytest.raises(TypeError, match=r"^generator must be a torch.Generator or None, got"):
        draw(**given, generator=generator)


@pytest.mark.bad_input
@pytest.mark.parametrize("value", [2.5, "3", None, True], ids=str)
@pytest.mark.parametrize(("name", "argument"), [case for case in CASES if case[1] in WHOLE])
def test_sizes_are_whole_numbers(name, argument, value):
    draw, given = DRAWS[name]
    with pytest.raises(TypeError, match=f"^{argument} must be an integer, got {value!r}"):
        draw(**{**given, argument: value})


@pytest.mark.bad_input
@pytest.mark.parametrize(("name", "argument"), [case for case in CASES if case[1] in WHOLE])
def test_sizes_are_not_negative(name, argument):
    draw, given = DRAWS[name]
    with pytest.raises(ValueError, match=f"^{argument} must be at least [01], got -1"):
        draw(**{**given, argument: -1})


@pytest.mark.bad_input
@pytest.mark.parametrize("value", ["0.5", None], ids=str)
@pytest.mark.parametrize(("name", "argument"), [case for case in CASES if case[1] in NUMBERS])
def test_numbers_are_numbers(name, argument, value):
    draw, given = DRAWS[name]
    with pytest.raises(TypeError, match=f"^{argument} must be a"):
        draw(**{**given, argument: value})


def test_sizes_may_be_whole_numbers_of_numpy():
    assert ops.dirichlet(np.int64(3), np.int32(4), 1.0).shape == (3, 4)


@pytest.mark.bad_input
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, "float32"], ids=str)
def test_weights_are_floating_point(dtype):
    with pytest.raises(TypeError, match=r"^dtype must be floating-point, got"):
        ops.dirichlet(3, 4, 1.0, dtype=dtype)


@pytest.mark.bad_input
@pytest.mark.parametrize("sizes", [{"n": 2.5}, {"n": 2, "sets": 1.5}], ids=str)
def test_lazy_weights_are_as_many_as_a_whole_number(sizes):
    name = list(sizes)[-1]
    with pytest.raises(TypeError, match=f"^{name} must be an integer"):
        ops.LazyWeights(draw=lambda rows: torch.ones(rows, 1), **sizes)
