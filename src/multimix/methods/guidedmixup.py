"""GuidedMixup."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional

from multimix._declared import Checked, Fraction
from multimix.methods._images import Weight, input_gradient, saliency_of, uniform
from multimix.methods._predict import MixesInputs, Mixing, PairMixing
from multimix.methods.puzzlemix import pool_saliency
from multimix.methods.transport import squared_distances
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
            saliency = saliency_of(input_gradient(cast("Network", network), inputs, targets))
        else:
            saliency = spectral_residual(inputs, self.sigma)
        own = pool_saliency(smooth(saliency, self.sigma), 1)
        partners = farthest_cycle(own)
        both = own + own[partners]
        mask = torch.where(both > 0, own / both, 0.5)
        return PairMixing(partners, mask.mean((1, 2)), paste_where, kept=mask.unsqueeze(1))


@torch.no_grad()
def spectral_residual(images: Float[Tensor, "b c h w"], sigma: float) -> Float[Tensor, "b h w"]:
    """Return where each image is unlike its surroundings: what its spectrum has beyond its own local mean, smoothed.

    The logarithm of the amplitudes, less its mean over 3 x 3 frequencies, goes back to pixels with the phases as they
    are. Sides of more than 128 pixels are looked at with 128.

    Reference:
        Hou and Zhang, "Saliency detection: a spectral residual approach", CVPR 2007, as GuidedMixup's code has it,
        which takes the absolute value where that paper takes its square.
    """
    images = accurate(images)
    # As luma, or the mean of as many channels as there are.
    shares = images.new_tensor(_LUMA if images.shape[1] == 3 else [1 / images.shape[1]] * images.shape[1])
    grey = (images * shares.view(-1, 1, 1)).sum(1)
    whole = grey.shape[1:]
    looked_at = [min(side, _LARGEST) for side in whole]
    spectrum = torch.fft.fft2(_resized(grey, looked_at))
    amplitude = (spectrum.real**2 + spectrum.imag**2 + _LEAST_POWER).sqrt()
    logs = amplitude.log()
    around = functional.pad(logs, (1, 1, 1, 1), mode="replicate")
    residual = (logs - functional.avg_pool2d(around, 3, 1)).exp()
    return _resized(smooth(torch.fft.ifft2(spectrum * (residual / amplitude)).abs(), sigma), whole)


def _resized(maps: Tensor, size: list[int] | torch.Size) -> Tensor:
    if list(maps.shape[1:]) == list(size):
        return maps
    return functional.interpolate(maps.unsqueeze(1), tuple(size), mode="bilinear", antialias=True)[:, 0]


def smooth(maps: Float[Tensor, "b h w"], sigma: float) -> Float[Tensor, "b h w"]:
    """Return maps smoothed by a Gaussian cut off after 3 pixels; beyond an edge a map is its own mirror image."""
    if sigma == 0:
        return maps
    down, across = (_smoothing(side, sigma, maps) for side in maps.shape[1:])
    with no_autocast(maps.device.type):
        return down @ maps @ across.mT


def _smoothing(size: int, sigma: float, like: Tensor) -> Float[Tensor, "size size"]:
    """Return how much each place of a side takes of every place; the mirror's axis is the outermost pixel."""
    steps = torch.arange(-_REACH, _REACH + 1, device=like.device)
    last = max(size - 1, 1)
    places = torch.arange(size, device=like.device).unsqueeze(1) + steps
    mirrored = (last - (places.abs() % (2 * last) - last).abs()).clamp(max=size - 1)
    weights = (-(steps.to(like.dtype) ** 2) / (2 * sigma**2)).softmax(0)
    return (functional.one_hot(mirrored, size) * weights.unsqueeze(1)).sum(1)


@torch.no_grad()
def farthest_cycle(maps: Float[Tensor, "b h w"]) -> Int[Tensor, " b"]:
    """Return the partner of each example in a cycle through all: of those left, the one farthest from the last.

    Distances are Euclidean; the cycle begins with the largest of all.
    """
    flat = maps.flatten(1).unsqueeze(0)
    with no_autocast(maps.device.type):
        distances = squared_distances(flat, flat)[0]
    taken = torch.zeros_like(distances[0])
    partners = torch.zeros(len(maps), dtype=torch.int64, device=maps.device)
    start = last = distances.amax(1).argmax().unsqueeze(0)
    for _ in range(len(maps) - 1):  # by tensors of one index, for which no device has to be waited for
        taken.index_fill_(0, last, -math.inf)
        following = (distances.index_select(0, last) + taken).argmax(1)
        partners.index_copy_(0, last, following)
        last = following
    return partners.index_copy_(0, last, start)
