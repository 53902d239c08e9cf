"""StyleMix and StyleCutMix against float64 loops, what they draw, the styles of classes, and the autoencoders."""

import math

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

import toy
from multimix.methods._adain import Autoencoder, ClassStyles, SmallAutoencoder
from multimix.methods._predict import Mixing
from multimix.methods.stylemix import StyleCutMix, StyleMix
from toy import seeded

BOTH = [StyleMix, StyleCutMix]


class Nothing(Autoencoder):
    """Features are the images."""

    def __init__(self):
        super().__init__([nn.Identity()], None)

    def _enter(self, images):
        return images

    def _decode(self, features):
        return features


def always(cls, **settings):
    """A method that mixes every step and does not learn."""
    return cls(prob=1.0, learning_rate=0.0, **settings)


def with_nothing(cls, **settings):
    method = always(cls, **settings)
    method.autoencoder = Nothing()
    if getattr(method, "styles", None) is not None:
        method.styles = ClassStyles()
    return method


def moments(maps):
    """Mean and unbiased deviation of each channel, in float64."""
    maps, n = maps.double(), maps.shape[2] * maps.shape[3]
    mean = maps.sum((2, 3)) / n
    variance = (maps - mean[..., None, None]).square().sum((2, 3)) / max(n - 1, 1)
    return mean, (variance + 1e-5).sqrt()


def slow_adain(content, style):
    mean, std, new_mean, new_std = (part[..., None, None] for maps in (content, style) for part in moments(maps))
    return (content - mean) / std * new_std + new_mean


def slow_four_way(features, partners, rc, rs, t):
    other = features[partners]
    one, two = slow_adain(features, other), slow_adain(other, features)
    return t * features + (1 - rc - rs + t) * other + (rc - t) * one + (rs - t) * two


def slow_cut(images, partners, box, rs, gamma):
    """The four shares of each pixel: T of x1, 1 - Rc - Rs + T of x2, Rc - T of g12, Rs - T of g21."""
    out, other = torch.empty_like(images), images[partners]
    gamma = gamma.double().view(-1, 1, 1, 1)
    g12 = gamma * images + (1 - gamma) * slow_adain(images, other)
    g21 = gamma * other + (1 - gamma) * slow_adain(other, images)
    for y in range(images.shape[2]):
        for x in range(images.shape[3]):
            rc = 1.0 if box.top <= y < box.bottom and box.left <= x < box.right else 0.0
            t = max(0.0, rc + rs - 1)
            shares = zip((t, 1 - rc - rs + t, rc - t, rs - t), (images, other, g12, g21), strict=True)
            out[..., y, x] = sum(share * values[..., y, x] for share, values in shares)
    return out


@pytest.mark.parametrize("b", [1, 2, 5])
def test_stylemix_equals_the_loop(b):
    inputs = toy.batch(b, 3, 4, 5, dtype=torch.float64)[0]
    drawn = with_nothing(StyleMix).draw(None, inputs, None, seeded())
    rc, rs, t = (float(drawn.given[name]) for name in ("content", "style", "both"))
    mixed = slow_four_way(inputs, drawn.partners, rc, rs, t)
    torch.testing.assert_close(drawn.mix(inputs), mixed, rtol=1e-5, atol=1e-6)
    assert float(drawn.lam) == pytest.approx(0.7 * rc + 0.3 * rs)


@pytest.mark.parametrize("gamma", ["beta", "auto", 0.25])
def test_stylecutmix_equals_the_loop(gamma):
    inputs, targets = toy.batch(5, 3, 4, 5, dtype=torch.float64)
    method = with_nothing(StyleCutMix, gamma=gamma).eval()
    if gamma == "auto":
        method.styles.see([inputs.float()], targets)
    drawn = method.draw(None, inputs, targets, seeded(2))
    rs, blend, (top, bottom, left, right) = float(drawn.given["style"]), drawn.given["gamma"], drawn.given["box"]
    mixed = slow_cut(inputs, drawn.partners, drawn.given["box"], rs, blend)
    torch.testing.assert_close(drawn.mix(inputs), mixed, rtol=1e-5, atol=1e-6)
    area = (bottom - top) * (right - left) / 20
    torch.testing.assert_close(drawn.lam, 0.7 * area + 0.3 * (blend * area + (1 - blend) * rs))
    assert gamma != 0.25 or float(blend) == 0.25


def test_shares_are_drawn_as_the_paper_says():
    method, generator, inputs = always(StyleMix), seeded(1), torch.zeros(4, 3, 2, 2)
    drawn = [method.draw(None, inputs, None, generator) for _ in range(500)]
    rc, rs, t = (torch.stack([d.given[name] for d in drawn]).double() for name in ("content", "style", "both"))
    for share in (rc, rs):
        assert stats.kstest(share.numpy(), stats.beta(0.5, 0.5).cdf).pvalue > 1e-3
    assert abs(stats.spearmanr(rc, rs).statistic) < 0.15
    low, high = (rc + rs - 1).clamp(min=0), torch.minimum(rc, rs)
    assert bool(((t >= low - 1e-6) & (t <= high + 1e-6)).all())
    wide = high - low > 1e-3
    assert stats.kstest(((t - low) / (high - low))[wide].numpy(), "uniform").pvalue > 1e-3
    first = torch.bincount(torch.stack([d.partners[0] for d in drawn]), minlength=4)
    assert stats.chisquare(first.numpy()).pvalue > 1e-3


def test_box_style_and_gamma_are_drawn_as_the_code_does():
    method, generator, inputs = always(StyleCutMix), seeded(1), torch.zeros(2, 3, 64, 32)
    drawn = [method.draw(None, inputs, None, generator) for _ in range(500)]
    assert stats.kstest([float(d.given["style"]) for d in drawn], stats.beta(1, 1).cdf).pvalue > 1e-3
    assert stats.kstest([float(d.given["gamma"]) for d in drawn], stats.beta(0.8, 0.8).cdf).pvalue > 1e-3
    boxes = [d.given["box"] for d in drawn]
    unclipped = [box for box in boxes if min(box.top, box.left) > 0 and box.bottom < 64 and box.right < 32]
    assert len(unclipped) > 50
    assert all(abs((b.bottom - b.top) - 2 * (b.right - b.left)) <= 2 for b in unclipped)


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("probability", [0.0, None, 1.0])
def test_the_other_steps_are_plain(cls, probability):
    method = cls(learning_rate=0.0) if probability is None else cls(learning_rate=0.0, prob=probability)
    expected = {StyleMix: 0.2, StyleCutMix: 0.5}[cls] if probability is None else probability
    generator, inputs = seeded(3), torch.zeros(2, 3, 2, 2)
    plain = sum(type(method.draw(None, inputs, None, generator)) is Mixing for _ in range(600))
    assert plain / 600 == pytest.approx(1 - expected, abs=4 * math.sqrt(expected * (1 - expected) / 600))


def test_class_styles_are_means_of_statistics():
    (first, targets), (second, more) = toy.batch(6, 2, 3, 3), toy.batch(5, 2, 3, 3, seed=1)
    styles = ClassStyles()
    styles.see([first, 2 * first], targets)
    styles.see([second, 2 * second], more)
    images, labels = torch.cat([first, second]), torch.cat([targets, more])
    rows = torch.cat([*moments(images), *moments(2 * images)], 1).float()
    means = {label: rows[labels == label].mean(0) for label in labels.unique().tolist()}
    for label, mean in means.items():
        torch.testing.assert_close(styles.means[label], mean, rtol=1e-4, atol=1e-5)
    partners = torch.tensor([1, 2, 3, 4, 5, 0])
    pairs = zip(targets.tolist(), targets[partners].tolist(), strict=True)
    wanted = torch.stack([torch.tensor(2.0) if a == b else (means[a] - means[b]).square().mean() for a, b in pairs])
    for given in (targets, toy.one_hot(targets)):
        torch.testing.assert_close(styles.distances(given, partners), wanted, rtol=1e-3, atol=1e-5)


def test_distances_of_the_small_autoencoder_are_brought_to_scale():
    """The mean over all pairs of classes that were seen is that of the official matrix; class 2 is missing."""
    inputs, targets = toy.batch(12, 3, 6, 6)[0], torch.tensor([0, 1, 3, 4] * 3)
    method, raw = always(StyleCutMix, gamma="auto"), ClassStyles()
    method.draw(None, inputs, targets, seeded())
    raw.see(method.autoencoder.encode(inputs), targets)
    pairs = torch.combinations(torch.tensor([0, 1, 3, 4])).flatten()
    partners = torch.arange(12).view(-1, 2).flip(1).flatten()
    scaled, plain = (styles.distances(pairs, partners) for styles in (method.styles, raw))
    torch.testing.assert_close(scaled, plain * 1.37 / plain.mean())


def test_auto_gamma_is_tanh_of_the_distance():
    inputs, targets = torch.zeros(2, 3, 4, 4), torch.tensor([0, 1])
    inputs[1] = 6.0  # constant images: the means differ by 6, the deviations by nothing
    method = with_nothing(StyleCutMix, gamma="auto")
    for seed in range(8):
        drawn = method.draw(None, inputs, targets, seeded(seed))
        distance = 2.0 if int(drawn.partners[0]) == 0 else (3 * 36) / 6
        torch.testing.assert_close(drawn.given["gamma"], torch.full((2,), math.tanh(distance / 3)))


def test_a_checkpoint_holds_decoder_and_styles():
    inputs, targets = toy.batch(5, 3, 6, 6)
    network = toy.images().eval()
    method = StyleCutMix(prob=1.0, gamma="auto", warmup=3)
    method(network, inputs, targets, generator=seeded())
    twin = StyleCutMix(prob=1.0, gamma="auto", warmup=3)
    twin.prepare(network)
    twin.load_state_dict(method.state_dict())
    for _ in range(2):
        ours, theirs = (m(network, inputs, targets, generator=seeded(1)).total for m in (method, twin))
        assert torch.equal(ours, theirs)
    assert float(twin.autoencoder.steps) == 6


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
    for still in (cls(prob=1.0).eval(), cls(prob=1.0, learning_rate=0.0), cls(prob=0.0)):
        still.prepare(network)
        before = still.autoencoder.weights.clone()
        still(network, inputs, targets, generator=seeded())
        assert torch.equal(still.autoencoder.weights, before)


def test_one_bad_mini_batch_does_not_end_the_decoder():
    autoencoder = SmallAutoencoder()
    autoencoder.learn(torch.full((2, 3, 4, 4), float("nan")), 0.005, 0)
    assert autoencoder.weights.isfinite().all()


def layers(*sizes, up=False):
    """Padded convolutions with ReLUs, between them pools or upsampling where a size is None."""
    resize = nn.Upsample(scale_factor=2, mode="nearest") if up else nn.MaxPool2d(2, 2, 0, ceil_mode=True)
    found, before = [], sizes[0]
    for after in sizes[1:]:
        if after is None:
            found.append(resize)
            continue
        found += [nn.ReflectionPad2d(1), nn.Conv2d(before, after, 3), nn.ReLU()]
        before = after
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """VGG-19 to relu4_1 and its decoder, each layer at its place in the official file."""
    torch.manual_seed(0)
    down = layers(3, 64, 64, None, 128, 128, None, 256, 256, 256, 256, None, 512)
    up = layers(512, 256, None, 256, 256, 256, 128, None, 128, 64, None, 64, 3, up=True)
    nets = nn.Sequential(nn.Conv2d(3, 3, 1), *down), nn.Sequential(*up[:-1])
    folder = tmp_path_factory.mktemp("weights")
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


@pytest.mark.parametrize("cls", BOTH)
def test_hosts_may_convert_it_or_have_another_default_precision(cls):
    inputs, targets = toy.batch(4, 3, 8, 8, dtype=torch.float64)
    torch.set_default_dtype(torch.float64)
    try:
        built = cls(prob=1.0)
        built.prepare(None)
    finally:
        torch.set_default_dtype(torch.float32)
    for method in (built, built.double()):
        mixed, _ = method.mix(inputs, targets, num_classes=5, generator=seeded())
        assert mixed.dtype == torch.float64
        assert mixed.isfinite().all()


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
def test_images_of_other_channels_are_refused(cls):
    message = rf"inputs must be images of shape \(b, c, h, w\) for {cls.__name__}, with 1 or 3 channels, got \(4, 2,"
    with pytest.raises(ValueError, match=message):
        cls()(toy.vectors(), *toy.batch(4, 2, 8, 8))
