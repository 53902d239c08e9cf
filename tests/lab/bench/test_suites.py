"""Suites are compared with as many passes as they cannot do without; every method has its turn in a training step."""

import pytest
import torch

from multimix.lab.bench import measure, step, suites
from multimix.lab.evaluate import SUITES, CorruptionSettings
from multimix.methods import METHODS

CPU = torch.device("cpu")


class Counting(torch.nn.Module):
    """Counts the images that pass, with and without a gradient of theirs."""

    def __init__(self):
        super().__init__()
        self.forward_only = self.with_gradient = 0

    def forward(self, inputs):
        if inputs.requires_grad:
            self.with_gradient += len(inputs)
        else:
            self.forward_only += len(inputs)
        return inputs.flatten(1)


def test_a_part_of_a_pass_takes_that_part_of_each_batch():
    network = Counting()
    suites.bare_passes(network, [torch.zeros(8, 1, 2, 2), torch.zeros(4, 1, 2, 2)], forward=2.5, gradient=1)
    assert (network.forward_only, network.with_gradient) == (2 * 12 + 4 + 2, 12)
    suites.bare_passes(network, [torch.zeros(8, 1, 2, 2)], forward=0, gradient=0.01)
    assert network.with_gradient == 12 + 2  # two images at least


def test_every_suite_that_needs_no_files_or_method_of_its_own_is_compared(monkeypatch):
    monkeypatch.setattr(suites, "IMAGES", 60)
    makers = suites.suite_comparisons(CPU)
    made = [makers[at]() for at in (0, 1, 2, 3, -2, -1)]
    names = [comparison.name.removeprefix("evaluation, ") for comparison in made]
    assert names == [s.name for s in SUITES if s.name not in ("corruption", "intrusion", "localisation")]
    assert len(makers) == len(made) + len(CorruptionSettings().corruptions)
    assert [comparison.shape["forward"] for comparison in made[:2]] == [1, 1]
    # FGSM and PGD of 4 steps in two norms, and the checks on a sixth of the images
    assert (made[2].shape["forward"], made[2].shape["gradient"]) == pytest.approx((5 + 20 / 60, 10 + 40 / 6), abs=1e-3)
    assert [case.most for case in made[0].cases] == [1.1]
    assert len(measure(made[0], CPU)) == 2


def test_every_method_has_its_turn(monkeypatch):
    asked = []
    monkeypatch.setattr(step, "_engine", lambda method, *_, **__: asked.append(method))
    monkeypatch.setattr(step, "engine_step", lambda engine: int)
    comparison = step._method_comparison(step.random_images(4, 8, classes=2), CPU)
    assert [type(method) for method in asked[: len(METHODS)]] == list(METHODS)
    cases = {case.name: case.most for case in (comparison.baseline, *comparison.cases)}
    assert list(cases) == [*(cls.name for cls in METHODS), "self-distilled multimix", "self-distilled dense-multimix"]
    assert comparison.baseline.name == "erm"
    assert (cases["alignmix"], cases["multimix"], cases["self-distilled multimix"]) == (1.05, 1.02, 1.37)
