"""What mixes two images by one mask for the whole mini-batch: a soft spot, or the cells of a grid."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from multimix._declared import Checked, Count, Positive
from multimix.methods._images import uniform
from multimix.methods._predict import MixesInputs, PairMixing
from multimix.ops import beta, draw_partners, paste_where
from multimix.protocols import Network


@dataclass(frozen=True)
class SmoothMix(MixesInputs, Checked):
    r"""Blend each image into its partner by a Gaussian spot, without edges; targets are mixed by the spot's mean.

    .. math:: \tilde x = G \odot x + (1 - G) \odot x', \qquad G = e^{-\frac{1}{2} (u^2 + v^2) / \sigma^2}, \qquad
        \lambda = \mathrm{mean}(G)

    with the distances u and v from the spot's centre, along the height and the width, as shares of these. The centre is
    uniform over the image and sigma over ``sigmas``. One spot serves all images of a step.

    Reference:
        Lee et al., "SmoothMix: a simple yet effective data augmentation to train robust classifiers", CVPR Workshops
        2020, its mask C. Its text was not at hand: the mask is that of openmixup, which gives lambda to the label of
        the other image. The mask S, a box with linear edges, is left out.
    """

    name: ClassVar[str] = "smoothmix"
    needs_images: ClassVar[bool] = True
    takes_videos: ClassVar[bool] = True

    sigmas: tuple[Positive, Positive] = (0.25, 0.5)
    """Least and largest standard deviation of the spot, as a part of the image's height and width."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigmas[0] > self.sigmas[1]:
            raise ValueError(f"sigmas must be (low, high) with low <= high, got {self.sigmas}")

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners and a spot."""
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        drawn = uniform(3, generator=generator, like=inputs)
        low, high = self.sigmas
        spread = 2 * (low + (high - low) * drawn[2]).square()
        down, along = (
            (-(((torch.arange(side, device=inputs.device) + 0.5) / side - centre).square()) / spread).exp()
            for side, centre in zip(inputs.shape[-2:], drawn, strict=False)
        )
        spot = down.unsqueeze(1) * along
        return PairMixing(partners, spot.mean(), paste_where, kept=spot)


@dataclass(frozen=True)
class GridMix(MixesInputs, Checked):
    """Take each cell of a grid from an image or from its partner; targets are mixed by the area.

    Of the cells a share lambda ~ Beta(alpha, alpha), rounded to whole ones and drawn at random, is the image's own.
    Where the grid does not divide a side, its cells differ by one pixel; a side of fewer pixels than cells has one cell
    a pixel. One mask serves all images of a step.

    The other half of the paper is left out: a second classifier that is trained to tell, cell by cell, which image's
    class a cell shows. What openmixup calls gridmix is another method, GridMixup by I. Dobrynin, with a regular pattern
    of holes.

    Reference:
        Baek, Bang and Shim, "GridMix: strong regularization through local context mapping", Pattern Recognition 109,
        2021. Its text was not at hand, only the overview on its project page, and there is no public code: how cells
        are drawn, and the defaults, are ours.
    """

    name: ClassVar[str] = "gridmix"
    needs_images: ClassVar[bool] = True
    takes_videos: ClassVar[bool] = True
    pastes: ClassVar[bool] = True

    alpha: Positive = 1.0
    """Concentration of the Beta distribution."""
    grid: Count = 4
    """Cells along each side."""

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> PairMixing:
        """Draw partners, and which cells of the grid are the image's own."""
        partners = draw_partners(len(inputs), generator=generator, device=inputs.device)
        sides = inputs.shape[-2:]
        rows, columns = (min(self.grid, side) for side in sides)
        own = round(float(beta(1, self.alpha, generator=generator)) * rows * columns)
        order = draw_partners(rows * columns, generator=generator, device=inputs.device)
        cells = (order < own).float().view(rows, columns)
        down, along = (
            torch.arange(side, device=inputs.device) * n // side for side, n in zip(sides, (rows, columns), strict=True)
        )
        mask = cells[down][:, along]
        return PairMixing(partners, mask.mean(), paste_where, kept=mask)
