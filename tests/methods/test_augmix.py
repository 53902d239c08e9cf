"""AugMix: its operations against Pillow's, a view and the loss against plain loops, and what pixels are taken for."""

import pytest
import torch
from scipy import stats

import cases
import toy
from methods.shared import problem, same_gradients
from multimix.methods import AugMix
from multimix.methods.augmix import OPERATIONS, operated
from multimix.ops import BinaryCrossEntropy
from toy import seeded

Image, ImageOps = pytest.importorskip("PIL.Image"), pytest.importorskip("PIL.ImageOps")


def affine(*coefficients):
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


PILLOW = {
    "autocontrast": lambda s, w, h: ImageOps.autocontrast,
    "equalize": lambda s, w, h: ImageOps.equalize,
    "posterize": lambda s, w, h: lambda image: ImageOps.posterize(image, 4 - int(abs(s) * 0.4)),
    "solarize": lambda s, w, h: lambda image: ImageOps.solarize(image, 256 - int(abs(s) * 25.6)),
    "rotate": lambda s, w, h: lambda image: image.rotate(int(s * 3), Image.Resampling.BILINEAR),
    "shear_x": lambda s, w, h: affine(1, s * 0.03, 0, 0, 1, 0),
    "shear_y": lambda s, w, h: affine(1, 0, 0, s * 0.03, 1, 0),
    "translate_x": lambda s, w, h: affine(1, 0, int(s * w / 30), 0, 1, 0),
    "translate_y": lambda s, w, h: affine(1, 0, 0, 0, 1, int(s * h / 30)),
}
"""What the authors' code does to an image of w x h pixels at strength s; of a direction, with its sign."""
CUT = {"autocontrast", "rotate", "shear_x", "shear_y"}
"""Where fractions are cut off, so that rounding may make a level of it."""


def pictures(n=12, height=17, width=24):
    """Smooth 8-bit images of several ranges, one of a single colour and one of noise."""
    coarse = torch.rand(n, 3, 4, 4, generator=seeded())
    images = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    images = images * torch.linspace(0.2, 1, n).view(-1, 1, 1, 1)
    images[0], images[1] = 0.3, torch.rand(3, height, width, generator=seeded(1))
    return (images * 255).round()


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_those_of_pillow(name):
    assert list(PILLOW) == list(OPERATIONS)
    images = pictures()
    strengths = torch.linspace(-9.99, 9.99, len(images)).roll(3)
    ours = operated(images, torch.full((len(images),), OPERATIONS.index(name)), strengths)
    for image, strength, found in zip(images, strengths.tolist(), ours, strict=True):
        height, width = image.shape[1:]
        given = Image.frombytes("RGB", (width, height), bytes(image.permute(1, 2, 0).flatten().byte().tolist()))
        truth = torch.tensor(list(PILLOW[name](strength, width, height)(given).tobytes())).view(height, width, 3)
        apart = (found - truth.permute(2, 0, 1)).abs()
        assert apart.max() <= (name in CUT)
        assert apart.mean() < 0.05


@pytest.mark.parametrize("free", [True, False], ids=["chosen images", "all images"])
def test_every_image_has_its_own_operation(free, monkeypatch):
    monkeypatch.setattr("multimix.methods.augmix.looks_are_free", lambda _: free)
    images = pictures(20)
    operations, strengths = torch.arange(20) % 10, torch.linspace(-9, 9, 20)
    before = images.clone()
    together = operated(images, operations, strengths)
    monkeypatch.undo()
    for i in range(20):
        assert torch.equal(together[i], operated(*(t[i : i + 1] for t in (images, operations, strengths)))[0])
        assert operations[i] < 9 or torch.equal(together[i], images[i])
    assert torch.equal(images, before)


@pytest.mark.parametrize("settings", [{}, {"width": 1, "depth": 2}, {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}])
def test_a_view_mixes_the_image_and_its_chains(settings):
    method = AugMix(severity=6.0, **settings)
    pixels = pictures(5) / 255
    mean, std = (torch.tensor(method.mean or 0.5).view(-1, 1, 1), torch.tensor(method.std or 0.25).view(-1, 1, 1))
    pixels[0, :, 0, :2] = torch.tensor([0.0, 1.0])  # black and white are there to be found
    inputs = (pixels - mean) / std
    drawn = method.draw(None, inputs, torch.zeros(5), seeded())
    mixed = drawn.mix(inputs)
    for i in range(5):
        view = float(drawn.lam[i]) * pixels[i].double()
        for j in range(method.width):
            levels = (pixels[i : i + 1] * 255).round()
            for operation, strength in zip(drawn.operations, drawn.strengths, strict=True):
                at = i * method.width + j
                levels = operated(levels, operation[at : at + 1], strength[at : at + 1])
            view += (1 - float(drawn.lam[i])) * float(drawn.weights[i, j]) * levels[0].double() / 255
        torch.testing.assert_close(mixed[i], ((view - mean) / std).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_the_loss_is_cross_entropy_and_the_divergence_of_three_views(soft):
    network, inputs, targets, rows = problem(7, 8, 8, soft=soft)
    method, generator = AugMix(severity=8.0, consistency=3e3), seeded()
    views = [inputs, *(method.draw(network, inputs, targets, generator).mix(inputs) for _ in range(2))]
    predictions = [network(view).softmax(1) for view in views]
    average, truth = sum(predictions) / 3, -(rows * predictions[0].log()).sum() / 7
    for p in predictions:
        truth = truth + 1e3 * (p * (p / average).log()).sum() / 7
    network.seen.clear()
    losses = method(network, inputs, targets, generator=seeded())
    assert [len(seen) for seen in network.seen] == [21]
    assert losses.terms["consistency"] > 1e-5
    same_gradients(losses.total, truth, network.parameters())


def test_a_draw_has_every_operation_and_length_as_often():
    inputs, targets = toy.batch(400, 3, 4, 4)
    drawn = AugMix(severity=3.0).draw(None, inputs, targets, seeded())
    lengths = (drawn.operations < 9).sum(0)
    assert stats.chisquare(lengths.bincount()[1:]).pvalue > 1e-3
    there = drawn.operations < 9
    assert stats.chisquare(drawn.operations[there].bincount()).pvalue > 1e-3
    assert bool((there.int().diff(dim=0) <= 0).all())
    assert stats.kstest(drawn.strengths.abs().flatten(), stats.uniform(0.1, 2.9).cdf).pvalue > 1e-3
    assert 0.45 < float((drawn.strengths > 0).float().mean()) < 0.55
    assert (AugMix(depth=5).draw(None, inputs, targets, seeded()).operations < 9).all()


NORMALISED = "mean and std must be those that inputs were normalised by, so that pixels lie in .0, 1., got pixels from"


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": (0.5, 0.5, 0.5)}, r"mean must have as many values as std, got \(0.5, 0.5, 0.5\) and None"),
        ({"std": (0.5,)}, r"mean must have as many values as std, got None and \(0.5,\)"),
        ({"mean": (0.5,), "std": (0.5,)}, r"mean must have a value for each of 3 channels, got \(0.5,\)"),
        ({"mean": (0.5,) * 3, "std": (0.25,) * 3}, f"{NORMALISED} -0.5 to 1.5"),
    ],
)
def test_images_that_were_not_so_normalised_are_refused(settings, message):
    network, inputs, targets = cases.images()
    inputs = 4 * inputs / inputs.abs().max()
    inputs[0, 0, 0, :2] = torch.tensor([-4.0, 4.0])
    with pytest.raises(ValueError, match=f"^{message}"):
        AugMix(**settings)(network, inputs, targets)


@pytest.mark.bad_input
def test_labels_that_would_have_to_move_are_refused():
    network, inputs, targets = cases.images()
    for wrong in (torch.zeros(7, 6, 6, dtype=torch.long), torch.rand(7, 5, 6, 6)):
        with pytest.raises(ValueError, match=r"^targets must be one row an example for AugMix"):
            AugMix(consistency=0.0).mix(inputs, wrong, num_classes=5)
    dense = toy.images()
    dense.pool = lambda features: features
    with pytest.raises(ValueError, match=r"^network must have one output an example, \(b, k\), for AugMix, got \(21,"):
        AugMix()(dense, inputs, targets)
    network.objective = BinaryCrossEntropy()
    labels = toy.one_hot(targets)
    with pytest.raises(ValueError, match=r"^objective must be CrossEntropy for AugMix, .*consistency=0"):
        AugMix()(network, inputs, labels)
    assert AugMix(consistency=0.0)(network, inputs, labels, generator=seeded()).total.isfinite()
