"""Training steps against plain training and a bare loop; evaluation suites against the bare passes that they need."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from multimix._modules import as_module
from multimix.distill import EMATeacher, SelfDistilled
from multimix.lab import evaluate
from multimix.lab.bench.timing import Case, Comparison
from multimix.lab.data import Augment, Batches, Images, Splits, load
from multimix.lab.evaluate import AdversarialSettings, CorruptionSettings, OODSettings, Source, Suite
from multimix.lab.train import SGD, Engine, TrainConfig
from multimix.methods import ERM, METHODS, AlignMix, DenseMultiMix, MultiMix, RegMixup, TransMix
from multimix.models import build
from multimix.protocols import Method, Network

_BARS: tuple[tuple[Method, float | None], ...] = (
    (ERM(), None),
    (AlignMix(), 1.05),
    (RegMixup(), 2.02),
    (MultiMix(), 1.02),
    (DenseMultiMix(), 1.06),
    (SelfDistilled(MultiMix()), 1.37),
    (SelfDistilled(DenseMultiMix()), 1.37),
)
DIGITS: dict[str, Any] = {
    "data": "digits",
    "crop_padding": 1,
    "flip": False,
    "model": "preact_resnet18",
    "width": 8,
    "strides": (1, 2, 1, 1),
    "batch_size": 128,
}
"""What a step of the recipe of digits depends on."""
_GPU_BARS: tuple[tuple[Method, float | None], ...] = (
    (ERM(), None),
    (MultiMix(1000), 1.01),
    (MultiMix(100_000), 1.10),
    (MultiMix(1_000_000), None),
    (DenseMultiMix(1000), 1.05),
)
IMAGES = 128
_ATTACKED = AdversarialSettings(steps=4, curve=(), curve_examples=10)
"""What a step of PGD costs does not depend on their number."""
_OUT = OODSettings(
    sets=("gaussian-noise", "uniform-noise"),
    scores=("msp", "max_logit", "energy", "knn", "mahalanobis"),  # they need no gradient, and share one pass
    ood_examples=IMAGES,
)


def step_comparisons(device: torch.device) -> list[Callable[[], Comparison]]:
    """Return the comparisons of training steps, 128 images each; on a GPU, of large images in bfloat16 too."""
    splits = random_images(1024, 32, classes=100)
    made = (_engine_comparison, _average_comparison, _bar_comparison, _method_comparison)
    makers: list[Callable[[], Comparison]] = [
        *(partial(make, splits, device) for make in made),
        partial(_digits_comparison, device),
        partial(_attention_comparison, device),
    ]
    return [*makers, partial(_large_comparison, device)] if device.type == "cuda" else makers


def _engine_comparison(splits: Splits, device: torch.device) -> Comparison:
    """A narrow network, since what the engine adds to a step does not grow with it."""
    engine = Case("engine", engine_step(_engine(ERM(), splits, device, width=16)), 1.03)
    bare = Case("bare loop", bare_step(splits, device, width=16))
    return _training("training step, engine against a bare loop", _shape(16), bare, (engine,), rounds=101)


def _average_comparison(splits: Splits, device: torch.device) -> Comparison:
    engine = _engine(ERM(), splits, device)
    teacher = EMATeacher(cast("Network", engine.network))
    update = Case("update of the moving average", lambda: teacher.update_(as_module(engine.network)), 0.01)
    return _training("the teacher against a training step", _shape(64), Case("erm", engine_step(engine)), (update,), 3)


def _bar_comparison(splits: Splits, device: torch.device) -> Comparison:
    """The methods that have a bar, at full width."""
    erm, *cases = [_case(method, splits, device, most) for method, most in _BARS]
    rounds = 7 if device.type == "cpu" else 51
    return _training("training step against ERM", _shape(64), erm, tuple(cases), rounds)


def _method_comparison(splits: Splits, device: torch.device) -> Comparison:
    """Every method that a residual network will do for, at a quarter of the width on a CPU."""
    width = 16 if device.type == "cpu" else 64
    methods = [cls() for cls in METHODS if not getattr(cls, "needs_attention", False)]
    erm, *cases = [_case(method, splits, device, width=width) for method in methods]
    return _training("training step against ERM", _shape(width), erm, tuple(cases), rounds=3)


def _digits_comparison(device: torch.device) -> Comparison:
    """Dense MultiMix where the network costs next to nothing."""
    splits = load("digits")
    erm, dense = (_case(m, splits, device, most, **DIGITS) for m, most in ((ERM(), None), (DenseMultiMix(), 1.8)))
    shape = {"recipe": "digits", **{name: DIGITS[name] for name in ("model", "width")}, "b": 128, "px": 8, "k": 10}
    return _training("training step against ERM", shape, erm, (dense,), rounds=201)


def _attention_comparison(device: torch.device) -> Comparison:
    """A method that asks a vision transformer where it looks, in images of 16 patches."""
    splits, model = random_images(256, 64, classes=100), "timm:vit_tiny_patch16_224"
    erm, transmix = (
        _case(method, splits, device, most, model=model, width=None)
        for method, most in ((ERM(), None), (TransMix(), 1.05))
    )
    shape = {"model": model.removeprefix("timm:"), "b": 128, "px": 64, "k": 100}
    return _training("training step against ERM", shape, erm, (transmix,), rounds=15)


def _large_comparison(device: torch.device) -> Comparison:
    splits = random_images(256, 224, classes=1000)
    settings: dict[str, Any] = {"model": "torchvision:resnet50", "precision": "bf16-mixed", "width": None}
    erm, *cases = [_case(method, splits, device, most, **settings) for method, most in _GPU_BARS]
    shape = {"model": "resnet50", "b": 128, "px": 224, "k": 1000, "precision": "bf16"}
    return _training("training step against ERM", shape, erm, tuple(cases), rounds=21)


_training = partial(Comparison, decides="cpu")


def _case(method: Method, splits: Splits, device: torch.device, most: float | None = None, **settings: Any) -> Case:
    """Return a step of a method, whose name says what is distilled, and how many tuples if not as many as usual."""
    tuples, inner = getattr(method, "tuples", 1000), getattr(method, "method", None)
    name = f"{method.name} {inner.name}" if inner else method.name
    name += f" n {tuples}" * (tuples != 1000)
    return Case(name, engine_step(_engine(method, splits, device, **settings)), most)


def _shape(width: int) -> dict[str, Any]:
    return {"model": "preact_resnet18", "width": width, "b": 128, "px": 32, "k": 100}


def random_images(size: int, px: int, *, classes: int) -> Splits:
    """Return a data set of noise, for timing."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (size, 3, px, px), generator=generator, dtype=torch.uint8)
    split = Images(images, torch.arange(size) % classes, tuple(map(str, range(classes))))
    return Splits("noise", split, None, split, (0.5,) * 3, (0.25,) * 3)


def engine_step(engine: Engine) -> Callable[[], object]:
    """Return a call that does what the training loop does for one mini-batch, serving it included."""
    batches = _endless(engine.batches)

    def call() -> float:
        total, _ = engine.step(*next(batches))
        engine.at.batch %= len(engine.batches)
        return float(total)

    return call


def bare_step(splits: Splits, device: torch.device, *, width: int = 64) -> Callable[[], object]:
    """Return the same for a loop that somebody writes by hand, with the same network, data and optimiser."""
    network = _engine(ERM(), splits, device, width=width).network
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    scale: Any = {"mean": splits.mean, "std": splits.std}
    batches = _endless(Batches(splits.train, batch_size=128, augment=Augment(), device=device, **scale))

    def call() -> float:
        images, labels = next(batches)
        loss = cross_entropy(cast("Tensor", network(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return call


def _engine(method: Any, splits: Splits, device: torch.device, **settings: Any) -> Engine:
    settings = {"data": "noise", "width": 64, **settings}
    return Engine(TrainConfig(method=method, optimizer=SGD(learning_rate=0.1), device=device.type, **settings), splits)


def _endless(batches: Batches) -> Iterator[Any]:
    for epoch in count():
        yield from batches.epoch(epoch)


def suite_comparisons(device: torch.device) -> list[Callable[[], Comparison]]:
    """Return the comparisons of suites with their passes; on a CPU a narrow network shows what they add."""
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
        (evaluate.Fit, evaluate.FitSettings(), 2, 0),
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
        (Case(what, lambda: dict(suite(network)), 1.1),),
        rounds=3,
        decides="cpu",
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
