"""Each evaluation suite against the bare passes of the network that it cannot do without."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from multimix.lab.bench.compare import Case, Comparison
from multimix.lab.bench.step import random_images
from multimix.lab.evaluate import (
    OOD,
    Accuracy,
    Adversarial,
    AdversarialSettings,
    Calibration,
    Corruption,
    CorruptionSettings,
    Embedding,
    EmbeddingSettings,
    Occlusion,
    OcclusionSettings,
    OODSettings,
    Source,
    Suite,
    SuiteSettings,
)
from multimix.lab.evaluate.predict import LabelledBatches
from multimix.methods import ERM
from multimix.models import build
from multimix.protocols import Network

MOST = 1.1
"""The bar: the most that a suite may take of its passes' time."""
IMAGES = 256
STEPS = 4
"""Of PGD; what a step costs does not depend on their number."""


def suite_comparisons(device: torch.device) -> list[Callable[[], Comparison]]:
    """Return the comparisons of suites with their passes: PreActResNet-18, 256 images of 32 × 32 pixels, 10 classes.

    The network is of width 16 on a CPU, where what a suite adds weighs four times as much as with one of width 32.
    """
    width = 16 if device.type == "cpu" else 64
    network = build("preact_resnet18", num_classes=10, in_channels=3, width=width, image_size=32)
    cast("nn.Module", network).to(device).eval()
    splits = random_images(IMAGES, 32, classes=10)
    source = Source(splits, ERM(), device)
    shape = {"model": "preact_resnet18", "width": width, "images": IMAGES, "px": 32, "k": 10}
    bench = partial(_comparison, source, network, shape)
    once = AdversarialSettings(steps=STEPS, curve=(), curve_examples=10)
    sets = OODSettings(sets=("gaussian-noise", "uniform-noise"), scores=_PLAIN, ood_examples=IMAGES)
    return [
        partial(bench, Accuracy, SuiteSettings(), forward=1),
        partial(bench, Calibration, Calibration.Settings(), forward=1),
        partial(bench, Adversarial, once, **_attack_passes(once)),
        # Those of the test set, of two other sets, and of the training images that two of the scores know.
        partial(bench, OOD, sets, forward=4),
        *(
            partial(bench, Corruption, CorruptionSettings(corruptions=(name,)), forward=6)
            for name in CorruptionSettings().corruptions
        ),
        partial(bench, Occlusion, OcclusionSettings(), forward=len(OcclusionSettings().fractions)),
        partial(bench, Embedding, EmbeddingSettings(picture="none"), forward=1),
    ]


_PLAIN = ("msp", "max_logit", "energy", "knn", "mahalanobis")
"""The scores that need no gradient: they share one pass."""


def _attack_passes(settings: AdversarialSettings) -> dict[str, float]:
    """Return how often the adversarial suite passes over the test set: with a gradient, and forward only.

    FGSM takes a gradient an image and PGD one a step, in two norms each, and the two checks five times as many of a few
    images; each attack is judged by a forward pass, and so are the clean images.
    """
    few = settings.curve_examples / IMAGES
    return {"gradient": 2 + 2 * settings.steps + 10 * settings.steps * few, "forward": 5 + 2 * few}


def _comparison(
    source: Source,
    network: Network,
    shape: dict[str, Any],
    cls: type[Suite],
    settings: SuiteSettings,
    *,
    forward: float,
    gradient: float = 0,
) -> Comparison:
    suite = cls.of(source, settings)
    what = ", ".join(settings.corruptions) if isinstance(settings, CorruptionSettings) else cls.name
    batches = [(inputs.clone(), labels) for inputs, labels in source.batches(source.test())]
    return Comparison(
        f"evaluation, {cls.name}",
        {**shape, "forward": round(forward, 3), "gradient": round(gradient, 3)},
        Case("bare passes", lambda: passes(network, batches, forward=forward, gradient=gradient)),
        (Case(what, lambda: dict(suite(network)), MOST),),
        rounds=5,
    )


def passes(network: Network, batches: LabelledBatches, *, forward: float, gradient: float = 0) -> None:
    """Pass batches through a network so often: forward only, and to the gradient of the inputs.

    A part of a pass takes that part of each batch.
    """
    for part in _parts(gradient):
        for inputs, _ in batches:
            leaf = inputs[: max(2, round(part * len(inputs)))].detach().requires_grad_()
            torch.autograd.grad(network(leaf).sum(), leaf)
    with torch.inference_mode():
        for part in _parts(forward):
            for inputs, _ in batches:
                _used(network(inputs[: max(2, round(part * len(inputs)))]))


def _parts(times: float) -> list[float]:
    whole, rest = divmod(times, 1)
    return [1.0] * int(whole) + ([rest] if rest > 1e-9 else [])


def _used(logits: Tensor) -> Tensor:
    """Return the logits on the CPU, where every suite needs them."""
    return logits.float().cpu()
