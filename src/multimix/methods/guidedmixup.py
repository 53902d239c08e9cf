"""GuidedMixup."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional

from multimix._declared import Checked, Fraction
from multimix.methods._images import Weight, input_gradient, saliency_of, uniform
from multimix.methods._predict import MixesInputs, Mixing, PairMixing
from multimix.methods.puzzlemix import pool_saliency
from multimix.ops import accurate, no_autocast, paste_where
from multimix.protocols import Network

_LUMA = (0.2989, 0.587, 0.114)  # as torchvision has it, whose grey images the authors take
_REACH = 3  # pixels on either side that smoothing takes in
_LARGEST = 128  # side in pixels above which an image's spectrum is that of a smaller copy
_LEAST_POWER = 1e-10  # added to the spectrum's power, which has a logarithm then


@dataclass(frozen=True)
class GuidedMixup(MixesInputs, Checked):
    r"""Mix pairs that are salient in different places, each pixel by how salient it is in either image.

    The saliency of an image is smoothed and divided by its sum, :math:`s`. Partners form one cycle through the
    mini-batch: it begins with the two images of largest :math:`\|s - s'\|_2`, and each next image is, of those left,
    the one farthest from the last. Then

    .. math:: \tilde x = m \odot x + (1 - m) \odot x', \qquad m = s / (s + s'), \qquad \lambda = \mathrm{mean}(m)

    Nothing is drawn but whether a step is mixed. Where both images have no saliency, ``m`` is a half. The gradient is
    taken in eval mode, where the authors' code takes it in training mode. The ``clean_lam`` of that code, the loss of
    the plain images beside that of the mixed ones, is left out.

    Reference:
        Kang and Kim, "GuidedMixup: an efficient mixup strategy guided by saliency maps", AAAI 2023, arXiv 2306.16612,
        whose abstract and code were read. ``saliency="spectral"`` is its GuidedMixup-SR, for which the recipes of the
        code mix half of the steps (``prob=0.5``); ``"gradient"`` is its GuidedMixup-AP, with ``prob=0.8``.
    """

    name: ClassVar[str] = "guidedmixup"
    needs_images: ClassVar[bool] = True

    saliency: Literal["spectral", "gradient"] = "spectral"
    """Where an image is salient: by the residual of its spectrum, or by the gradient of the network's loss on it."""
    prob: Fraction = 1.0
    """Share of the steps that are mixed; the others are plain."""
    sigma: Weight = 3.0
    """Standard deviation, in pixels, of the Gaussian that smooths saliency, cut off after 3 pixels; 0 for none."""

    @property
    def needs_network(self) -> bool:  # type: ignore[override]
        """Whether the mixing depends on the network: saliency is a gradient."""
        return self.saliency == "gradient"

    @property
    def needs_gradients(self) -> bool:
        """Whether a gradient is taken to find out where to mix."""
        return self.saliency == "gradient"

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> Mixing:
        """Draw whether to mix, find the saliency of each image and pair them by it."""
        if self.prob < 1 and float(uniform(generator=generator)) >= self.prob:
            return Mixing()
        if self.saliency == "gradient":
            saliency = smooth(saliency_of(input_gradient(cast("Network", network), inputs, targets)), self.sigma)
        else:
            saliency = spectral_residual(inputs, self.sigma, again=True)
        own = pool_saliency(saliency, 1)
        partners = farthest_cycle(own)
        both = own + own[partners]
        mask = torch.where(both > 0, own / both, 0.5)
        return PairMixing(partners, mask.mean((1, 2)), paste_where, kept=mask.unsqueeze(1))


@torch.no_grad()
def spectral_residual(images: Float[Tensor, "b c h w"], sigma: float, *, again: bool = False) -> Float[Tensor, "b h w"]:
    """Return where each image is unlike its surroundings: what its spectrum has beyond its own local mean, smoothed.

    The logarithm of the amplitudes, less its mean over 3 x 3 frequencies, goes back to pixels with the phases as they
    are. Sides of more than 128 pixels are looked at with 128, and smoothed there; ``again`` smooths once more at the
    images' own size.

    Reference:
        Hou and Zhang, "Saliency detection: a spectral residual approach", CVPR 2007, as GuidedMixup's code has it,
        which takes the absolute value where that paper takes its square.
    """
    images = accurate(images)
    # As luma, or the mean of as many channels as there are.
    shares = images.new_tensor(_LUMA if images.shape[1] == 3 else [1 / images.shape[1]] * images.shape[1])
    down, across = (_changes(side, sigma, images.dtype, images.device, again=again) for side in images.shape[2:])
    with no_autocast(images.device.type):
        grey = (shares @ images.flatten(2)).unflatten(1, images.shape[2:])
        if max(grey.shape[1:]) > _LARGEST:
            grey = down.shrink @ grey @ across.shrink.mT
        spectrum = torch.fft.fft2(grey)
        # An amplitude's logarithm is half its power's. What it has beyond its mean, over itself, is 1 over that mean.
        around = down.mean @ (_squared(spectrum) + _LEAST_POWER).log_() @ across.mean.mT
        residual = torch.fft.ifft2(spectrum * around.div_(-2).exp_())
        return down.spread @ _squared(residual).sqrt_() @ across.spread.mT


def _squared(values: Tensor) -> Tensor:
    return values.real**2 + values.imag**2


class _Changes(NamedTuple):
    """What is done along a side of images, as matrices."""

    shrink: Tensor
    """To the size that is looked at, bilinear."""
    mean: Tensor
    """Of a place and those beside it; beyond an edge the last one is repeated."""
    spread: Tensor
    """Smoothing, back to the whole size, and more smoothing where it is asked for."""


@lru_cache(maxsize=16)
def _changes(side: int, sigma: float, dtype: torch.dtype, device: torch.device, *, again: bool) -> _Changes:
    small = min(side, _LARGEST)
    beside = (torch.arange(small).unsqueeze(1) + torch.arange(-1, 2)).clamp(0, small - 1)
    spread = _resizing(small, side) @ _gaussian(small, sigma)
    if again:
        spread = _gaussian(side, sigma) @ spread
    made = _resizing(side, small), functional.one_hot(beside, small).sum(1).double() / 3, spread
    return _Changes(*(matrix.to(device, dtype) for matrix in made))


def _resizing(before: int, after: int) -> Float[Tensor, "after before"]:
    """Return the matrix of a bilinear change of size, which looks at all pixels where it shrinks."""
    eye = torch.eye(before, dtype=torch.float64)
    return functional.interpolate(eye[None, None], (after, before), mode="bilinear", antialias=True)[0, 0]


def smooth(maps: Float[Tensor, "b h w"], sigma: float) -> Float[Tensor, "b h w"]:
    """Return maps smoothed by a Gaussian cut off after 3 pixels; beyond an edge a map is its own mirror image."""
    down, across = (_gaussian(side, sigma).to(maps) for side in maps.shape[1:])
    with no_autocast(maps.device.type):
        return down @ maps @ across.mT


def _gaussian(size: int, sigma: float) -> Float[Tensor, "size size"]:
    """Return how much each place of a side takes of every place; the mirror's axis is the outermost pixel."""
    if sigma == 0:
        return torch.eye(size, dtype=torch.float64)
    steps = torch.arange(-_REACH, _REACH + 1)
    places = torch.arange(size).unsqueeze(1) + steps
    last = max(size - 1, 1)
    mirrored = (last - (places.abs() % (2 * last) - last).abs()).clamp(max=size - 1)
    weights = (-(steps.double() ** 2) / (2 * sigma**2)).softmax(0)
    return (functional.one_hot(mirrored, size) * weights.unsqueeze(1)).sum(1)


@torch.no_grad()
def farthest_cycle(maps: Float[Tensor, "b h w"]) -> Int[Tensor, " b"]:
    """Return the partner of each example in a cycle through all: of those left, the one farthest from the last.

    Distances are Euclidean; the cycle begins with the largest of all.
    """
    flat = (maps - maps.mean(0)).flatten(1)  # distances do not depend on it, the rounding of their expansion does
    with no_autocast(maps.device.type):
        shared = flat @ flat.mT
    own = shared.diagonal()
    # One by one on the CPU, where a step takes a microsecond or two.
    distances = (own.unsqueeze(1) + own - 2 * shared).numpy(force=True)
    partners = [0] * len(maps)
    start = last = int(distances.max(1).argmax())
    for _ in range(len(maps) - 1):
        distances[:, last] = -math.inf
        following = int(distances[last].argmax())
        partners[last], last = following, following
    partners[last] = start
    return torch.tensor(partners, device=maps.device)
