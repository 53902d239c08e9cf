"""StyleMix and StyleCutMix against float64 loops, with autoencoders that do nothing, learn, or come from files."""

import copy
import math

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

import references
import toy
from multimix.distill import SelfDistilled
from multimix.methods import ERM, Alternate
from multimix.methods._adain import Autoencoder, ClassStyles, SmallAutoencoder
from multimix.methods.stylemix import Plain, StyleCutMix, StyleMix, StyleMixing, StylePasting
from multimix.ops import Box
from multimix.ops._adain import adain, exchange_styles, mix_styles, paste_styles
from multimix.protocols import Teacher

BOTH = [StyleMix, StyleCutMix]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


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
    return cls(probability=1.0, learning_rate=0.0, **settings)


def with_nothing(cls, **settings):
    method = always(cls, **settings)
    method.autoencoder = Nothing()
    if getattr(method, "styles", None) is not None:
        method.styles = ClassStyles()
    return method


# ------------------------------------------------------------------------------------------------------ the oracle


def channel(values):
    """Mean and unbiased deviation of a channel, a list of numbers."""
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1) if len(values) > 1 else 0.0
    return mean, math.sqrt(variance + 1e-5)


def slow_adain(content, style):
    out = torch.empty_like(content)
    for i in range(len(content)):
        for c in range(content.shape[1]):
            mean, std = channel(content[i, c].flatten().tolist())
            new_mean, new_std = channel(style[i, c].flatten().tolist())
            for y in range(content.shape[2]):
                for x in range(content.shape[3]):
                    out[i, c, y, x] = (float(content[i, c, y, x]) - mean) / std * new_std + new_mean
    return out


def slow_four_way(features, partners, rc, rs, t):
    other = features[partners]
    one, two = slow_adain(features, other), slow_adain(other, features)
    return t * features + (1 - rc - rs + t) * other + (rc - t) * one + (rs - t) * two


def slow_cut(images, partners, decode, box, rs, gamma):
    """The four shares of each pixel: T of x1, 1 - Rc - Rs + T of x2, Rc - T of g12, Rs - T of g21."""
    out = torch.empty_like(images)
    for i, p in enumerate(partners.tolist()):
        g = float(gamma[i]) if gamma.ndim else float(gamma)
        x1, x2 = images[i : i + 1], images[p : p + 1]
        g12 = g * x1 + (1 - g) * decode(slow_adain(x1, x2))
        g21 = g * x2 + (1 - g) * decode(slow_adain(x2, x1))
        for y in range(images.shape[2]):
            for x in range(images.shape[3]):
                rc = 1.0 if box.top <= y < box.bottom and box.left <= x < box.right else 0.0
                t = max(0.0, rc + rs - 1)
                shares = (t, 1 - rc - rs + t, rc - t, rs - t)
                out[i, :, y, x] = sum(w * v[0, :, y, x] for w, v in zip(shares, (x1, x2, g12, g21), strict=True))
    return out


@pytest.mark.parametrize(("size", "other"), [((4, 5), (4, 5)), ((4, 5), (3, 2)), ((1, 1), (2, 2)), ((1, 1), (1, 1))])
def test_adain_equals_the_loop(size, other):
    content = toy.batch(3, 4, *size, dtype=torch.float64)[0]
    style = 3 * toy.batch(3, 4, *other, seed=1, dtype=torch.float64)[0] + 1
    content[1, 2] = 0.5  # a constant channel
    torch.testing.assert_close(adain(content, style), slow_adain(content, style), rtol=1e-10, atol=1e-10)


def test_adain_has_the_style_of_the_other():
    content, style = toy.batch(3, 4, 6, 6, dtype=torch.float64)[0], toy.batch(3, 4, 6, 6, seed=1)[0].double()
    out = adain(content, style)
    torch.testing.assert_close(out.mean((2, 3)), style.mean((2, 3)))
    torch.testing.assert_close(out.std((2, 3)), style.std((2, 3)), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("rc", "rs", "t"), [(0.3, 0.6, 0.2), (0.9, 0.8, 0.75), (1, 1, 1), (0, 0, 0), (1, 0, 0)])
def test_four_terms_are_the_loop(rc, rs, t):
    features, partners = toy.batch(4, 3, 3, 5, dtype=torch.float64)[0] * 2 + 1, torch.tensor([2, 1, 3, 0])
    features[0, 1] = -1.0
    ours = mix_styles(features, partners, *(torch.tensor(v, dtype=torch.float64) for v in (rc, rs, t)))
    torch.testing.assert_close(ours, slow_four_way(features, partners, rc, rs, t), rtol=1e-9, atol=1e-9)


def test_exchanged_styles_are_the_loop():
    features, partners = toy.batch(3, 2, 4, 3, dtype=torch.float64)[0], torch.tensor([1, 2, 0])
    expected = [slow_adain(features, features[partners]), slow_adain(features[partners], features)]
    torch.testing.assert_close(exchange_styles(features, partners), torch.cat(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gamma", [torch.tensor(0.3), torch.tensor([0.0, 1.0, 0.6])])
@pytest.mark.parametrize("box", [Box(1, 3, 0, 4), Box(0, 4, 0, 5), Box(2, 2, 1, 1)])
def test_pasted_styles_are_the_four_shares_of_each_pixel(box, gamma):
    images, partners = toy.batch(3, 3, 4, 5, dtype=torch.float64)[0], torch.tensor([1, 2, 0])
    gamma = gamma.double()
    ours = paste_styles(images, exchange_styles(images, partners), partners, box, torch.tensor(0.35).double(), gamma)
    expected = slow_cut(images, partners, lambda x: x, box, float(torch.tensor(0.35)), gamma)
    torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-8)


# ----------------------------------------------------------------------------------------------------- the methods


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("b", [1, 2, 5])
def test_stylemix_equals_the_loop(b, soft):
    network = toy.images().double().eval()
    inputs, targets = toy.batch(b, 3, 4, 5, dtype=torch.float64)
    probabilities = toy.soft_targets(b, 5, dtype=torch.float64) if soft else toy.one_hot(targets, dtype=torch.float64)
    method = with_nothing(StyleMix)
    drawn = method.draw(network, inputs, targets, seeded())
    rc, rs, t = float(drawn.content), float(drawn.style), float(drawn.both)
    mixed = slow_four_way(inputs, drawn.partners, rc, rs, t)
    wanted = references.pairs(probabilities, drawn.partners, 0.7 * rc + 0.3 * rs)
    truth = references.soft_cross_entropy(network(mixed), wanted)
    ours = method(network, inputs, probabilities if soft else targets, generator=seeded()).total
    torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("gamma", ["beta", "auto", 0.25])
def test_stylecutmix_equals_the_loop(gamma, soft):
    network = toy.images().double().eval()
    inputs, targets = toy.batch(5, 3, 4, 5, dtype=torch.float64)
    probabilities = toy.soft_targets(5, 5, dtype=torch.float64) if soft else toy.one_hot(targets, dtype=torch.float64)
    method = with_nothing(StyleCutMix, gamma=gamma).eval()
    if gamma == "auto":
        method.styles.see([inputs.float()], targets)
    given = probabilities if soft else targets
    drawn = method.draw(network, inputs, given, seeded(2))
    rs, blend = float(drawn.style), drawn.gamma.double().expand(5)
    mixed = slow_cut(inputs, drawn.partners, lambda x: x, drawn.box, rs, blend)
    area = (drawn.box.bottom - drawn.box.top) * (drawn.box.right - drawn.box.left) / 20
    rows = []
    for i, p in enumerate(drawn.partners.tolist()):
        lam = 0.7 * area + 0.3 * (float(blend[i]) * area + (1 - float(blend[i])) * rs)
        rows.append(lam * probabilities[i] + (1 - lam) * probabilities[p])
    truth = references.soft_cross_entropy(network(mixed), torch.stack(rows))
    ours = method(network, inputs, given, generator=seeded(2)).total
    torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-6)


def test_equal_shares_are_input_mixup():
    """With rc = rs = t no style is exchanged: the features, here the images, are mixed as by mixup."""
    inputs, partners = toy.batch(4, 3, 5, 5, dtype=torch.float64)[0], torch.tensor([3, 2, 1, 0])
    share = torch.tensor(0.3, dtype=torch.float64)
    mixing = StyleMixing(Nothing(), partners, share, share, share, 0.7)
    torch.testing.assert_close(mixing.mix(inputs), 0.3 * inputs + 0.7 * inputs[partners])
    assert float(mixing.lam) == pytest.approx(0.3)


def test_hand_worked_pixels():
    """Two images of two pixels: 0 and 2, mean 1; 10 and 14, mean 12; the deviations are roots of 2 and of 8."""
    inputs, partners = torch.tensor([[0.0, 2.0], [10.0, 14.0]]).double().view(2, 1, 1, 2), torch.tensor([1, 0])
    content, style, both = (torch.tensor(v, dtype=torch.float64) for v in (1.0, 0.0, 0.0))
    mixing = StyleMixing(Nothing(), partners, content, style, both, 0.7)
    expected = torch.tensor([[10.0, 14.0], [0.0, 2.0]]).double()  # first content, second style, and the reverse
    torch.testing.assert_close(mixing.mix(inputs).flatten(1), expected, rtol=1e-4, atol=1e-4)
    assert float(mixing.lam) == pytest.approx(0.7)
    gamma = torch.tensor(0.5, dtype=torch.float64)
    pasting = StylePasting(Nothing(), partners, Box(0, 1, 0, 1), 0.5, torch.tensor(0.25).double(), gamma, 0.7)
    # The left pixel is in the box: 1/4 of 0 and 3/4 of (0 + 10) / 2. The right: 3/4 of 14 and 1/4 of (14 + 2) / 2.
    torch.testing.assert_close(pasting.mix(inputs)[0].flatten(), torch.tensor([3.75, 12.5]).double(), rtol=1e-4, atol=0)
    assert float(pasting.lam) == pytest.approx(0.7 * 0.5 + 0.3 * (0.5 * 0.5 + 0.5 * 0.25))


def test_gamma_one_is_a_pasted_box():
    """Nothing of the restyled images is left: CutMix whose box holds the first image."""
    inputs, targets = toy.batch(5, 3, 6, 6)
    drawn = always(StyleCutMix, gamma=1.0).draw(None, inputs, targets, seeded(1))
    top, bottom, left, right = drawn.box
    expected = inputs[drawn.partners].clone()
    expected[..., top:bottom, left:right] = inputs[..., top:bottom, left:right]
    torch.testing.assert_close(drawn.mix(inputs), expected)
    assert float(drawn.lam) == pytest.approx(drawn.box.area / 36)


def test_shares_are_drawn_as_the_paper_says():
    method, generator, inputs = always(StyleMix), seeded(1), torch.zeros(4, 3, 2, 2)
    drawn = [method.draw(None, inputs, None, generator) for _ in range(500)]
    rc, rs, t = (torch.stack([getattr(d, name) for d in drawn]).double() for name in ("content", "style", "both"))
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
    method, generator, inputs = always(StyleCutMix), seeded(1), torch.zeros(2, 3, 64, 64)
    drawn = [method.draw(None, inputs, None, generator) for _ in range(500)]
    assert stats.kstest([float(d.style) for d in drawn], stats.beta(1, 1).cdf).pvalue > 1e-3
    assert stats.kstest([float(d.gamma) for d in drawn], stats.beta(0.8, 0.8).cdf).pvalue > 1e-3
    unclipped = [d.box for d in drawn if min(d.box.top, d.box.left) > 0 and max(d.box.bottom, d.box.right) < 64]
    assert len(unclipped) > 50
    assert all(abs((b.bottom - b.top) - (b.right - b.left)) == 0 for b in unclipped)
    areas = torch.tensor([d.box.area / 64**2 for d in drawn])
    expected = sum(_mean_area((i + 0.5) / 100) for i in range(100)) / 100
    assert abs(float(areas.mean()) - expected) < 4 * float(areas.std()) / math.sqrt(500)


def _mean_area(share):
    """Mean area, over every centre, of a box with this share of a 64 x 64 image, clipped to it."""
    half = int(64 * math.sqrt(share)) // 2
    side = sum(min(c + half, 64) - max(c - half, 0) for c in range(64)) / 64
    return (side / 64) ** 2


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("probability", [0.0, None, 1.0])
def test_the_other_steps_are_plain(cls, probability):
    method = cls(learning_rate=0.0) if probability is None else cls(learning_rate=0.0, probability=probability)
    expected = {StyleMix: 0.2, StyleCutMix: 0.5}[cls] if probability is None else probability
    generator, inputs = seeded(3), torch.zeros(2, 3, 2, 2)
    plain = sum(isinstance(method.draw(None, inputs, None, generator), Plain) for _ in range(600))
    assert plain / 600 == pytest.approx(1 - expected, abs=4 * math.sqrt(expected * (1 - expected) / 600))
    if probability == 0.0:
        network, (inputs, targets) = toy.images().eval(), toy.batch(5, 3, 6, 6)
        total = method(network, inputs, targets, generator=seeded()).total
        torch.testing.assert_close(total, functional.cross_entropy(network(inputs), targets))


# --------------------------------------------------------------------------------------------------- styles of classes


def test_class_styles_are_means_of_statistics():
    first, targets = toy.batch(6, 2, 3, 3, dtype=torch.float32)
    second, more = toy.batch(5, 2, 3, 3, seed=1)
    styles = ClassStyles()
    styles.see([first, 2 * first], targets)
    styles.see([second, 2 * second], more)
    rows = {k: [] for k in range(5)}
    for images, labels in ((first, targets), (second, more)):
        for image, label in zip(images, labels.tolist(), strict=True):
            maps = [channel(image[c].flatten().tolist()) for c in range(2)]
            twice = [channel((2 * image[c]).flatten().tolist()) for c in range(2)]
            rows[label].append(
                [m for m, _ in maps] + [s for _, s in maps] + [m for m, _ in twice] + [s for _, s in twice]
            )
    for label, seen in rows.items():
        if seen:
            torch.testing.assert_close(styles.means[label], torch.tensor(seen).mean(0), rtol=1e-4, atol=1e-5)
    partners = torch.tensor([1, 2, 3, 4, 5, 0])
    for i, distance in enumerate(styles.distances(targets, partners).tolist()):
        a, b = int(targets[i]), int(targets[partners[i]])
        difference = torch.tensor(rows[a]).mean(0) - torch.tensor(rows[b]).mean(0)
        assert distance == pytest.approx(2.0 if a == b else float((difference**2).mean()), rel=1e-3, abs=1e-5)
    torch.testing.assert_close(styles.distances(toy.one_hot(targets), partners), styles.distances(targets, partners))


def test_distances_of_the_small_autoencoder_are_brought_to_scale():
    inputs, targets = toy.batch(12, 3, 6, 6)
    targets[:2] = torch.tensor([0, 4])  # some class between the others may be missing
    targets[targets == 2] = 3
    method = always(StyleCutMix, gamma="auto")
    method.draw(None, inputs, targets, seeded())
    raw = ClassStyles()
    raw.see(method.autoencoder.encode_all(inputs), targets)
    classes = sorted(set(targets.tolist()))
    pairs = torch.tensor([(a, b) for a in classes for b in classes if a != b])
    partners = torch.arange(len(pairs)).roll(-1)
    means = raw.means.double()
    mean = sum(float((means[a] - means[b]).square().mean()) for a, b in pairs.tolist()) / len(pairs)
    labels = pairs[:, 0]
    for a, b, scaled in zip(
        labels.tolist(), labels[partners].tolist(), method.styles.distances(labels, partners), strict=True
    ):
        wanted = 2.0 if a == b else 1.37 * float((means[a] - means[b]).square().mean()) / mean
        assert float(scaled) == pytest.approx(wanted, rel=1e-3)


def test_auto_gamma_is_tanh_of_the_distance():
    inputs, targets = torch.zeros(2, 3, 4, 4), torch.tensor([0, 1])
    inputs[1] = 6.0  # constant images: the means differ by 6, the deviations by nothing
    method = with_nothing(StyleCutMix, gamma="auto")
    for seed in range(8):
        drawn = method.draw(None, inputs, targets, seeded(seed))
        distance = 2.0 if int(drawn.partners[0]) == 0 else (3 * 36) / 6
        torch.testing.assert_close(drawn.gamma, torch.full((2,), math.tanh(distance / 3)))


def test_a_checkpoint_holds_decoder_and_styles():
    inputs, targets = toy.batch(5, 3, 6, 6)
    network = toy.images().eval()
    method = StyleCutMix(probability=1.0, gamma="auto", warmup=3)
    method(network, inputs, targets, generator=seeded())
    twin = StyleCutMix(probability=1.0, gamma="auto", warmup=3)
    twin.prepare(network)
    twin.load_state_dict(method.state_dict())
    for _ in range(2):
        ours, theirs = (m(network, inputs, targets, generator=seeded(1)).total for m in (method, twin))
        assert torch.equal(ours, theirs)
    assert float(twin.autoencoder.steps) == 6


# --------------------------------------------------------------------------------------------------- small autoencoder


def error(method, inputs):
    again = method.autoencoder.decode(method.autoencoder.encode(inputs), inputs)
    return float((again - inputs).square().mean() / inputs.var())


@pytest.mark.parametrize("channels", [1, 3])
def test_the_decoder_learns_from_what_it_sees(channels):
    smooth = functional.interpolate(toy.batch(8, channels, 3, 3)[0], size=(9, 7), mode="bilinear", align_corners=True)
    method = StyleMix(probability=1.0)
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
    features = ours.encode(inputs)
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
    for method in (cls(probability=1.0).eval(), cls(probability=1.0, learning_rate=0.0), cls(probability=0.0)):
        method.prepare(network)
        before = method.autoencoder.weights.clone()
        method(network, inputs, targets, generator=seeded())
        assert torch.equal(method.autoencoder.weights, before)


@pytest.mark.parametrize("cls", BOTH)
def test_the_loss_trains_the_network_alone(cls):
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, 6, 6)
    method = cls(probability=1.0, warmup=0)
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


# --------------------------------------------------------------------------------------------------- official weights


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
    method = StyleMix(probability=1.0, size=24, **paths)
    drawn = method.draw(None, inputs, targets, seeded())
    large = functional.interpolate(inputs, (24, 24), mode="bilinear", align_corners=False)
    shares = (float(drawn.content), float(drawn.style), float(drawn.both))
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
    method = StyleCutMix(probability=1.0, size=16, gamma="auto", **paths)
    method.prepare(None)
    taps = method.autoencoder.encode_all(inputs)
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


# -------------------------------------------------------------------------------------------- whatever there is to mix


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.parametrize("shape", [(1, 3, 6, 6), (3, 1, 5, 9), (2, 3, 1, 1), (5, 3, 7, 2)])
def test_images_of_any_kind_keep_their_form(shape, size, cls):
    inputs = toy.batch(*shape)[0]
    before = inputs.clone()
    constant, zero = torch.full(shape, 0.7), torch.zeros(shape[0], dtype=torch.long)
    for images in (inputs, constant, inputs.bfloat16(), inputs.double()):
        method = cls(probability=1.0, size=size, warmup=1)
        mixed, targets = method.mix(images, zero, classes=3, generator=seeded())
        assert mixed.shape == images.shape
        assert mixed.dtype == images.dtype
        assert mixed.isfinite().all()
        torch.testing.assert_close(targets, torch.eye(3)[zero])  # one class alone stays what it is
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("cls", BOTH)
def test_memory_format_and_autocast_do_not_matter(cls):
    inputs, targets = toy.batch(5, 3, 6, 6)
    mixed, _ = always(cls).mix(inputs, targets, classes=5, generator=seeded())
    last = inputs.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(always(cls).mix(last, targets, classes=5, generator=seeded())[0], mixed)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(always(cls).mix(inputs, targets, classes=5, generator=seeded())[0], mixed)


@pytest.mark.parametrize("cls", BOTH)
def test_same_state_same_result(cls):
    network, (inputs, targets) = toy.images().eval(), toy.batch(5, 3, 6, 6)
    method = cls(probability=1.0, warmup=2)
    method(network, inputs, targets, generator=seeded())
    twin = copy.deepcopy(method)
    before = torch.get_rng_state()
    totals = [m(network, inputs, targets, generator=seeded(1)).total for m in (method, twin)]
    assert torch.equal(*totals)
    assert torch.equal(torch.get_rng_state(), before)
    assert repr(method) == repr(twin)


@pytest.mark.parametrize("cls", BOTH)
def test_inputs_get_a_gradient(cls):
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, 6, 6)
    inputs.requires_grad_()
    cls(probability=1.0, warmup=0)(network, inputs, targets, generator=seeded()).total.backward()
    assert inputs.grad.isfinite().all()
    assert inputs.grad.abs().sum() > 0


@pytest.mark.parametrize("cls", BOTH)
def test_it_goes_with_teachers_and_alternatives(cls):
    network, (inputs, targets) = toy.images(), toy.batch(5, 3, 6, 6)
    for method in (
        SelfDistilled(cls(probability=1.0, warmup=1)),
        SelfDistilled(cls(probability=1.0, warmup=1), teacher="mix"),
        Alternate((cls(probability=1.0, warmup=1), ERM())),
    ):
        for seed in range(3):
            losses = method(network, inputs, targets, generator=seeded(seed))
            assert losses.total.isfinite()
            losses.total.backward()


@pytest.mark.parametrize("cls", BOTH)
def test_a_teacher_sees_its_own_view_mixed_alike(cls):
    student, teacher = toy.images().eval(), toy.images(seed=1).eval()
    (inputs, targets), other = toy.batch(5, 3, 6, 6), toy.batch(5, 3, 6, 6, seed=5)[0]
    method = always(cls)
    drawn = method.draw(student, inputs, targets, seeded())
    logits, taught = student(drawn.mix(inputs)), teacher(drawn.mix(other)).detach().softmax(-1)
    labels = references.pairs(toy.one_hot(targets), drawn.partners, float(drawn.lam))
    expected = 0.3 * functional.cross_entropy(logits, labels) + 0.7 * functional.cross_entropy(logits, taught)
    ours = method(student, inputs, targets, generator=seeded(), teacher=Teacher(teacher, other, 0.3)).total
    torch.testing.assert_close(ours, expected)


# -------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.bad_input
@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha1": 0.0}, "alpha1 must be finite and greater than 0"),
        ({"probability": 1.5}, r"probability must lie in \[0, 1\], got 1.5"),
        ({"r": -0.1}, r"r must lie in \[0, 1\], got -0.1"),
        ({"encoder": "vgg.pth"}, "encoder and decoder must be given together"),
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"size": 8, "encoder": "a", "decoder": "b"}, "size must be at least 16, got 8"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite and not negative"),
        ({"warmup": -1}, "warmup must not be negative, got -1"),
    ],
)
def test_impossible_settings_are_refused(cls, settings, message):
    with pytest.raises(ValueError, match=message):
        cls(**settings)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha2": -1.0}, "alpha2 must be finite and greater than 0"),
        ({"delta": 0.0}, "delta must be finite and greater than 0"),
        ({"gamma": 1.1}, r"gamma must be 'beta', 'auto' or a number in \[0, 1\], got 1.1"),
        ({"gamma": "fixed"}, "gamma must be 'beta', 'auto' or a number"),
    ],
)
def test_impossible_blends_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        StyleCutMix(**settings)


@pytest.mark.bad_input
@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("shape", [(4, 8), (4, 3, 8), (4, 2, 8, 8)])
def test_what_is_no_image_is_refused(shape, cls):
    message = rf"inputs must be images of shape \(b, c, h, w\) for {cls.__name__}, with 1 or 3 channels, got \(4,"
    with pytest.raises(ValueError, match=message):
        cls()(toy.vectors(), *toy.batch(*shape))
