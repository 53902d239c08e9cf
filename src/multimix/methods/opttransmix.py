"""OptTransMix."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from multimix._declared import Checked, Count, Positive
from multimix.methods._images import PairMixing, check_images
from multimix.methods._predict import MixesInputs
from multimix.ops import accurate, barycentre, beta, draw_partners
from multimix.protocols import Network


@dataclass(frozen=True)
class OptTransMix(MixesInputs, Checked):
    r"""Move the pixels of one image towards another: the Wasserstein barycentre of each pair; targets are mixed.

    In each channel of a pair, the smaller of the two minima is subtracted from both images, and what is left is a
    distribution of intensity over pixels, :math:`p_1` and :math:`p_2`, times its sum, :math:`s_1` and :math:`s_2`. The
    mixed channel is

    .. math::
        \tilde x = (\lambda s_1 + (1 - \lambda) s_2) \arg\min_q [\lambda W_\epsilon(q, p_1) + (1 - \lambda)
        W_\epsilon(q, p_2)] + \min(x_1, x_2)

    with the offset added back, so that images may be standardised, and the mean of the channel is mixed linearly.
    Lambda ~ Beta(alpha, alpha), one a step. At lambda = 1 the first image comes back, blurred by a Gaussian of variance
    ``epsilon / 2``, as :func:`~multimix.ops.barycentre` explains; an image paired with itself, as in a
    mini-batch of one, comes back likewise. A channel without intensity, constant at the offset, counts as spread
    evenly.

    Reference:
        Zhu et al., "AutoMix: mixup networks for sample interpolation via cooperative barycenter learning", ECCV 2020,
        its part on optimal transport. Neither code nor settings for that part are public; alpha is that of the paper's
        other method, epsilon and iterations are ours.
    """

    name: ClassVar[str] = "opttransmix"
    needs_images: ClassVar[bool] = True

    alpha: Positive = 1.0
    """Concentration of the Beta distribution."""
    epsilon: Positive = 0.004
    """Strength of the entropy; a squared length, the image's longer side being 1. It blurs by its half."""
    iterations: Count = 50
    """Iterations of the solver."""

    def draw(
        self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None
    ) -> "Transport":
        """Draw partners and lambda."""
        check_images(inputs, "OptTransMix")
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        lam = beta(1, self.alpha, generator=generator, device=inputs.device)[0]
        return Transport(partners, lam, self.epsilon, self.iterations)


@dataclass(frozen=True)
class Transport(PairMixing):
    """Pairs, and how their barycentre is solved for."""

    lam: Tensor
    epsilon: float
    iterations: int

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the barycentres of images and their partners."""
        pairs = accurate(torch.stack([inputs, inputs[self.partners]], 2))
        offset = pairs.amin((2, 3, 4), keepdim=True)
        intensity = pairs - offset
        sums = intensity.sum((3, 4), keepdim=True)
        empty = sums == 0
        weights = torch.stack([self.lam, 1 - self.lam]).to(pairs.dtype)
        masses = torch.where(empty, 1, intensity)
        mixed = barycentre(masses, weights.expand(*masses.shape[:3]), epsilon=self.epsilon, iterations=self.iterations)
        total = (weights.view(-1, 1, 1) * sums).sum(2)
        return (offset.squeeze(2) + total * mixed).to(inputs.dtype)
