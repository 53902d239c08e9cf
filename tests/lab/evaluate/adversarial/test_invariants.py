"""What holds of every attack: where its images lie, and what it leaves as it was."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import toy
from multimix.lab.evaluate.adversarial import fgsm, pgd
from multimix.lab.evaluate.adversarial.attacks import L2, Linf


def length(change: Tensor, norm: str) -> Tensor:
    change = change.double().flatten(1)
    return change.abs().amax(1) if norm == "linf" else change.square().sum(1).sqrt()


def small(dtype: torch.dtype = torch.float32) -> nn.Module:
    return toy.images().to(dtype).eval()


@settings(max_examples=60, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    epsilon=st.floats(1e-4, 3.0),
    share=st.floats(0.05, 5.0),
    steps=st.integers(1, 4),
    restarts=st.integers(1, 2),
    double=st.booleans(),
    extreme=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_images_stay_in_the_ball_and_in_0_to_1(norm, epsilon, share, steps, restarts, double, extreme, seed):
    dtype = torch.float64 if double else torch.float32
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(3, 3, 6, 6, generator=generator, dtype=dtype)
    pixels = pixels.round() if extreme else pixels
    labels = torch.randint(5, (3,), generator=generator)
    network = small(dtype)
    before = pixels.clone()
    for found in (
        fgsm(network, pixels, labels, epsilon=epsilon, norm=norm),
        pgd(
            network,
            pixels,
            labels,
            epsilon=epsilon,
            step=share * epsilon,
            steps=steps,
            restarts=restarts,
            norm=norm,
            seed=seed,
        ),
    ):
        ulp = torch.finfo(dtype).eps
        assert (length(found - pixels, norm) <= epsilon * (1 + 4 * ulp) + 12 * ulp).all()
        assert found.min() >= 0
        assert found.max() <= 1
        assert (found.dtype, found.shape, found.device) == (pixels.dtype, pixels.shape, pixels.device)
        assert not found.requires_grad
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_steps_too_long_for_the_ball_use_all_of_it(trained, norm):
    """The ball is the one around the image, not around the last step: many steps end at its surface, not beyond."""
    network, pixels, labels = trained
    inner = pixels.clamp(0.2, 0.8)
    found = pgd(network, inner, labels, epsilon=0.1, step=0.07, steps=30, norm=norm)
    assert length(found - inner, norm).amax() == pytest.approx(0.1, rel=1e-4)
    assert length(found - inner, norm).amin() > 0.05


def test_without_a_gradient_nothing_moves_and_nothing_is_nan():
    pixels, labels = torch.rand(4, 3, 6, 6), torch.tensor([0, 1, 2, 3])
    flat = small()
    nn.init.zeros_(flat.classifier.weight)
    for norm in ("linf", "l2"):
        assert torch.equal(fgsm(flat, pixels, labels, epsilon=0.1, norm=norm), pixels)
        found = pgd(flat, pixels, labels, epsilon=0.1, step=0.1, steps=3, norm=norm)
        assert found.isfinite().all()
        assert (length(found - pixels, norm) <= 0.1 + 1e-6).all()


def test_l2_directions_have_length_1_however_small_the_gradient():
    gradient = torch.randn(5, 3, 4, 4) * torch.tensor([1.0, 1e-20, 1e-36, 1e20, 0.0]).view(-1, 1, 1, 1)
    torch.testing.assert_close(length(L2.direction(gradient), "l2"), torch.tensor([1.0, 1, 1, 1, 0]).double())


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "strided", "expanded"])
def test_memory_layouts_do_not_matter(layout):
    pixels, labels = torch.rand(4, 3, 6, 6), torch.tensor([0, 1, 2, 3])
    if layout == "channels_last":
        given = pixels.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed":
        given = pixels.transpose(2, 3).contiguous().transpose(2, 3)
    elif layout == "strided":
        given = pixels.repeat_interleave(2, 0)[::2]
    else:
        pixels = pixels[:1].repeat(4, 1, 1, 1)
        given = pixels[:1].expand(4, 3, 6, 6)
    assert layout == "channels_last" or not given.is_contiguous()
    for norm in ("linf", "l2"):
        options = {"epsilon": 0.1, "step": 0.03, "steps": 3, "restarts": 2, "norm": norm}
        network = small()
        torch.testing.assert_close(pgd(network, given, labels, **options), pgd(network, pixels, labels, **options))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_works_whether_gradients_are_on_or_off(context):
    pixels, labels = torch.rand(4, 3, 6, 6), torch.tensor([0, 1, 2, 3])
    network = small()
    expected = fgsm(network, pixels, labels, epsilon=0.1)
    with context():
        fresh, same = pixels * 1, labels * 1
        found = fgsm(network, fresh, same, epsilon=0.1)
        again = pgd(network, fresh, same, epsilon=0.1, step=0.1, steps=1, restarts=2)
    assert torch.equal(found, expected)
    assert not again.requires_grad
    assert torch.is_grad_enabled()


def test_the_network_is_left_as_it_was(trained):
    network = toy.images(width=8)
    network.load_state_dict(trained.network.state_dict())
    network.train()
    network.blocks[1].eval()
    network.blocks[2][0].weight.requires_grad_(False)
    network.classifier.weight.grad = torch.ones_like(network.classifier.weight)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    needs = [p.requires_grad for p in network.parameters()]
    state = torch.get_rng_state()
    found = pgd(network, trained.pixels, trained.labels, epsilon=0.1, step=0.03, steps=2)
    expected = pgd(trained.network, trained.pixels, trained.labels, epsilon=0.1, step=0.03, steps=2)
    assert torch.equal(found, expected)  # in eval mode
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == needs
    assert [p.grad is not None for p in network.parameters()] == [
        p is network.classifier.weight for p in network.parameters()
    ]
    assert (network.classifier.weight.grad == 1).all()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_mode_comes_back_after_a_failure():
    network = toy.images()
    with pytest.raises(RuntimeError):
        fgsm(network, torch.rand(2, 7, 6, 6), torch.tensor([0, 1]), epsilon=0.1)
    assert all(module.training for module in network.modules())


def test_random_starts_fill_the_ball():
    """Uniformly in volume: in d dimensions the radius to the d-th power is uniform; so is each number in the cube."""
    generator = torch.Generator().manual_seed(0)
    cube = torch.stack([Linf.draw(generator, torch.Size([2])) for _ in range(4000)])
    ball = torch.stack([L2.draw(generator, torch.Size([3])) for _ in range(4000)])
    expected = torch.linspace(0, 1, 4000)
    for numbers in (cube.flatten()[:4000] / 2 + 0.5, ball.norm(dim=1) ** 3):
        assert (numbers.sort().values - expected).abs().max() < 1.63 / 4000**0.5  # Kolmogorov, 1 %
    assert ball.mean(0).abs().max() < 0.05


def test_starts_belong_to_examples_seeds_and_restarts(trained):
    network, pixels, labels = trained
    same = {"epsilon": 0.1, "step": 1e-9, "steps": 1}
    first = pgd(network, pixels, labels, **same)
    assert torch.equal(first, pgd(network, pixels, labels, seed=0, examples=range(60), **same))
    for other in ({"seed": 1}, {"examples": range(1, 61)}):
        assert (first != pgd(network, pixels, labels, **same, **other)).float().mean() > 0.8
    still = pgd(network, pixels, labels, random_start=False, epsilon=0.1, step=1e-9, steps=1)
    assert (still - pixels).abs().max() < 1e-6


def test_each_device_finds_the_same(device, trained):
    network = toy.images(width=8).eval()
    network.load_state_dict(trained.network.state_dict())
    pixels, labels = trained.pixels, trained.labels
    found = pgd(network.to(device), pixels.to(device), labels.to(device), epsilon=0.1, step=0.03, steps=3)
    assert found.device.type == device.type
    expected = pgd(trained.network, pixels, labels, epsilon=0.1, step=0.03, steps=3)
    assert (found.cpu() - expected).abs().mean() < 1e-3


BAD = {
    "epsilon must be at least 0 and finite, got -1": {"epsilon": -1},
    "epsilon must be at least 0 and finite, got nan": {"epsilon": float("nan")},
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
    arguments = {"network": small(), "pixels": torch.rand(2, 3, 6, 6), "labels": torch.tensor([0, 1])}
    arguments |= {"epsilon": 0.1, "step": 0.1, "steps": 1} | BAD[message]
    with pytest.raises(ValueError, match=message):
        pgd(**arguments)
