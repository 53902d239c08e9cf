"""A trained network as one file for other programs, checked on the spot against the network itself."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multimix import __version__
from multimix._modules import evaluating
from multimix._optional import require
from multimix.lab._paths import expanded
from multimix.lab.data import seed_of
from multimix.lab.hub import save_pretrained
from multimix.lab.inference._classifier import SETTINGS, Classifier, load
from multimix.lab.runs.files import replacing
from multimix.lab.train.folder import RunFolder

FORMATS = ("onnx", "pt2", "safetensors")
OPSET = 18
"""Of ONNX."""
TOLERANCE = 1e-4
"""Largest difference of logits between a file and its network, as a share of the largest logit, at least of 1."""
_BATCHES = (1, 5)
"""Sizes of the batches that a file is checked with; that it was made with is another."""
_INPUT, _OUTPUTS = "images", ("logits", "probabilities")

Run = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Exported:
    """What an export came to."""

    file: Path
    """The file that was written."""
    format: str
    """One of ``FORMATS``."""
    runtime: str
    """What ran the file to check it."""
    difference: float
    """Largest absolute difference of its logits from the network's, on images of random pixels."""
    largest: float
    """The largest absolute logit there."""
    about: dict[str, Any]
    """What the file says of itself: classes, input, outputs and preprocessing."""


class _Served(nn.Module):
    """A network that takes pixels in [0, 1] and gives logits and probabilities."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.network, self.several = model.network, model.several
        for name in ("mean", "std"):
            values = torch.tensor(getattr(model.facts, name), device=model.device)
            self.register_buffer(name, values.view(1, -1, 1, 1))

    def forward(self, images: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor]:
        logits = self.network((images - self.mean) / self.std)
        return logits, logits.sigmoid() if self.several else logits.softmax(1)


def export(source: str | Path | Classifier, out: str | Path, *, format: str | None = None) -> Exported:
    """Write a trained network to one file for other programs, and check what is in it against the network.

    ``onnx`` and ``pt2`` (``torch.export``) are whole programs: any number of float32 images (b, c, h, w), with pixels
    in [0, 1] and already of the network's size, give logits and probabilities (b, k); normalisation is inside.
    ``safetensors`` holds the weights and how to build the network, for ``multimix.load``. Classes and preprocessing are
    in the metadata of each: ``multimix`` in ONNX and safetensors, ``multimix.json`` among the extra files of pt2.

    Args:
        source: What :func:`multimix.load` takes or returns; safetensors needs the former.
        out: The file to write; one that is there is replaced once the new one is checked.
        format: One of ``FORMATS``; None for what the ending of ``out`` says.

    Raises:
        ValueError: If the format is unknown, the network cannot be exported, or the file computes something else.
        ImportError: If a package is missing; the line says which.
        OSError: If the file cannot be written.
    """
    target = expanded(out)
    kind = target.suffix.removeprefix(".") if format is None else format
    if kind not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {kind!r}; or give out one of these endings")
    if kind == "safetensors" and (isinstance(source, Classifier) or not expanded(source).is_dir()):
        raise ValueError("source must be the folder of a run for safetensors, which says how to build the network")
    model = source if isinstance(source, Classifier) else load(source, device="cpu")
    if model.device.type != "cpu":
        raise ValueError(f"source must be on the CPU, model.cpu(), got one on {model.device}")
    about = described(model)
    with TemporaryDirectory(dir=_folder(target)) as place:
        fresh = Path(place) / f"model.{kind}"
        if kind == "safetensors":
            _write_weights(cast("str", source), fresh, model)
            runtime, run = f"multimix {__version__}", _served_again(fresh)
        else:
            write = {"onnx": _write_onnx, "pt2": _write_program}[kind]
            runtime, run = write(_Served(model), fresh, about, model)
        difference, largest = _compare(model, run)
        if not difference <= TOLERANCE * max(largest, 1.0):
            raise ValueError(
                f"{target} is not written: {runtime} computes logits from it that differ by {difference:.3g} from the"
                f" network's, which reach {largest:.3g}"
            )
        with replacing(target) as file:
            file.write(fresh.read_bytes())
    return Exported(target, kind, runtime, difference, largest, about)


def described(model: Classifier) -> dict[str, Any]:
    """Return what an exported file says of itself."""
    channels, height, width = model.transform.shape
    ratio = model.transform.ratio
    return {
        "multimix": __version__,
        "classes": list(model.classes),
        "labels": "any number an image" if model.several else "one an image",
        "input": {
            "name": _INPUT,
            "shape": ["batch", channels, height, width],
            "type": "float32",
            "pixels": "in [0, 1], " + ("grey" if channels == 1 else "RGB"),
        },
        "outputs": list(_OUTPUTS),
        "preprocessing": {
            "shorter_side": round(height * ratio) if height == width else None,
            "centre_crop": [height, width],
            "interpolation": "bilinear, antialiased",
            "transparent": "laid on white",
        },
        "normalisation": {"mean": list(model.facts.mean), "std": list(model.facts.std), "inside": True},
    }


def _folder(target: Path) -> Path:
    if target.is_dir():
        raise ValueError(f"out must be a file, got the folder {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.parent


def _write_onnx(served: _Served, file: Path, about: dict[str, Any], model: Classifier) -> tuple[str, Run]:
    require("onnx", by="export to ONNX")
    require("onnxscript", by="export to ONNX")
    program = _exported(served, model)
    made: Any = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=[_INPUT],
        output_names=list(_OUTPUTS),
        verbose=False,
        external_data=False,
    )
    made.model.metadata_props[SETTINGS] = json.dumps(about)
    made.save(str(file), external_data=False)
    try:
        runtime = require("onnxruntime", by="a check of ONNX")
    except ImportError:
        return _onnx_reference(file)
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        logits, probabilities = session.run(list(_OUTPUTS), {_INPUT: images.numpy()})
        return torch.from_numpy(logits), torch.from_numpy(probabilities)

    return f"onnxruntime {version('onnxruntime')}", run


def _onnx_reference(file: Path) -> tuple[str, Run]:
    reference = require("onnx.reference", by="a check of ONNX").ReferenceEvaluator(str(file))

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        logits, probabilities = reference.run(list(_OUTPUTS), {_INPUT: images.numpy()})
        return torch.from_numpy(logits), torch.from_numpy(probabilities)

    return f"the reference evaluator of onnx {version('onnx')}", run


def _write_program(served: _Served, file: Path, about: dict[str, Any], model: Classifier) -> tuple[str, Run]:
    torch.export.save(_exported(served, model), str(file), extra_files={f"{SETTINGS}.json": json.dumps(about)})
    return f"torch {torch.__version__}", torch.export.load(str(file)).module()


def _exported(served: _Served, model: Classifier) -> Any:
    """Return the network as a program of torch.export, for batches of any size."""
    size = torch.export.Dim("batch", min=1)
    images = _images(model, 3)
    try:
        with evaluating(served), torch.no_grad():
            return torch.export.export(served.eval(), (images,), dynamic_shapes=({0: size},), strict=False)
    except Exception as error:  # torch.export has errors of many kinds
        raise ValueError(f"the network cannot be exported: {' '.join(str(error).split())[:300]}") from error


def _write_weights(source: Path | str, file: Path, model: Classifier) -> None:
    from safetensors.torch import save_model

    with TemporaryDirectory() as place:
        run = RunFolder(source)
        folder = save_pretrained(run.path, Path(place) / "model") if run.metrics.path.exists() else run.path
        written = json.loads((folder / run.config_file.name).read_text(encoding="utf-8"))
    save_model(model.network, str(file), {SETTINGS: json.dumps({**written, "about": described(model)})})


def _served_again(file: Path) -> Run:
    return _Served(load(file, device="cpu"))


def _images(model: Classifier, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed_of("export", count))
    return torch.rand(count, *model.transform.shape, generator=generator)


def _compare(model: Classifier, run: Run) -> tuple[float, float]:
    """Return the largest difference of logits on random images in batches of several sizes, and the largest logit."""
    served, differences, largest = _Served(model), [], 0.0
    with evaluating(served), torch.no_grad():
        for count in _BATCHES:
            images = _images(model, count)
            (theirs, _), (ours, _) = run(images), served(images)
            differences.append(float((theirs - ours).abs().max()))
            largest = max(largest, float(ours.abs().max()))
    return max(differences), largest
