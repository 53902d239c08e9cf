"""What mixes by optimal transport: of positions of feature maps, or of pixels."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from multimix._declared import Checked, Count, Fraction, Ge, Positive
from multimix._modules import outside
from multimix.methods._images import uniform
from multimix.methods._predict import MixesInputs, PairMixing, Predicts
from multimix.methods.mixup import draw_pairing
from multimix.ops import accurate, barycentre, beta, draw_partners, no_autocast, sinkhorn
from multimix.protocols import Network, encode, pool, require_part


@dataclass(frozen=True)
class AlignMix(Predicts, Checked):
    r"""Mix pairs of last feature maps after aligning one with the other; half of the steps mix the inputs instead.

    Positions of the two maps :math:`A, A'` are matched by entropic optimal transport between uniform marginals, the
    cost being the squared Euclidean distance. With the plan :math:`P` and :math:`R = r P`, a coin chooses between
    :math:`\lambda A + (1 - \lambda) A' R^\top`, the second map moved onto the first, and
    :math:`\lambda A R + (1 - \lambda) A'`. Lambda ~ Beta(alpha, alpha), one a step. No gradient passes the plan.

    A network whose ``pool`` is the mean over positions hardly sees the alignment: the first form pools to
    :math:`\lambda` and :math:`1 - \lambda` times the pooled maps, whatever the plan, and the second does so as far as
    Sinkhorn's iteration has converged. This holds of the official code, too.

    Reference:
        Venkataramanan et al., "AlignMixup: improving representations by interpolating aligned features", CVPR 2022,
        section 3; settings of its CIFAR code, which has no autoencoder.
    """

    name: ClassVar[str] = "alignmix"
    needs_positions: ClassVar[bool] = True

    alpha: Positive = 2.0
    """Concentration of the Beta distribution."""
    prob: Fraction = 0.5
    """Share of the steps that mix aligned feature maps; the others mix the inputs."""
    epsilon: Positive = 0.1
    """Weight of the plan's entropy, in units of the cost."""
    iterations: Count = 100
    """Most iterations of Sinkhorn's algorithm."""
    tolerance: Annotated[float, Ge(0)] = 0.1
    """Stop once a potential changes by less: its absolute change summed over positions, averaged over pairs."""

    def draw(self, network: Network, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners, lambda and both coins."""
        require_part(network, "positions")
        aligns, onto_first = uniform(2, generator=generator).tolist()
        pairing = draw_pairing(len(inputs), self.alpha, inputs, generator)
        return Aligning(pairing, self, onto_first=onto_first < 0.5) if aligns < self.prob else pairing

    def plan(self, first: Float[Tensor, "b r d"], second: Float[Tensor, "b s d"]) -> Float[Tensor, "b r s"]:
        """Return the transport plan from each map's positions to its partner's, in float32 at least."""
        with torch.no_grad(), no_autocast(first.device.type):
            cost = squared_distances(accurate(first), accurate(second))
            return sinkhorn(cost, self.epsilon, iterations=self.iterations, tolerance=self.tolerance)


class Aligning(PairMixing):
    """Pairs of feature maps of which one is moved onto the other: the partner's onto the example's own, or back."""

    inside: ClassVar[bool] = True

    def __init__(self, pairing: PairMixing, settings: AlignMix, *, onto_first: bool) -> None:
        super().__init__(pairing.partners, pairing.lam)
        self.onto_first, self.settings = onto_first, settings

    def predict(self, network: Network, inputs: Tensor) -> Tensor:
        """Return the logits of the mixed mini-batch."""
        output = encode(network, inputs)
        return network.classify(pool(network, replace(output, features=self.mix(output.features))))

    def mix(self, features: Float[Tensor, "b r d"]) -> Float[Tensor, "b r d"]:
        """Return aligned feature maps mixed; a row is a position here, where the paper has columns."""
        first, second = features, features[self.partners]
        assignment = (outside(self.settings.plan, first, second) * features.shape[1]).to(features.dtype)
        with no_autocast(features.device.type):
            if self.onto_first:
                second = assignment @ second
            else:
                first = assignment.mT @ first
        return torch.lerp(second, first, self.lam.to(features.device, features.dtype))


def squared_distances(first: Float[Tensor, "b r d"], second: Float[Tensor, "b s d"]) -> Float[Tensor, "b r s"]:
    """Return the squared Euclidean distance between every position of one map and every position of the other."""
    centre = first.mean(1, keepdim=True)  # distances do not depend on it, the rounding of their expansion does
    first, second = first - centre, second - centre
    norms = first.square().sum(2).unsqueeze(2) + second.square().sum(2).unsqueeze(1)
    return torch.baddbmm(norms, first, second.mT, alpha=-2).clamp_(min=0)


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

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners and lambda."""
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        lam = beta(1, self.alpha, generator=generator, device=inputs.device)[0]
        return PairMixing(partners, lam, self._transported, weights=torch.stack([lam, 1 - lam]))

    def _transported(self, images: Tensor, partners: Tensor, weights: Tensor) -> Tensor:
        """Return the barycentres of images and their partners."""
        pairs = accurate(torch.stack([images, images[partners]], 2))
        offset = pairs.amin((2, 3, 4), keepdim=True)
        intensity = pairs - offset
        sums, weights = intensity.sum((3, 4), keepdim=True), weights.to(pairs.dtype)
        masses = torch.where(sums == 0, 1, intensity)
        mixed = barycentre(masses, weights.expand(*masses.shape[:3]), epsilon=self.epsilon, iterations=self.iterations)
        total = (weights.view(-1, 1, 1) * sums).sum(2)
        return (offset.squeeze(2) + total * mixed).to(images.dtype)
