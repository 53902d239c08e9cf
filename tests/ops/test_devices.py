"""Devices without float64, Apple's: none is asked for there, and what is wanted in it is brought to the CPU first."""

import copy
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import cases
from multimix import ops
from multimix._modules import fingerprint


class Without64(TorchDispatchMode):
    """Stands in for a device without float64: refuses any such tensor that is no copy on its way to the CPU."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
                raise TypeError(f"Cannot convert a MPS Tensor to float64 dtype, asked for by {function}")
        return result


@pytest.fixture
def narrow(monkeypatch):
    """Let the CPU pass for such a device."""
    widest = ops.widest
    for name, module in list(sys.modules.items()):
        if name.startswith("multimix.") and vars(module).get("widest") is widest:
            monkeypatch.setattr(module, "widest", lambda device: widest(torch.device("mps")))


ON_THE_CPU = ("puzzlemix", "co-mixup")  # methods that solve for their masks on the CPU, in float64


@pytest.mark.parametrize("case", [c for c in cases.CASES if c.name not in ON_THE_CPU], ids=lambda case: case.name)
def test_a_step_asks_for_none(case, narrow):
    if case.name.startswith("mix-") and torch.__version__.startswith("2.4."):
        pytest.skip("torch 2.4 makes no tensor a subclass while such a mode watches")
    network, inputs, targets = cases.images()
    plain = cases.run(case.make(), copy.deepcopy(network), inputs, targets)
    with Without64():
        losses = cases.run(case.make(), network, inputs, targets)
        losses.total.backward()
    assert torch.equal(losses.total, plain.total)


def test_a_sharp_barycentre_is_as_good_without(narrow):
    """By sums in logarithms, where else there is float64."""
    masses = torch.rand(2, 2, 12, 12)
    weights = torch.tensor([0.3, 0.7]).expand(2, 2)
    with Without64():
        ours = ops.barycentre(masses, weights, epsilon=0.004, iterations=20)
    expected = ops.barycentre(masses.double(), weights.double(), epsilon=0.004, iterations=20)
    torch.testing.assert_close(ours.double(), expected, rtol=2e-3, atol=1e-6)


def test_a_fingerprint_is_of_the_devices_own_numbers(narrow):
    network, _, _ = cases.images()
    with Without64():
        assert fingerprint(network).dtype == torch.float32


def test_what_is_solved_on_the_cpu_goes_there_before_it_is_widened():
    """The first thing that becomes of the arguments is a copy to the CPU, of their own dtype."""
    seen = []

    class Moved(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, arguments=(), keywords=None):
            seen.append(function)
            return super().__torch_function__(function, types, arguments, keywords or {})

    def moved(*shape: int) -> torch.Tensor:
        return torch.rand(shape).as_subclass(Moved)

    start = torch.zeros(4, 2, 2, dtype=torch.long)
    for solve in (
        lambda: ops.comix_masks(moved(4, 2, 2), torch.eye(4), start, beta=0.3, gamma=1.0, tau=0.8),
        lambda: ops.solve_ordered_labels(moved(1, 2, 2, 2), moved(1, 1, 2), torch.rand(1, 2, 1)),
    ):
        seen.clear()
        solve()
        assert seen.index(torch.Tensor.cpu) < seen.index(torch.Tensor.double)
