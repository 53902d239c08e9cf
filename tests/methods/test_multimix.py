"""MultiMix and Dense MultiMix against the naive network: mix the embeddings, classify, soft cross-entropy."""

import pytest
import torch

import references
import toy
from methods.shared import labels_of, same_gradients
from multimix.methods import DenseMultiMix, MultiMix
from multimix.names import method_named
from multimix.ops import Gather
from multimix.protocols import Teacher
from toy import seeded

NETWORKS = {
    "images": lambda: (toy.images().double().eval(), (3, 6, 6)),
    "vectors": lambda: (toy.vectors().double(), (8,)),
    "no-head": lambda: (toy.vectors(affine=False).double(), (8,)),
    "bent": lambda: (toy.bent().double(), (8,)),
}
SETTINGS = [
    *({}, {"alpha": 0.05}, {"alpha": (0.5, 2.0)}, {"effective": (1.5, 6.0)}),
    *({"tuple_length": 3}, {"tuple_length": 1}),
]
DENSE_SETTINGS = [
    {},
    {"shared": True},
    {"activation": "softmax"},
    {"query": "uniform", "tuple_length": 3},
    {"query": "cam"},
    {"query": "cam", "activation": "softmax", "shared": True, "alpha": (0.5, 2.0)},
]


def truth_of(method, network, inputs, probabilities, told=None):
    """The loss of the naive network, by the weights that the method draws and the attention it should have."""
    features = network.embed(inputs)
    b, r, _ = features.shape
    if isinstance(method, MultiMix):
        z = network.pool(features)
        weights = method.draw_weights(b, like=z, generator=seeded()).double()
        assert weights.shape == (method.tuples, b)
        return references.network_loss(network.classify, z, probabilities, weights, told and told(None))
    z = torch.stack([network.pool(features[:, j : j + 1]) for j in range(r)], 1)
    drawn = method.weights(b, like=z, generator=seeded(), sets=None if method.shared else r).all().double()
    assert drawn.shape == (1 if method.shared else r, method.tuples, b)[-drawn.ndim :]
    a = references.attention(z, method.query, method.activation, probabilities @ network.classifier.weight)
    a = a.detach() if method.detach else a
    return references.dense_network_loss(
        network.classify, z, probabilities, drawn.expand(r, -1, -1), a, told and told(r)
    )


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_multimix_equals_the_naive_network(name, settings, soft, taught):
    network, shape = NETWORKS[name]()
    inputs, targets = toy.batch(7, *shape, dtype=torch.float64)
    probabilities, method = labels_of(targets, soft=soft), MultiMix(13, balanced=False, **settings)
    teacher, told = _teacher(name, shape) if taught else (None, None)
    ours = method(network, inputs, probabilities if soft else targets, generator=seeded(), teacher=teacher).total
    same_gradients(ours, truth_of(method, network, inputs, probabilities, told), network.parameters())


@pytest.mark.parametrize("settings", [{}, {"balanced": True}, {"balanced": False}], ids=str)
def test_by_default_the_loss_is_that_of_the_equation_and_its_gradient_is_balanced(settings):
    network, (logits, targets) = toy.identity(5).double(), toy.batch(7, 5, dtype=torch.float64)
    method = MultiMix(13, **settings)
    total = method(network, logits.requires_grad_(), targets, generator=seeded()).total
    problem = logits, targets, method.draw_weights(7, like=logits, generator=seeded())
    assert total.item() == pytest.approx(references.mixed_cross_entropy(*problem), rel=1e-6)
    truth = references.mixed_gradient(*problem, balanced=settings.get("balanced", True))
    torch.testing.assert_close(torch.autograd.grad(total, logits)[0], truth, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("settings", DENSE_SETTINGS, ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_dense_multimix_equals_the_naive_network(affine, settings, soft, taught):
    if settings.get("query") == "cam" and not affine:
        settings = settings | {"query": "gap"}
    network = toy.images(affine=affine).double().eval()
    inputs, targets = toy.batch(5, 3, 4, 6, dtype=torch.float64)
    probabilities, method = labels_of(targets, soft=soft), DenseMultiMix(4, **settings)
    teacher, told = _teacher("images", (3, 4, 6), 5) if taught else (None, None)
    ours = method(network, inputs, probabilities if soft else targets, generator=seeded(), teacher=teacher).total
    same_gradients(ours, truth_of(method, network, inputs, probabilities, told), network.parameters())


def _teacher(name, shape, b=7):
    """Another network with another view; and what it embeds of it, pooled (None) or at r positions."""
    network = NETWORKS[name]()[0]
    with torch.no_grad():
        for seed, parameter in enumerate(network.parameters()):
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=seeded(seed), dtype=torch.float64))
    view = toy.batch(b, *shape, seed=9, dtype=torch.float64)[0]
    features = network.embed(view)
    return Teacher(network, view, 0.3), lambda r: (network.classify, features if r else network.pool(features), 0.3)


@pytest.mark.parametrize("query", ["gap", "cam"])
@pytest.mark.parametrize("activation", ["relu", "softmax"])
def test_attention_that_is_not_detached_gets_its_gradient(query, activation):
    network = toy.images().double().eval()
    inputs, targets = toy.batch(5, 3, 4, 6, dtype=torch.float64)
    methods = [DenseMultiMix(4, query=query, activation=activation, detach=detach) for detach in (False, True)]
    ours, without = (method(network, inputs, targets, generator=seeded()).total for method in methods)
    truth = truth_of(methods[0], network, inputs, labels_of(targets, soft=False))
    same_gradients(ours, truth, network.parameters())
    torch.testing.assert_close(without, ours)
    leaves = [network.blocks[1][0].weight, network.classifier.weight]
    for leaf, changes in zip(leaves, (True, query == "cam"), strict=True):
        one, other = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in (ours, without))
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-9) is not changes


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("cut", [0, 2])
def test_maps_without_any_attention_do_no_harm(detach, cut):
    """Features whose scores are zero for some images, or everywhere."""
    network = toy.Toy(torch.nn.Identity(), width=3, classes=5)
    generator = seeded(1)
    features = torch.randn(6, 4, 3, generator=generator)
    features[cut:] = 0
    features.requires_grad_()
    targets = torch.randint(5, (6,), generator=generator)
    total = DenseMultiMix(31, detach=detach, balanced=True)(network, features, targets, generator=generator).total
    total.backward()
    assert total.isfinite()
    assert features.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in network.parameters())


class Normed(toy.Toy):
    """Normalises when it pools, so that a position as it is would be foreign to its classifier."""

    def pool(self, features):
        return torch.nn.functional.normalize(features.mean(1), dim=-1)


def test_positions_are_pooled_each_by_itself():
    network = Normed(width=6, classes=5).double()
    maps, targets = toy.batch(5, 4, 6, dtype=torch.float64)
    method = DenseMultiMix(4)
    ours = method(network, maps, targets, generator=seeded()).total
    same_gradients(ours, truth_of(method, network, maps, labels_of(targets, soft=False)), network.parameters())


def test_a_convolution_can_be_the_head():
    """Its weights (k, d, 1, 1) are the class queries as well."""
    linear = toy.images().eval()
    inputs, targets = toy.batch(7, 3, 6, 6)
    convolution = torch.nn.Conv2d(6, 5, 1)
    with torch.no_grad():
        convolution.weight.copy_(linear.classifier.weight[..., None, None])
    method = DenseMultiMix(13, query="cam")
    expected = method(linear, inputs, targets, generator=seeded()).total

    class Convolved(type(linear)):
        head = convolution

    linear.__class__ = Convolved
    torch.testing.assert_close(method(linear, inputs, targets, generator=seeded()).total, expected)


@pytest.mark.parametrize("impl", ["plain", "commuted", "fused"])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("method", [MultiMix, DenseMultiMix])
def test_the_implementation_changes_nothing(method, balanced, impl):
    network = toy.images().double().eval()
    inputs, targets = toy.batch(7, 3, 6, 6, dtype=torch.float64)
    teacher, _ = _teacher("images", (3, 6, 6))
    totals = [
        method(13, balanced=balanced, impl=how)(network, inputs, targets, generator=seeded(), teacher=teacher).total
        for how in (impl, "auto")
    ]
    same_gradients(*totals, network.parameters())


@pytest.mark.parametrize("method", [MultiMix, DenseMultiMix])
def test_one_process_has_all_examples_on_its_device(method):
    network = toy.images()
    network.gather = Gather()
    found = []
    for over in ("all", "device"):
        generator = seeded()
        total = method(13, tuples_over=over)(network, *toy.batch(7, 3, 6, 6), generator=generator).total
        found.append([total, *torch.autograd.grad(total, list(network.parameters())), generator.get_state()])
    assert all(map(torch.equal, *found))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        *((method, {"impl": impl}) for method in (MultiMix, DenseMultiMix) for impl in ("commuted", "fused")),
        (DenseMultiMix, {"query": "cam"}),
    ],
)
def test_what_needs_an_affine_head_says_so(method, settings):
    network, ((name, value),) = toy.images(affine=False).eval(), settings.items()
    with pytest.raises(ValueError, match=f"{name}='{value}' needs a network with an affine head"):
        method(13, **settings)(network, *toy.batch(7, 3, 6, 6))
    assert method(13, impl="plain")(network, *toy.batch(7, 3, 6, 6)).total.isfinite()


@pytest.mark.parametrize("method", [MultiMix(300_000), DenseMultiMix(50_000), DenseMultiMix(100_000, shared=True)])
def test_a_myriad_of_tuples_fits(method, device, cost):
    """In less memory than their weights alone would take, and with no other result than few of them have."""
    network, (inputs, targets) = toy.images().to(device).eval(), toy.batch(16, 3, 4, 6, device=device)
    losses = []

    def step() -> None:
        losses.append(method(network, inputs, targets, generator=torch.Generator(device).manual_seed(0)).total)
        losses[-1].backward()

    step()
    if device.type == "cpu":  # where chunks are small
        sets = network.embed(inputs).shape[1] if isinstance(method, DenseMultiMix) and not method.shared else 1
        assert cost(step, device).peak_bytes < method.tuples * sets * 16 * 4
    few = type(method)(5000)(network, inputs, targets, generator=torch.Generator(device).manual_seed(1)).total
    assert float(losses[0].detach()) == pytest.approx(float(few.detach()), rel=0.05)


def test_the_recommended_form_is_that_of_the_name():
    assert MultiMix.recommended() == method_named("multimix-recommended") == MultiMix()
