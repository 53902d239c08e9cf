"""FGSM and PGD against a loop in float64 by the equations, and what must hold of any attack."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import toy
from multimix.lab.data import seed_of
from multimix.lab.evaluate.adversarial import fgsm, pgd
from multimix.lab.evaluate.adversarial.attacks import L2, Attack, Attacked
from multimix.lab.evaluate.passes import NonFiniteError

STRONG = {"epsilon": 0.06, "step": 0.02, "steps": 7}
LONG = {"epsilon": 0.7, "step": 0.15, "steps": 7}


def of_norm(norm: str) -> dict[str, float]:
    return {"norm": norm, **(STRONG if norm == "linf" else LONG)}


def wrong(network: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return network(pixels).argmax(1) != labels


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
            change = (moved + step * gradient.sign() - image).clamp(-epsilon, epsilon)
        else:
            change = moved + step * gradient / gradient.norm() - image
            change = change * min(1, epsilon / float(change.norm()))
        moved = (image + change).clamp(0, 1)
    return moved


def double(trained, size: int = 12) -> tuple[nn.Module, Tensor, Tensor]:
    network = toy.images(width=8).double().eval()
    network.load_state_dict({name: value.double() for name, value in trained.network.state_dict().items()})
    return network, trained.pixels[:size].double(), trained.labels[:size]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_both_are_what_the_equations_say(trained, norm):
    network, pixels, labels = double(trained)
    epsilon = of_norm(norm)["epsilon"]
    found = pgd(network, pixels, labels, seed=3, **of_norm(norm))
    quick = fgsm(network, pixels, labels, epsilon=epsilon, norm=norm)
    once = {"epsilon": epsilon, "step": epsilon, "steps": 1, "norm": norm}
    for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        start = started(image, norm, epsilon, 3, 0, i)
        torch.testing.assert_close(found[i], ascended(network, image, label, start, **of_norm(norm)))
        torch.testing.assert_close(quick[i], ascended(network, image, label, image, **once))
    assert wrong(network, found, labels).float().mean() > wrong(network, pixels, labels).float().mean() + 0.3


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
        fooled, loss = wrong(network, ends, same), cross_entropy(network(ends), same, reduction="none")
        chosen = int(fooled.int().argmax()) if fooled.any() else int(loss.argmax())
        later += chosen > 0
        torch.testing.assert_close(found[i], ends[chosen])
    assert later > 4


def test_being_fooled_counts_before_the_margin():
    """With many classes the odds may be worse for an image that is still right than for one that is not."""
    kept = Attacked(torch.ones(4, 1), torch.tensor([0.5, 0.5, 0.5, 9.0]), torch.tensor([False, False, False, True]), 5)
    second = Attacked(torch.full((3, 1), 2.0), torch.tensor([0.1, 0.6, 0.4]), torch.tensor([True, False, False]), 5)
    kept.keep_worse(torch.tensor([0, 1, 2]), second)
    assert kept.pixels.flatten().tolist() == [2, 2, 1, 1]
    assert kept.fooled.tolist() == [True, False, False, True]
    torch.testing.assert_close(kept.margin, torch.tensor([0.1, 0.6, 0.5, 9.0]))


def test_a_network_that_is_sure_is_attacked_all_the_same(trained):
    """Its cross-entropy has no gradient in float32: an attack by it would go nowhere."""
    network, pixels, labels = trained
    sure = ~wrong(network, pixels, labels)
    pixels, labels = pixels[sure], labels[sure]
    found = [fgsm(victim, pixels, labels, epsilon=0.1) for victim in (network, lambda x: network(x) * 1e4)]
    fooled, all_the_same = (int(wrong(network, images, labels).sum()) for images in found)
    assert all_the_same >= 0.8 * fooled > 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("size", [1, 7])
def test_the_batch_does_not_matter(trained, norm, size):
    network, pixels, labels = double(trained, 15)
    settings = {**of_norm(norm), "restarts": 2, "seed": 5}
    whole, chunks = pgd(network, pixels, labels, **settings), torch.arange(15).split(size)
    parts = [pgd(network, pixels[i], labels[i], examples=i.tolist(), **settings) for i in chunks]
    torch.testing.assert_close(torch.cat(parts), whole)
    single = [fgsm(network, p, t, epsilon=0.1) for p, t in zip(pixels.split(size), labels.split(size), strict=True)]
    torch.testing.assert_close(torch.cat(single), fgsm(network, pixels, labels, epsilon=0.1))


def test_passes_are_as_many_as_steps_and_one_and_fooled_images_rest(trained):
    network, pixels, labels = trained
    assert torch.equal(pgd(network, pixels, labels, epsilon=0, step=0.1, steps=3, restarts=3), pixels)
    network.seen.clear()
    found = Attack(0.05, 0.02, 4)(network, pixels, labels)
    Attack(0.05, 0.02, 4, restarts=2)(network, pixels, labels)
    left = int((~found.fooled).sum())
    assert 1 < left < 60
    assert [len(seen) for seen in network.seen] == [60] * 10 + [left] * 5
    network.seen.clear()


def test_logits_and_gradients_that_are_no_numbers_are_refused():
    """The root of 0 has no slope: without a look at it, torch.sign(NaN) = 0 would leave the image where it is."""
    for network in (lambda x: x + math.nan, lambda x: x + math.inf, lambda x: x.sqrt() * 2):
        with pytest.raises(NonFiniteError, match="logits, or their gradients on pixels, are NaN or infinite"):
            fgsm(network, torch.zeros(2, 4), torch.tensor([0, 1]), epsilon=0.1)


def length(change: Tensor, norm: str) -> Tensor:
    return change.double().flatten(1).norm(math.inf if norm == "linf" else 2, dim=1)


@settings(max_examples=40, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    epsilon=st.floats(1e-4, 3.0),
    share=st.floats(0.05, 5.0),
    steps=st.integers(1, 4),
    restarts=st.integers(1, 2),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_images_stay_in_the_ball_and_in_0_to_1(norm, epsilon, share, steps, restarts, dtype, seed):
    generator, epsilon = torch.Generator().manual_seed(seed), epsilon / 3 if norm == "linf" else epsilon
    pixels = (torch.rand(3, 3, 6, 6, generator=generator, dtype=dtype) * 1.5 - 0.25).clamp(0, 1)
    before, labels = pixels.clone(), torch.randint(5, (3,), generator=generator)
    attacked, ulp = (toy.images().eval().to(dtype), pixels, labels), torch.finfo(dtype).eps
    how = {"steps": steps, "restarts": restarts, "norm": norm, "seed": seed}
    quick = fgsm(*attacked, epsilon=epsilon, norm=norm)
    for found in (quick, pgd(*attacked, epsilon=epsilon, step=share * epsilon, **how)):
        assert (length(found - pixels, norm) <= epsilon * (1 + 4 * ulp) + 12 * ulp).all()
        assert 0 <= found.min() <= found.max() <= 1
        assert (found.dtype, found.shape, found.device) == (pixels.dtype, pixels.shape, pixels.device)
        assert not found.requires_grad
    assert torch.equal(pixels, before)


def test_l2_directions_have_length_1_however_small_the_gradient():
    gradient = torch.randn(5, 3, 4, 4) * torch.tensor([1.0, 1e-20, 1e-36, 1e20, 0.0]).view(-1, 1, 1, 1)
    torch.testing.assert_close(length(L2.direction(gradient), "l2"), torch.tensor([1.0, 1, 1, 1, 0]).double())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_works_whether_gradients_are_on_or_off(context):
    network, pixels, labels = toy.images().eval(), torch.rand(4, 3, 6, 6), torch.tensor([0, 1, 2, 3])
    how = {"epsilon": 0.1, "step": 0.1, "steps": 1, "restarts": 2}
    expected = pgd(network, pixels, labels, **how)
    with context():
        found = pgd(network, pixels * 1, labels * 1, **how)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert torch.is_grad_enabled()


BAD = {
    "epsilon must be at least 0 and finite, got -1": {"epsilon": -1},
    "epsilon must be at least 0 and finite, got nan": {"epsilon": float("nan")},
    "epsilon must lie in \\[0, 1\\], as pixels do \\(8/255 is eight grey levels\\), got 8": {"epsilon": 8},
    "step must be above 0, got 0": {"step": 0},
    "steps must be at least 1, got 0": {"steps": 0},
    "restarts must be at least 1, got 0": {"restarts": 0},
    "norm must be one of linf, l2, got 'l3'": {"norm": "l3"},
    "restarts must be 1 where no start is random, got 2": {"restarts": 2, "random_start": False},
    "examples must be one number for each of 2 images, got 3": {"examples": [1, 2, 3]},
    "pixels must lie in \\[0, 1\\], got 0 to 255": {"pixels": torch.tensor([0.0, 255]).view(2, 1, 1, 1)},
    "pixels must lie in": {"pixels": torch.full((2, 3, 6, 6), float("nan"))},
    "pixels must be float32 or float64, got torch.uint8": {"pixels": torch.zeros(2, 3, 6, 6, dtype=torch.uint8)},
    "pixels must be float32 or float64, got torch.bfloat16": {"pixels": torch.zeros(2, 3, 6, 6, dtype=torch.bfloat16)},
    "pixels must be at least one image": {"pixels": torch.zeros(0, 3, 6, 6), "labels": torch.zeros(0).long()},
    "labels must be 2 class indices, got torch.float32 \\(2, 5\\)": {"labels": torch.rand(2, 5)},
    "labels must be 2 class indices": {"labels": torch.tensor([0, -1])},
    "labels must be below the network's 5 classes, got 5": {"labels": torch.tensor([0, 5])},
    "network must return logits \\(b, k\\) of b = 2": {"network": lambda x: x},
    "network must pass a gradient": {"network": lambda x: torch.zeros(2, 5)},
}


@pytest.mark.bad_input
@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_refused(message):
    arguments = {"network": toy.images().eval(), "pixels": torch.rand(2, 3, 6, 6), "labels": torch.tensor([0, 1])}
    arguments |= {"epsilon": 0.1, "step": 0.1, "steps": 1} | BAD[message]
    with pytest.raises(ValueError, match=message):
        pgd(**arguments)
