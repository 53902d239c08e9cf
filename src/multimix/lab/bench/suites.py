"""Each evaluation suite against the bare passes of the network that it cannot do without."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from multimix.lab import evaluate
from multimix.lab.bench.step import random_images
from multimix.lab.bench.timing import Case, Comparison
from multimix.lab.evaluate import AdversarialSettings, CorruptionSettings, OODSettings, Source, Suite
from multimix.methods import ERM
from multimix.models import build
from multimix.protocols import Network

MOST = 1.1
"""The bar: the most that a suite may take of its passes' time."""
IMAGES = 256

_ATTACKED = AdversarialSettings(steps=4, curve=(), curve_examples=10)
"""What a step of PGD costs does not depend on their number."""
_OUT = OODSettings(
    sets=("gaussian-noise", "uniform-noise"),
    scores=("msp", "max_logit", "energy", "knn", "mahalanobis"),  # they need no gradient, and share one pass
    ood_examples=IMAGES,
)


def suite_comparisons(device: torch.device) -> list[Callable[[], Comparison]]:
    """Return the comparisons of suites with their passes: PreActResNet-18, 256 images of 32 × 32 pixels, 10 classes.

    The network is of width 16 on a CPU, where what a suite adds weighs four times as much as with one of width 32.
    """
    width = 16 if device.type == "cpu" else 64
    network = build("preact_resnet18", num_classes=10, in_channels=3, width=width, image_size=32)
    cast("nn.Module", network).to(device).eval()
    source = Source(random_images(IMAGES, 32, classes=10), ERM(), device)
    shape = {"model": "preact_resnet18", "width": width, "images": IMAGES, "px": 32, "k": 10}
    # FGSM takes a gradient an image and PGD one a step, in two norms each, and the two checks five times as many of a
    # few images; each attack is judged by a forward pass, and so are the clean images.
    few, steps = _ATTACKED.curve_examples / IMAGES, _ATTACKED.steps
    corruptions = [CorruptionSettings(corruptions=(name,)) for name in CorruptionSettings().corruptions]
    occlusion = evaluate.OcclusionSettings()
    # How often each passes over the test set: forward only, and to a gradient of its inputs.
    plans: list[tuple[type[Suite], Any, float, float]] = [
        (evaluate.Accuracy, evaluate.SuiteSettings(), 1, 0),
        (evaluate.Calibration, evaluate.CalibrationSettings(), 1, 0),
        (evaluate.Adversarial, _ATTACKED, 5 + 2 * few, 2 + 2 * steps + 10 * steps * few),
        # Those of the test set, of two other sets, and of the training images that two of the scores know.
        (evaluate.OOD, _OUT, 4, 0),
        *((evaluate.Corruption, settings, 6, 0) for settings in corruptions),
        (evaluate.Occlusion, occlusion, len(occlusion.fractions), 0),
        (evaluate.Embedding, evaluate.EmbeddingSettings(picture="none"), 1, 0),
    ]
    return [partial(_comparison, source, network, shape, *plan) for plan in plans]


def _comparison(
    source: Source, network: Network, shape: dict, cls: type[Suite], settings: Any, forward: float, gradient: float
) -> Comparison:
    suite = cls.of(source, settings)
    batches = [inputs.clone() for inputs, _ in source.batches(source.test())]
    what = ", ".join(getattr(settings, "corruptions", ())) or cls.name
    return Comparison(
        f"evaluation, {cls.name}",
        {**shape, "forward": round(forward, 3), "gradient": round(gradient, 3)},
        Case("bare passes", lambda: bare_passes(network, batches, forward=forward, gradient=gradient)),
        (Case(what, lambda: dict(suite(network)), MOST),),
        rounds=5,
    )


def bare_passes(network: Network, batches: list[torch.Tensor], *, forward: float, gradient: float) -> None:
    """Pass batches through a network so often; a fraction of a pass takes that fraction of each batch."""
    for leaf in _repeated(batches, gradient):
        leaf = leaf.detach().requires_grad_()
        torch.autograd.grad(network(leaf).sum(), leaf)
    with torch.inference_mode():
        for inputs in _repeated(batches, forward):
            network(inputs).float().cpu()  # where every suite needs them


def _repeated(batches: list[torch.Tensor], times: float) -> list[torch.Tensor]:
    whole, rest = divmod(times, 1)
    some = [inputs[: max(2, round(rest * len(inputs)))] for inputs in batches] if rest > 1e-9 else []
    return batches * int(whole) + some
