"""FGSM and PGD against a loop in float64 by the equations, closed forms, and what must hold of any attack."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import toy
from multimix.lab.data import seed_of
from multimix.lab.evaluate.adversarial import fgsm, pgd
from multimix.lab.evaluate.adversarial.attacks import Attack, Attacked, Victim, no_attack
from multimix.lab.evaluate.predict import NonFiniteError

STRONG = {"epsilon": 0.06, "step": 0.02, "steps": 7}
LONG = {"epsilon": 0.7, "step": 0.15, "steps": 7}


def of_norm(norm: str) -> dict[str, float]:
    return {"norm": norm, **(STRONG if norm == "linf" else LONG)}


def wrong(network: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return network(pixels).argmax(1) != labels


def losses(network: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return cross_entropy(network(pixels), labels, reduction="none")


def affine(classes: int = 2, seed: int = 0) -> nn.Module:
    """Logits that are affine in 3 x 4 x 4 pixels."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, classes))


def started(image: Tensor, norm: str, epsilon: float, seed: int, restart: int, example: int) -> Tensor:
    """A random point of the ball around one image, in [0, 1]: by the seeds that are promised."""
    generator = torch.Generator().manual_seed(seed_of("example", seed_of("start", seed, restart), example))
    if norm == "linf":
        point = torch.rand(image.shape, generator=generator).double() * 2 - 1
    else:
        direction = torch.randn(image.shape, generator=generator).double()
        radius = float(torch.rand((), generator=generator)) ** (1 / image.numel())
        point = direction / direction.square().sum().sqrt() * radius
    return (image.double() + epsilon * point).clamp(0, 1)


def ascended(network, image, label, start, *, epsilon, step, steps, norm):
    """Madry et al., section 2.1, of one image, in float64, by its cross-entropy."""
    moved = start
    for _ in range(steps):
        leaf = moved.clone().requires_grad_()
        # Twice the same image: see `together`.
        loss = cross_entropy(network(torch.stack([leaf, leaf]))[:1], label[None])
        (gradient,) = torch.autograd.grad(loss, leaf)
        if norm == "linf":
            moved = moved + step * gradient.sign()
            moved = torch.minimum(torch.maximum(moved, image - epsilon), image + epsilon)
        else:
            moved = moved + step * gradient / gradient.square().sum().sqrt()
            length = (moved - image).square().sum().sqrt()
            if length > epsilon:
                moved = image + (moved - image) * epsilon / length
        moved = moved.clamp(0, 1)
    return moved


def double(trained, size: int = 12) -> tuple[nn.Module, Tensor, Tensor]:
    network = toy.images(width=8).double().eval()
    network.load_state_dict({name: value.double() for name, value in trained.network.state_dict().items()})
    return network, trained.pixels[:size].double(), trained.labels[:size]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_is_what_the_equations_say(trained, norm):
    network, pixels, labels = double(trained)
    found = pgd(network, pixels, labels, seed=3, **of_norm(norm))
    for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        start = started(image, norm, of_norm(norm)["epsilon"], 3, 0, i)
        torch.testing.assert_close(found[i], ascended(network, image, label, start, **of_norm(norm)))
    assert wrong(network, found, labels).float().mean() > wrong(network, pixels, labels).float().mean() + 0.3


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fgsm_is_what_the_equations_say(trained, norm):
    network, pixels, labels = double(trained)
    epsilon = of_norm(norm)["epsilon"]
    found = fgsm(network, pixels, labels, epsilon=epsilon, norm=norm)
    one = {"epsilon": epsilon, "step": epsilon, "steps": 1, "norm": norm}
    for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        torch.testing.assert_close(found[i], ascended(network, image, label, image, **one))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_of_restarts_the_first_that_fools_is_kept_and_else_the_worst(trained, norm):
    network, pixels, labels = double(trained)
    weak = {**of_norm(norm), "step": of_norm(norm)["step"] / 2, "steps": 1}
    found = pgd(network, pixels, labels, restarts=4, seed=1, **weak)
    later = 0
    for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        starts = [started(image, norm, weak["epsilon"], 1, restart, i) for restart in range(4)]
        ends = torch.stack([ascended(network, image, label, start, **weak) for start in starts])
        same = label.expand(4)
        fooled, loss = wrong(network, ends, same), losses(network, ends, same)
        chosen = int(fooled.int().argmax()) if fooled.any() else int(loss.argmax())
        later += chosen > 0
        torch.testing.assert_close(found[i], ends[chosen])
    assert later > 4


def test_being_fooled_counts_before_the_margin():
    """With many classes the odds may be worse for an image that is still right than for one that is not."""

    def attacked(margins: list[float], fooled: list[bool], mark: float) -> Attacked:
        return Attacked(torch.full((len(margins), 1), mark), torch.tensor(margins), torch.tensor(fooled), 5)

    kept = attacked([0.5, 0.5, 0.5, 9.0], [False, False, False, True], 1)
    second = attacked([0.1, 0.6, 0.4], [True, False, False], 2)
    kept.keep_worse(torch.tensor([0, 1, 2]), second)
    assert kept.pixels.flatten().tolist() == [2, 2, 1, 1]
    assert kept.fooled.tolist() == [True, False, False, True]
    torch.testing.assert_close(kept.margin, torch.tensor([0.1, 0.6, 0.5, 9.0]))


def test_float32_finds_what_float64_finds(trained):
    network, pixels, labels = double(trained, 60)
    exact = pgd(network, pixels, labels, **STRONG)
    found = pgd(trained.network, pixels.float(), labels, **STRONG)
    assert (found.double() - exact).abs().mean() < 1e-3
    assert (wrong(trained.network, found, labels) != wrong(network, exact, labels)).sum() <= 1


def test_linf_on_an_affine_network_is_the_corner():
    """Of two classes the odds are affine: the worst point moves every pixel against the right class, or to its end."""
    network = affine()
    pixels, labels = torch.rand(9, 3, 4, 4), torch.randint(2, (9,))
    weight = network[1].weight[1] - network[1].weight[0]
    signs = torch.where(labels == 1, -1.0, 1.0).view(-1, 1, 1, 1) * weight.sign().view(3, 4, 4)
    worst = (pixels + 0.2 * signs).clamp(0, 1)
    torch.testing.assert_close(fgsm(network, pixels, labels, epsilon=0.2), worst)
    torch.testing.assert_close(pgd(network, pixels, labels, epsilon=0.2, step=0.05, steps=9), worst)


def test_l2_on_an_affine_network_is_the_normal():
    """Far from 0 and 1 the worst point lies epsilon along the normal of the boundary."""
    network = affine()
    pixels, labels = torch.rand(9, 3, 4, 4) * 0.2 + 0.4, torch.randint(2, (9,))
    weight = network[1].weight[1] - network[1].weight[0]
    normal = (weight / weight.norm()).view(3, 4, 4) * torch.where(labels == 1, -1.0, 1.0).view(-1, 1, 1, 1)
    found = fgsm(network, pixels, labels, epsilon=0.3, norm="l2")
    torch.testing.assert_close(found, pixels + 0.3 * normal)
    found = pgd(network, pixels, labels, epsilon=0.3, step=0.1, steps=40, norm="l2")
    torch.testing.assert_close(found, pixels + 0.3 * normal, atol=2e-4, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_loss_rises_and_more_steps_and_restarts_make_it_worse(trained, norm):
    network, pixels, labels = trained
    settings = of_norm(norm)
    found = pgd(network, pixels, labels, **settings)
    single = fgsm(network, pixels, labels, epsilon=settings["epsilon"], norm=norm)
    again = pgd(network, pixels, labels, restarts=4, **settings)
    clean, one, many, best = (losses(network, x, labels) for x in (pixels, single, found, again))
    assert clean.mean() < one.mean() < many.mean()
    resists = ~wrong(network, again, labels)
    assert resists.any()
    assert (best >= many - 1e-6)[resists].all()
    fooled = [int(wrong(network, x, labels).sum()) for x in (pixels, single, found, again)]
    assert fooled == sorted(fooled)
    assert fooled[0] < fooled[1]
    # Whatever was fooled at first stays so.
    assert not (wrong(network, found, labels) & ~wrong(network, again, labels)).any()


def test_a_network_that_is_sure_is_attacked_all_the_same(trained):
    """Its cross-entropy has no gradient in float32; torch's own attack by it would go nowhere."""
    network, pixels, labels = trained
    sure = wrong(network, pixels, labels).logical_not()
    pixels, labels = pixels[sure], labels[sure]

    def surer(x: Tensor) -> Tensor:
        return network(x) * 1e4

    leaf = pixels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(surer(leaf), labels, reduction="sum"), leaf)
    assert (gradient.flatten(1).abs().amax(1) == 0).float().mean() > 0.9
    found = fgsm(surer, pixels, labels, epsilon=0.1)
    assert int(wrong(network, found, labels).sum()) >= 0.8 * int(
        wrong(network, fgsm(network, pixels, labels, epsilon=0.1), labels).sum()
    )
    assert wrong(network, found, labels).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("size", [1, 7])
def test_the_batch_does_not_matter(trained, norm, size):
    network, pixels, labels = double(trained, 15)
    settings = {**of_norm(norm), "restarts": 2, "seed": 5}
    whole = pgd(network, pixels, labels, **settings)
    parts = [
        pgd(network, pixels[chosen], labels[chosen], examples=chosen.tolist(), **settings)
        for chosen in torch.arange(15).split(size)
    ]
    torch.testing.assert_close(torch.cat(parts), whole)
    single = [fgsm(network, p, t, epsilon=0.1) for p, t in zip(pixels.split(size), labels.split(size), strict=True)]
    torch.testing.assert_close(torch.cat(single), fgsm(network, pixels, labels, epsilon=0.1))


def test_the_gradient_of_a_single_image_is_right(trained):
    """By differences; torch's own of this network, for one image on a CPU, is wrong in eval mode."""
    network, pixels, labels = double(trained, 3)
    for image, label in zip(pixels.split(1), labels.split(1), strict=True):
        victim = Victim(network.eval(), label)
        found = victim.gradient(image)
        for place in [(0, 0, 0, 0), (0, 1, 3, 4), (0, 2, 7, 7)]:
            nudge = torch.zeros_like(image)
            nudge[place] = 1e-5
            with torch.no_grad():
                slope = (victim.judge(image + nudge).margin - victim.judge(image - nudge).margin) / 2e-5
            assert float(found[place]) == pytest.approx(float(slope), rel=1e-5, abs=1e-9)


def test_gradients_of_a_batch_are_those_of_its_images(trained):
    network, pixels, labels = double(trained, 5)
    together = Victim(network, labels).gradient(pixels)
    alone = [Victim(network, t).gradient(p) for p, t in zip(pixels.split(1), labels.split(1), strict=True)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_the_margin_is_the_odds_and_gives_the_cross_entropy():
    logits, labels = toy.batch(20, 6, classes=6)
    verdict = Victim(lambda x: x, labels).judge(logits * 5)
    probability = (logits * 5).double().softmax(1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(verdict.margin.double(), (1 / probability - 1).log(), atol=1e-5, rtol=1e-5)
    expected = cross_entropy(logits.double() * 5, labels, reduction="none")
    torch.testing.assert_close(verdict.loss, expected, atol=1e-6, rtol=1e-6)


def test_epsilon_0_changes_nothing(trained):
    network, pixels, labels = trained
    for found in (
        fgsm(network, pixels, labels, epsilon=0),
        pgd(network, pixels, labels, epsilon=0, step=0.1, steps=3, restarts=3),
        no_attack()(network, pixels, labels).pixels,
    ):
        assert torch.equal(found, pixels)


def test_passes_are_as_many_as_steps_and_one_and_fooled_images_rest(trained):
    network, pixels, labels = trained
    network.seen.clear()
    found = Attack(0.05, 0.02, 4)(network, pixels, labels)
    assert [len(seen) for seen in network.seen] == [60] * 5
    network.seen.clear()
    Attack(0.05, 0.02, 4, restarts=2)(network, pixels, labels)
    left = int((~found.fooled).sum())
    assert 1 < left < 60
    assert [len(seen) for seen in network.seen] == [60] * 5 + [left] * 5
    network.seen.clear()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(value):
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        fgsm(lambda x: x.flatten(1) * value, torch.rand(2, 4) + 0.0, torch.tensor([0, 1]), epsilon=0.1)


def test_gradients_that_are_no_numbers_are_refused():
    """The root of 0 has no slope: without a look at it, torch.sign(NaN) = 0 would leave the image where it is."""
    with pytest.raises(NonFiniteError, match="gradients"):
        fgsm(lambda x: x.flatten(1).sqrt() * 2, torch.zeros(2, 4), torch.tensor([0, 1]), epsilon=0.1)
