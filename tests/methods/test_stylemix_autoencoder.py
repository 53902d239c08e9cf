"""The autoencoders of StyleMix: a small one that learns, and the official weights from files."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import toy
from methods.shared import seeded
from methods.stylemix_reference import BOTH, slow_four_way
from multimix.methods._adain import SmallAutoencoder
from multimix.methods.stylemix import StyleCutMix, StyleMix


def error(method, inputs):
    again = method.autoencoder.decode(method.autoencoder.encode(inputs)[-1], inputs)
    return float((again - inputs).square().mean() / inputs.var())


@pytest.mark.parametrize("channels", [1, 3])
def test_the_decoder_learns_from_what_it_sees(channels):
    smooth = functional.interpolate(toy.batch(8, channels, 3, 3)[0], size=(9, 7), mode="bilinear", align_corners=True)
    method = StyleMix(prob=1.0)
    method.prepare(None)
    before = error(method, smooth)
    for _ in range(60):
        method.draw(None, smooth, None, seeded())
    assert before > 0.5
    assert error(method, smooth) < 0.1


def test_learning_follows_adam():
    """The first steps against torch's Adam on the same loss."""
    inputs = toy.batch(4, 3, 6, 6)[0]
    ours = SmallAutoencoder()
    weights = nn.Parameter(ours.weights.clone())
    adam = torch.optim.Adam([weights], lr=0.005, betas=(0.9, 0.99))
    features = ours.encode(inputs)[-1]
    ours.learn(inputs, 0.005, 4)
    for _ in range(5):
        adam.zero_grad()
        functional.mse_loss(ours._decode(features, weights), inputs).backward()
        adam.step()
    torch.testing.assert_close(ours.weights, weights.detach(), rtol=1e-4, atol=1e-5)


def test_weights_are_always_the_same_and_nobody_elses():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = SmallAutoencoder()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.weights, SmallAutoencoder().weights)
    assert not list(first.parameters())
    assert 20_000 < sum(p.numel() for p in (first.weights, *first.stages.buffers())) < 50_000


@pytest.mark.parametrize("cls", BOTH)
def test_learning_stops_where_it_should(cls):
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, 6, 6)
    for method in (cls(prob=1.0).eval(), cls(prob=1.0, learning_rate=0.0), cls(prob=0.0)):
        method.prepare(network)
        before = method.autoencoder.weights.clone()
        method(network, inputs, targets, generator=seeded())
        assert torch.equal(method.autoencoder.weights, before)


@pytest.mark.parametrize("cls", BOTH)
def test_the_loss_trains_the_network_alone(cls):
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, 6, 6)
    method = cls(prob=1.0, warmup=0)
    total = method(network, inputs, targets, generator=seeded()).total
    weights = method.autoencoder.weights.clone()
    method(network, inputs, targets, generator=seeded())  # replaces the weights that the first graph holds
    total.backward()
    assert not torch.equal(method.autoencoder.weights, weights)
    assert method.autoencoder.weights.grad is None
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_one_bad_mini_batch_does_not_end_the_decoder():
    autoencoder = SmallAutoencoder()
    autoencoder.learn(torch.full((2, 3, 4, 4), float("nan")), 0.005, 0)
    assert autoencoder.weights.isfinite().all()


def official_encoder():
    """The layers of VGG-19 to relu4_1 with their places in the official file."""

    def block(before, after):
        return [nn.ReflectionPad2d(1), nn.Conv2d(before, after, 3), nn.ReLU()]

    def pool():
        return nn.MaxPool2d(2, 2, 0, ceil_mode=True)

    layers = [nn.Conv2d(3, 3, 1), *block(3, 64), *block(64, 64), pool(), *block(64, 128), *block(128, 128), pool()]
    layers += [*block(128, 256), *block(256, 256), *block(256, 256), *block(256, 256), pool(), *block(256, 512)]
    return nn.Sequential(*layers)


def official_decoder():
    def block(before, after):
        return [nn.ReflectionPad2d(1), nn.Conv2d(before, after, 3), nn.ReLU()]

    up = nn.Upsample(scale_factor=2, mode="nearest")
    layers = [*block(512, 256), up, *block(256, 256), *block(256, 256), *block(256, 256), *block(256, 128), up]
    layers += [*block(128, 128), *block(128, 64), up, *block(64, 64), *block(64, 3)[:2]]
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    torch.manual_seed(0)
    nets, folder = (official_encoder(), official_decoder()), tmp_path_factory.mktemp("weights")
    state = {**nets[0].state_dict(), "32.weight": torch.zeros(1), "32.bias": torch.zeros(1)}  # the file goes on
    torch.save(state, folder / "vgg.pth")
    torch.save(nets[1].state_dict(), folder / "decoder.pth")
    return {"encoder": str(folder / "vgg.pth"), "decoder": str(folder / "decoder.pth")}, *nets


@torch.no_grad()
def test_official_weights_do_what_the_official_layers_do(files):
    paths, encoder, decoder = files
    inputs, targets = toy.batch(3, 3, 8, 8)
    method = StyleMix(prob=1.0, size=24, **paths)
    drawn = method.draw(None, inputs, targets, seeded())
    large = functional.interpolate(inputs, (24, 24), mode="bilinear", align_corners=False)
    shares = (float(drawn.given[name]) for name in ("content", "style", "both"))
    mixed = decoder(slow_four_way(encoder(large).double(), drawn.partners, *shares).float())
    expected = functional.interpolate(mixed, (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(drawn.mix(inputs), expected, rtol=1e-4, atol=1e-6)
    assert not list(method.parameters())
    assert not method.state_dict()  # the files hold the weights, not every checkpoint
    grey = method.draw(None, inputs[:, :1, :, :6], targets, seeded()).mix(inputs[:, :1, :, :6])
    assert grey.shape == (3, 1, 8, 6)


def test_official_taps_are_those_after_the_first_relu_of_each_block(files):
    paths, encoder, _ = files
    inputs = toy.batch(2, 3, 16, 16)[0]
    method = StyleCutMix(prob=1.0, size=16, gamma="auto", **paths)
    method.prepare(None)
    taps = method.autoencoder.encode(inputs)
    with torch.no_grad():
        for tap, end in zip(taps, (4, 11, 18, 31), strict=True):
            torch.testing.assert_close(tap, encoder[:end](inputs), rtol=1e-4, atol=1e-6)


@pytest.mark.bad_input
def test_other_files_are_refused(files, tmp_path):
    paths = files[0]
    with pytest.raises(ValueError, match=r"decoder must be a state dict .* with 1.weight of shape .* got none"):
        StyleMix(encoder=paths["encoder"], decoder=paths["encoder"]).prepare(None)
    torch.save({"0.weight": torch.zeros(3, 3, 3, 3)}, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=r"encoder must be a state dict .* got \(3, 3, 3, 3\)"):
        StyleMix(encoder=str(tmp_path / "wrong.pth"), decoder=paths["decoder"]).prepare(None)


@pytest.mark.bad_input
@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("shape", [(4, 3, 8), (4, 2, 8, 8)])
def test_what_is_no_image_is_refused(shape, cls):
    channels = "" if len(shape) == 3 else ", with 1 or 3 channels"
    message = rf"inputs must be images of shape \(b, c, h, w\) for {cls.__name__}{channels}, got \(4,"
    with pytest.raises(ValueError, match=message):
        cls()(toy.vectors(), *toy.batch(*shape))
