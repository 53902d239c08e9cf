"""A trained network that knows its classes and its preprocessing."""

import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from multimix._declared import Count, Ge, Interval, check
from multimix._modules import evaluating
from multimix.lab._paths import expanded
from multimix.lab.data import UnreadableError, normalise
from multimix.lab.data._batches import decoded
from multimix.lab.evaluate.passes import check_finite
from multimix.lab.hub import load_pretrained
from multimix.lab.inference._transform import Transform
from multimix.lab.runs.environment import device_named
from multimix.lab.train.folder import Facts, RunFolder
from multimix.ops import BinaryCrossEntropy, objective_of
from multimix.protocols import Network

SUFFIX = ".safetensors"
SETTINGS = "multimix"
"""The entry of an exported file's metadata that says how to build the network."""
Share = Annotated[float, Interval(ge=0, le=1)]


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image."""

    top: tuple[tuple[str, float], ...]
    """The most probable classes, or labels of several, and their probabilities, the highest first."""
    labels: tuple[str, ...]
    """The class; of several labels an image, those at or above the threshold, which may be none."""

    @property
    def label(self) -> str:
        """Return the most probable class."""
        return self.top[0][0]

    @property
    def probability(self) -> float:
        """Return the probability of the most probable class."""
        return self.top[0][1]


class Classifier(nn.Module):
    """A trained network with its classes and its preprocessing, as :func:`load` returns it.

    Args:
        network: The network; it always predicts in eval mode.
        facts: What it knows of its training data.
    """

    def __init__(self, network: Network, facts: Facts) -> None:
        super().__init__()
        self.network = cast("nn.Module", network).eval()
        self.facts = facts
        self.transform = Transform(facts.shape, facts.mean, facts.std, facts.ratio)
        self.several = isinstance(objective_of(network), BinaryCrossEntropy)

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the name of every class, or label, in the order of the probabilities."""
        return self.facts.classes

    @property
    def device(self) -> torch.device:
        """Return where the network is."""
        return next(self.network.parameters()).device

    def forward(self, images: Any) -> Float[Tensor, "*b k"]:
        """Return probabilities: (k,) of one image, (b, k) of several; no gradients flow, for which use ``network``.

        Args:
            images: One image, as :class:`Transform` takes it, or a list of such; or what ``transform`` made: a float
                tensor (c, h, w) or (b, c, h, w). A uint8 tensor (b, c, h, w) is pixels.

        Raises:
            ValueError: If an image cannot be read, a tensor has another shape, or the network's output is not finite.
            TypeError: If images are of another kind.
        """
        several = isinstance(images, (list, tuple)) or (isinstance(images, Tensor) and images.ndim == 4)
        found = self._probabilities(self._batch(images if several else [images]))
        return found if several else found[0]

    def predict(self, images: Any, *, top: int = 5, threshold: float = 0.5, batch_size: int = 64) -> list[Prediction]:
        """Return a prediction for each image.

        Args:
            images: A list of images, as :class:`Transform` takes them; one image is a list of one.
            top: How many classes each prediction names.
            threshold: Probability from which on an image has one of several labels.
            batch_size: Images a batch.

        Raises:
            ValueError: If an image cannot be read.
            TypeError: If an image is of another kind.
        """
        check(Count, top=top, batch_size=batch_size)
        check(Share, threshold=threshold)
        given = list(images) if isinstance(images, (list, tuple)) else [images]
        starts = range(0, len(given), batch_size)
        rows = (self(given[start : start + batch_size]) for start in starts)
        return [self._prediction(row, top, threshold) for batch in rows for row in batch]

    def predict_files(
        self,
        paths: Iterable[str | Path],
        *,
        top: int = 5,
        threshold: float = 0.5,
        batch_size: int = 64,
        workers: int = 0,
    ) -> Iterator[tuple[str, Prediction | UnreadableError]]:
        """Yield each file with its prediction, in order, or with the reason why it cannot be read.

        Args:
            paths: Image files.
            top: As in :meth:`predict`, and so are ``threshold`` and ``batch_size``.
            threshold: Of several labels an image.
            batch_size: Images a batch.
            workers: Processes that read images; 0 reads in this one.
        """
        check(Count, top=top, batch_size=batch_size)
        check(Share, threshold=threshold)
        check(Annotated[int, Ge(0)], workers=workers)
        names = [str(expanded(path)) for path in paths]
        jobs = [names[start : start + batch_size] for start in range(0, len(names), batch_size)]
        for job, read in zip(jobs, decoded(partial(_read, self.transform), jobs, workers=workers), strict=True):
            good = [pixels for pixels in read if isinstance(pixels, Tensor)]
            rows = iter(self._probabilities(self._normalised(torch.stack(good))) if good else ())
            for path, pixels in zip(job, read, strict=True):
                bad = not isinstance(pixels, Tensor)
                yield path, UnreadableError(pixels) if bad else self._prediction(next(rows), top, threshold)

    def _batch(self, images: Any) -> Float[Tensor, "b c h w"]:
        if not len(images):
            raise ValueError("images must be one image or more, got none")
        if isinstance(images, Tensor) and images.dtype == torch.uint8 and images.shape[1:] == self.transform.shape:
            return self._normalised(images)
        return torch.stack([self._row(image).to(self.device) for image in images])

    def _normalised(self, pixels: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return normalise(pixels.to(self.device), self.facts.mean, self.facts.std)

    def _row(self, image: Any) -> Float[Tensor, "c h w"]:
        if not (isinstance(image, Tensor) and image.is_floating_point()):
            return self.transform(image)
        if image.shape != self.transform.shape:
            raise ValueError(
                "images that are float tensors must be as model.transform makes them, (c, h, w) ="
                f" {self.transform.shape}, got {tuple(image.shape)}"
            )
        if image.min() >= 0 and image.max() <= 1:
            warnings.warn(
                "images are float tensors in [0, 1]; they are taken as model.transform makes them, which scales pixels"
                " by mean and standard deviation",
                stacklevel=4,
            )
        return image.float()

    def _probabilities(self, batch: Tensor) -> Float[Tensor, "b k"]:
        with evaluating(self.network), torch.no_grad():
            logits = self.network(batch).float().cpu()
        check_finite(logits, "predicts", ruled_out=True)
        return logits.sigmoid() if self.several else logits.softmax(1)

    def _prediction(self, row: Tensor, top: int, threshold: float) -> Prediction:
        values, places = row.sort(descending=True, stable=True)
        named = [(self.classes[i], p) for i, p in zip(places.tolist(), values.tolist(), strict=True)]
        labels = [name for name, p in named if p >= threshold] if self.several else [named[0][0]]
        return Prediction(tuple(named[:top]), tuple(labels))

    def extra_repr(self) -> str:
        """Return classes and transform."""
        return f"classes={len(self.classes)}, transform={self.transform}"


def _read(transform: Transform, paths: Sequence[str]) -> list[Tensor | str]:
    found: list[Tensor | str] = []
    for path in paths:
        try:
            found.append(transform.pixels(path))
        except UnreadableError as error:
            found.append(str(error))
    return found


def load(source: str | Path, *, device: str = "auto", revision: str | None = None) -> Classifier:
    """Return a trained network with its classes and its preprocessing, ready to predict.

    ``model = mm.load("runs/NAME")``, then ``model("photo.jpg")`` or ``model.predict(["a.jpg", "b.jpg"])``. Nothing is
    run that the run's files hold.

    Args:
        source: The folder of a finished run; what ``save_pretrained`` wrote; a file that ``multimix export`` wrote as
            safetensors; or ``owner/name`` on the hub, which is asked if there is no such folder.
        device: auto (the first GPU where there is one), cpu, cuda or cuda:N.
        revision: Branch, tag or commit on the hub.

    Raises:
        FileNotFoundError: If there is no such folder, file or repository, or the run has not ended.
        ValueError: If its files are damaged, or do not say what the network was trained on.
        TypeError: If an argument is of another kind.
    """
    place = device_named(device)
    if isinstance(source, (str, Path)):
        path = expanded(source)
        if path.suffix == SUFFIX and path.is_file():
            with TemporaryDirectory() as unpacked:
                _unpack(path, Path(unpacked))
                return load(unpacked, device=device)
        if (run := RunFolder(path)).config_file.is_file() and run.checkpoint.exists():
            run.check_weights("train")
    network, facts = load_pretrained(source, revision=revision, device=str(place))
    if facts is None:
        raise ValueError(
            f"{source} was saved from a network, without its classes and its preprocessing:"
            " multimix.integrations.load_pretrained returns it as it is"
        )
    return Classifier(network, facts)


def _unpack(file: Path, folder: Path) -> None:
    """Write an exported file as a folder that ``load_pretrained`` reads."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), "pt") as opened:
            settings = (opened.metadata() or {}).get(SETTINGS)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged or no safetensors: {error}") from error
    if settings is None:
        raise ValueError(f"{file} holds weights and not what they are of: multimix export writes both")
    (folder / "config.json").write_text(settings, encoding="utf-8")
    shutil.copyfile(file, folder / "model.safetensors")
