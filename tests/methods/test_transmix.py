"""TransMix and SMMix against plain loops, and on vision transformers."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

import cases
import toy
from methods.shared import problem
from multimix.distill import SelfDistilled
from multimix.methods import Alternate, Chain, CutMix, Mixup, MultiMix, SMMix, TransMix
from multimix.models import adapt, build
from toy import seeded


def left(box, size, attention, share):
    """Lambda of one image, patch by patch."""
    (height, width), (rows, columns) = size, attention.shape
    seen = 0.0
    for row in range(rows):
        for column in range(columns):
            y, x = row * height // rows, column * width // columns
            pasted = box.top <= y < box.bottom and box.left <= x < box.right
            seen += 0.0 if pasted else float(attention[row, column])
    return share * seen / float(attention.sum()) + (1 - share) * (1 - box.area / (height * width))


@pytest.mark.parametrize("shape", [(6, 6), (5, 9), (1, 1)])
@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_labels_weigh_what_is_left_of_area_and_attention(shape, mode, share):
    network, inputs, targets, rows = problem(7, *shape, soft=True)
    drawn = TransMix(attention=share, mode=mode).draw(network, inputs, targets, seeded(4))
    _, attention = network.attention_of(drawn.mix(inputs))
    box = drawn.given["box"] if mode == "batch" else None
    lam = torch.tensor([left(box or drawn.given["boxes"].of(i), shape, attention[i], share) for i in range(7)])
    wanted = lam.double().unsqueeze(1) * rows + (1 - lam.double()).unsqueeze(1) * rows[drawn.partners]
    drawn.predict(network, inputs)
    torch.testing.assert_close(drawn.mix_targets(rows), wanted, rtol=1e-5, atol=1e-6)


def test_a_step_and_the_data_alone_have_the_same_labels():
    network, inputs, targets, _ = problem(7, 6, 6, soft=False)
    mixed, rows = TransMix().mix(inputs, targets, num_classes=5, network=network, generator=seeded(2))
    loss = TransMix()(network, inputs, targets, generator=seeded(2)).total
    torch.testing.assert_close(cross_entropy(network(mixed), rows), loss)
    plain = CutMix()(network, inputs, targets, generator=seeded(2)).total
    torch.testing.assert_close(TransMix(attention=0.0)(network, inputs, targets, generator=seeded(2)).total, plain)


def squares(attention, side):
    """Corners of the squares of least and of most attention, each image by itself."""
    found = []
    for each in attention.tolist():
        places = [(y, x) for y in range(len(each) - side + 1) for x in range(len(each[0]) - side + 1)]
        sums = [sum(each[y + i][x + j] for i in range(side) for j in range(side)) for y, x in places]
        found.append((places[sums.index(min(sums))], places[sums.index(max(sums))]))
    return found


@pytest.mark.parametrize(("shape", "sides"), [((6, 6), (0.5, 0.7)), ((8, 16), (0.3, 0.8)), ((6, 6), (1.0, 1.0))])
def test_squares_of_attention_are_pasted_and_compared(shape, sides):
    network, inputs, targets, _ = problem(5, *shape, soft=False)
    method = SMMix(sides, fine=0.5, consistency=2.0)
    drawn = method.draw(network, inputs, targets, seeded(3))
    _, attention = network.attention_of(inputs, "patches")
    (rows, columns), side, partners = attention.shape[1:], drawn.given["side"], drawn.partners.tolist()
    assert max(int(sides[0] * rows), 1) <= side <= int(sides[1] * rows)
    corners, patch = squares(attention, side), shape[0] // rows
    mixed, masks = inputs.clone(), torch.zeros(5, rows, columns, dtype=torch.bool)
    for i, partner in enumerate(partners):
        (y, x), (v, u) = corners[i][0], corners[partner][1]
        n = side * patch
        theirs = inputs[partner, :, v * patch : v * patch + n, u * patch : u * patch + n]
        mixed[i, :, y * patch : y * patch + n, x * patch : x * patch + n] = theirs
        masks[i, y : y + side, x : x + side] = True
    assert torch.equal(drawn.mix(inputs), mixed)

    lam, logits, features = 1 - side**2 / (rows * columns), network(mixed), network.embed(mixed)
    fine = []
    for which, classes in ((~masks, targets), (masks, targets[partners])):
        parts = [each[mask.flatten()].mean(0) for each, mask in zip(features, which, strict=True)]
        fine += [cross_entropy(network.classify(torch.stack(parts)), classes)] * bool(which.any())
    clean = network(inputs)
    towards = softmax(lam * clean + (1 - lam) * clean[partners], 1).detach()
    labels = lam * cross_entropy(logits, targets) + (1 - lam) * cross_entropy(logits, targets[partners])
    total = labels + 0.5 * sum(fine) / len(fine) + 2.0 * kl_div(log_softmax(logits, 1), towards, reduction="batchmean")
    losses = method(network, inputs, targets, generator=seeded(3))
    torch.testing.assert_close(losses.total - total, 2.0 * -(towards * towards.log()).sum(1).mean())
    ours, theirs = (torch.autograd.grad(loss, list(network.parameters())) for loss in (losses.total, total))
    torch.testing.assert_close(ours, theirs)


def test_the_look_ahead_leaves_statistics_alone():
    network, inputs, targets = cases.images()
    SMMix()(network, inputs, targets)
    assert {int(m.num_batches_tracked) for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {1}
    assert network.training


def vit(**settings):
    pytest.importorskip("timm")
    import timm

    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return adapt(timm.create_model("vit_tiny_patch16_224", num_classes=5, **sizes | settings))


ON_VITS = [
    TransMix(mode="elem"),
    SMMix(),
    SelfDistilled(TransMix()),
    SelfDistilled(SMMix(), teacher="mix"),
    Chain(TransMix(), MultiMix(cases.TUPLES)),
    Chain(SMMix(), Mixup()),
    Alternate((TransMix(), Mixup(0.8)), (0.8, 0.2)),
]


@pytest.mark.parametrize(
    "method", ON_VITS, ids=lambda m: f"{m.name}-{getattr(m, 'method', getattr(m, 'first', m)).name}"
)
def test_vision_transformers_train_in_parts_as_in_whole_and_copies_as_they_do(method):
    network, (inputs, targets) = vit().train(), toy.batch(6, 3, 32, 32)
    steps = []
    for copied in (False, True):
        twin, own = (copy.deepcopy(network), copy.deepcopy(method)) if copied else (network, copy.deepcopy(method))
        for seed in (0, 1):  # gradients add up
            cases.run(own, twin, inputs, targets, seed).total.backward()
        steps.append([p.grad for p in twin.parameters()])
        assert cases.hooks(own, twin) == 0
    torch.testing.assert_close(*steps)
    assert all(grad is not None and grad.isfinite().all() for grad in steps[0])


@pytest.mark.compiles
@pytest.mark.filterwarnings("ignore:::torch")
@pytest.mark.parametrize("method", [TransMix(), SMMix()], ids=lambda m: m.name)
def test_a_compiled_step_is_the_step(method):
    network, batch = vit().double(), toy.batch(4, 3, 32, 32, dtype=torch.float64)
    network(batch[0])
    compiled = torch.compile(lambda x, y, g: method(network, x, y, generator=g).total, backend="eager")
    for seed in (0, 1):
        ours = compiled(*batch, seeded(seed))
        torch.testing.assert_close(ours, method(network, *batch, generator=seeded(seed)).total)


@pytest.mark.bad_input
def test_what_has_no_attention_is_refused_by_one_line():
    inputs, targets = toy.batch(4, 3, 32, 32)
    for method in (TransMix(), SMMix()):
        with pytest.raises(ValueError, match=r"^network must be a vision transformer .* got PreActResNet$"):
            method(build("preact_resnet18", num_classes=5, width=4), inputs, targets)
        with pytest.raises(ValueError, match=r"^network must be given: \w+ mixes by what it makes"):
            method.mix(inputs, targets, num_classes=5)
    with pytest.raises(ValueError, match=r"^network: VisionTransformer has no class token that its head reads"):
        TransMix()(vit(global_pool="avg"), inputs, targets)
    with pytest.raises(ValueError, match=r"^sides must be .low, high. with low <= high"):
        SMMix((0.7, 0.2))
