"""Steps of a user's own loop in torch.compile: the same numbers, and as many graphs as docs/training.md says."""

import copy

import pytest
import torch
from torch import nn

import cases
import toy
from multimix.distill import SelfDistilled
from multimix.methods import METHODS, Alternate, Chain, CutMix, DecoupledMixup, DenseMultiMix, Mixup, MultiMix, Ramp
from multimix.models import adapt
from multimix.models._network import StagedNetwork

pytestmark = [pytest.mark.compiles, pytest.mark.filterwarnings("ignore:::torch")]
NEW = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 14)

CASES = {
    **{cls.name: cls(**cases.settings_of(cls) | {"stages": (1,)} if cls.name == "manifold-mixup" else
       cases.settings_of(cls)) for cls in METHODS if not hasattr(cls, "needs_attention")},
    "distilled": SelfDistilled(DenseMultiMix(cases.TUPLES)),
    "alternate": Alternate((CutMix(), Mixup()), (1.0, 0.0)),
    "chain": Chain(CutMix(), Mixup()),
    "decoupled-cutmix": SelfDistilled(DecoupledMixup(CutMix())),
}  # fmt: skip
GRAPHS = {"recursivemix": 3, "chain": 2, "multimix": 3, "dense-multimix": 3, "distilled": 3, "alignmix": 7}
"""Graphs of a step with a generator where that is not one; alignmix and recursivemix have two ways, with some each."""
LEFT = (
    "resizemix",
    "fmix",
    "saliencymix",
    "puzzlemix",
    "stylemix",
    "stylecutmix",
    "opttransmix",
    "automix",
    "alignmix",
)
"""Of the first, the graph is that of cutmix; the last two take longest. They are left to ``make test-all``."""
WHOLE = ("erm", "zeta-mixup", "dense-multimix", "chain")
"""What is a single graph without a break, if no generator is given."""


class Small(StagedNetwork):
    """A convolution and a classifier."""

    def __init__(self) -> None:
        super().__init__(["body"])
        self.body, self.head = nn.Conv2d(3, 6, 3, stride=2), nn.Linear(6, 5)

    def embed(self, inputs):
        return self.body(self.inputs(inputs)).flatten(2).transpose(1, 2)

    def pool(self, features):
        return features.mean(1)

    def classify(self, embeddings):
        return self.head(embeddings)


class Counting:
    """A compiler that runs what it is given, and counts how often it is given something."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph, _):
        self.graphs += 1
        return graph


@pytest.mark.skipif(not NEW, reason="other releases of torch break graphs elsewhere")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.sweep) if name in LEFT else name for name in CASES]
)
def test_a_compiled_step_is_the_step_in_as_many_graphs_as_documented(name):
    torch.compiler.reset()
    network = Small().double()
    batches = [toy.batch(8, 3, 16, 16, seed=seed, dtype=torch.float64) for seed in range(3)]
    backend, (one, other) = Counting(), (copy.deepcopy(CASES[name]) for _ in range(2))
    for method in (one, other):
        if isinstance(method, nn.Module):
            torch.manual_seed(0)
            method.prepare(network)
            method.double()
            method.led = True
    compiled = torch.compile(lambda x, y, g: one(network, x, y, generator=g).total, backend=backend)
    for seed, batch in enumerate(batches):
        steps = []
        for step in (compiled, lambda x, y, g: other(network, x, y, generator=g).total):
            network.zero_grad()
            loss = step(*batch, toy.seeded(seed))
            loss.backward()
            steps.append((loss.detach(), [p.grad for p in network.parameters()]))
        cases.close(*steps)
    assert backend.graphs == GRAPHS.get(name, 1)


@pytest.mark.skipif(not NEW, reason="other releases of torch break graphs elsewhere")
@pytest.mark.parametrize("name", WHOLE)
def test_without_a_generator_some_steps_are_one_graph(name):
    """Tuples of many examples: of few, compiled code draws the same distribution by other numbers."""
    torch.compiler.reset()
    network, batch = adapt(toy.HandWritten(5), encoder="body", head="out"), toy.batch(40, 3, 8, 8)
    method = Chain(Mixup(), MultiMix(cases.TUPLES)) if name == "chain" else CASES[name]
    network(batch[0])

    def step(inputs, targets):
        return method(network, inputs, targets).total

    losses = []
    for run in (step, torch.compile(step, fullgraph=True, backend="eager")):
        torch.manual_seed(0)
        losses.append(run(*batch))
    torch.testing.assert_close(*losses)


@pytest.mark.skipif(not NEW, reason="other releases of torch break graphs elsewhere")
@pytest.mark.parametrize("inner", [Mixup(), CutMix(), MultiMix(cases.TUPLES)], ids=lambda m: m.name)
def test_a_ramp_compiles_each_of_its_methods_once(inner):
    torch.compiler.reset()
    network, backend = Small().double(), Counting()
    method, graphs = Ramp(inner, (0.0, 1.0), ("alpha", 0.2, 2.0)), []
    step = torch.compile(lambda x, y, g: method(network, x, y, generator=g).total, backend=backend, dynamic=False)
    for seed, progress in enumerate((0.0, 1.0, 0.9, 0.8, 0.7)):
        batch = toy.batch(8, 3, 16, 16, seed=seed, dtype=torch.float64)
        method.at(progress)
        torch.testing.assert_close(
            step(*batch, toy.seeded(seed)), method(network, *batch, generator=toy.seeded(seed)).total
        )
        graphs.append(backend.graphs)
    assert graphs[0] == 1
    assert len(set(graphs[1:])) == 1
