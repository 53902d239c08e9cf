"""The fused form: chunks, weights drawn inside, memory, second derivatives, compilation."""

from dataclasses import replace

import pytest
import torch

from multimix import ops
from multimix.ops import _fused
from ops.samples import Sample, sample, true_gradient, truth

N = 29
CHUNKS = [1, 7, N, N + 1]
KINDS = [(None, False), (3, False), (3, True)]


@pytest.fixture(params=["many tuples", "many classes"])
def sizes_of(request, monkeypatch) -> str:
    """Both ways of attention and of probabilities into the loss, between which sizes decide."""
    monkeypatch.setattr(_fused, "scaling_pays", lambda b, k: request.param == "many tuples")
    monkeypatch.setattr(_fused, "gram_pays", lambda b, k: request.param == "many classes")
    return request.param


@pytest.mark.usefixtures("sizes_of")
@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize(("r", "shared"), KINDS)
def test_chunks_of_any_size_add_up_to_the_loop(r, shared, soft, taught, balanced, chunk):
    s = sample(11, N, 5, r=r, shared=shared, soft=soft, taught=taught)
    assert float(s.loss(impl="fused", chunk=chunk)) == pytest.approx(truth(s), rel=1e-10)
    ours = s.gradient(-1.7, impl="fused", chunk=chunk, balanced=balanced)
    torch.testing.assert_close(ours, -1.7 * true_gradient(s, balanced=balanced), rtol=1e-8, atol=1e-12)


@pytest.mark.usefixtures("sizes_of")
@pytest.mark.parametrize("chunk", [4, N])
def test_tuples_without_attention_keep_their_weights(chunk):
    s = sample(11, N, 5, r=3, taught=True)
    s.attention[1:, 1] = 0
    s.weights[1, :3, 0] = 0
    s.weights.div_(s.weights.sum(-1, keepdim=True))
    assert float(s.loss(impl="fused", chunk=chunk)) == pytest.approx(truth(s), rel=1e-10)
    torch.testing.assert_close(s.gradient(impl="fused", chunk=chunk), true_gradient(s), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("numbers", [1, 40, 10**6])
@pytest.mark.parametrize("shared", [False, True])
def test_however_many_positions_go_together(shared, numbers, monkeypatch, device):
    """A GPU takes many at a time, a CPU few."""
    monkeypatch.setattr(_fused, "_NUMBERS", {"cpu": numbers, "cuda": numbers})
    s = sample(4, 9, 5, r=6, shared=shared, taught=True)
    here = s.on(device)
    assert float(here.loss(impl="fused", balanced=True)) == pytest.approx(truth(s), rel=1e-10)
    ours = here.gradient(0.3, impl="fused", balanced=True).cpu()
    torch.testing.assert_close(ours, 0.3 * true_gradient(s, balanced=True), rtol=1e-8, atol=1e-12)


def lazily(s: Sample, weights: torch.Tensor) -> Sample:
    """Return the sample with its weights handed out row by row, in the order in which a chunked loop asks."""
    rows = iter(weights.reshape(-1, weights.shape[-1]))
    sets = len(weights) if weights.ndim == 3 else None
    draw = lambda count: torch.stack([next(rows) for _ in range(count)])  # noqa: E731
    return replace(s, weights=ops.LazyWeights(weights.shape[-2], draw, sets))


@pytest.mark.parametrize("impl", ["plain", "commuted", "fused"])
@pytest.mark.parametrize(("r", "shared"), KINDS)
def test_weights_may_be_drawn_by_the_loss(r, shared, impl):
    s = sample(11, N, 5, r=r, shared=shared, taught=True)
    drawn = lazily(s, s.weights)
    assert float(drawn.loss(impl=impl)) == pytest.approx(truth(s), rel=1e-10)
    torch.testing.assert_close(lazily(s, s.weights).gradient(impl=impl), true_gradient(s), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_loss_that_draws_in_chunks_asks_for_every_tuple_once(chunk):
    asked: list[int] = []

    def draw(rows: int) -> torch.Tensor:
        asked.append(rows)
        return torch.full((rows, 11), 1 / 11, dtype=torch.float64)

    for r, sets, count in ((None, None, N), (3, None, N), (3, 3, 3 * N)):
        s = sample(11, N, 5, r=r)
        asked.clear()
        replace(s, weights=ops.LazyWeights(N, draw, sets)).loss(impl="fused", chunk=chunk)
        assert sum(asked) == count
        assert max(asked) <= chunk * (sets or 1)


@pytest.mark.parametrize("r", [None, 2])
def test_memory_does_not_grow_with_the_tuples(r, device, cost):
    b, generator = 32, torch.Generator(device).manual_seed(0)
    s = sample(b, 1, 10, r=r, dtype=torch.float32).on(device)
    s.logits.requires_grad_()
    draw = lambda rows: ops.dirichlet(rows, b, 0.3, generator=generator, device=device)  # noqa: E731

    def peak(n: int) -> int:
        call = lambda: replace(s, weights=ops.LazyWeights(n, draw, r)).loss(chunk=2000).backward()  # noqa: E731
        call()
        return cost(call, device).peak_bytes

    few, many = peak(5_000), peak(100_000)
    assert many <= 1.1 * few
    assert many < 100_000 * b * 4 * (r or 1) / 5  # of what the weights alone would take


@pytest.mark.parametrize("r", [None, 3])
def test_hard_labels_never_become_one_hot_tuples(r, cost):
    """Of n x k numbers there are predictions and what is made of them in place: two sets, not four."""
    b, n, k = 4, 1500, 150
    s = sample(b, n, k, r=r, shared=True, dtype=torch.float32)
    logits = s.logits.requires_grad_()
    peak = cost(lambda: replace(s, logits=logits).loss(impl="fused").backward(), torch.device("cpu")).peak_bytes
    assert peak < 3.0 * (r or 1) * n * k * 4 + 5 * (r or 1) * n * b * 4


@pytest.mark.parametrize(("r", "shared"), KINDS)
def test_second_derivatives_are_those_of_the_plain_form(r, shared):
    s = sample(5, 7, 3, r=r, shared=shared, taught=True)
    direction = torch.randn(s.logits.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    products = []
    for impl in ("plain", "fused"):
        logits = s.logits.clone().requires_grad_()
        loss = replace(s, logits=logits).loss(impl=impl)
        (gradient,) = torch.autograd.grad(-1.3 * loss, logits, create_graph=True)
        products.append(torch.autograd.grad((gradient * direction).sum(), logits)[0])
    torch.testing.assert_close(*products, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("options", [{}, {"chunk": 3}])
def test_only_weights_that_are_gone_have_no_second_derivative(options):
    s = sample(5, 7, 3)
    s.logits.requires_grad_()
    lazy = lazily(s, s.weights)
    loss = lazy.loss(impl="fused", **options)
    if not options:
        assert torch.autograd.grad(loss, s.logits, create_graph=True)[0].requires_grad
        return
    with pytest.raises(RuntimeError, match="no second derivative for weights that are gone; use impl='commuted'"):
        torch.autograd.grad(loss, s.logits, create_graph=True)


OLD = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14),
    reason="older torch, 2.6 for one, breaks the graph at this form",
)


@pytest.mark.compiles
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch 2.4 warns of itself
@pytest.mark.parametrize("impl", ["auto", pytest.param("fused", marks=OLD)])
@pytest.mark.parametrize("r", [None, 3])
def test_it_compiles_without_a_break(r, impl):
    s = sample(11, N, 5, r=r, taught=True, dtype=torch.float32)
    torch.compiler.reset()
    loss = torch.compile(lambda logits: s.loss(logits, impl=impl, balanced=True), fullgraph=True, backend="aot_eager")
    logits = s.logits.clone().requires_grad_()
    loss(logits).backward()
    torch.testing.assert_close(logits.grad, s.gradient(impl=impl, balanced=True), rtol=1e-4, atol=1e-6)


def test_auto_goes_by_who_wants_a_gradient(monkeypatch):
    taken: list[int] = []
    compare = _fused._compare
    monkeypatch.setattr(_fused, "_compare", lambda *args: taken.append(1) or compare(*args))
    s = sample(7, 13, 5)
    s.loss()
    lazily(s, s.weights).loss()
    sample(7, 13, 5, r=2).loss()
    assert len(taken) == 3
    replace(s, weights=s.weights.clone().requires_grad_()).loss()
    assert len(taken) == 3
