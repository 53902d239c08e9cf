"""Co-Mixup."""

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional

from multimix._declared import Checked, Count, Fraction, Positive
from multimix._modules import outside
from multimix.methods._images import Weight, input_gradient, kept_statistics, saliency_of
from multimix.methods._predict import MixesInputs, Mixing, Step, wanted_of
from multimix.ops import comix_masks, dirichlet, no_autocast, objective_of
from multimix.protocols import Losses, Network


@dataclass(frozen=True)
class CoMixup(MixesInputs, Checked):
    """Assemble as many mixed images as there are images, each cell of a grid from any of them, all jointly.

    The mini-batch is cut into parts. Within a part every cell of every output takes one input or an even blend of two,
    such that the cells are salient, their borders few, and no input crowds several outputs; see
    :func:`multimix.ops.comix_masks`. Targets are mixed by the share of cells. Where the grid does
    not divide a side of the images, its cells differ by one pixel; a side of fewer pixels than cells has one cell a
    pixel.

    The loss is the cross-entropy of the mixed images plus that of the plain ones, against the labels. The pass over the
    plain ones, which also gives the saliency, leaves running statistics alone.

    Reference:
        Kim, Choo, Jeong and Song, "Co-Mixup: saliency guided joint mixup with supermodular diversity", ICLR 2021;
        schedule and defaults of its CIFAR-100 code.
    """

    name: ClassVar[str] = "co-mixup"
    needs_images: ClassVar[bool] = True
    needs_network: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True

    alpha: Positive = 2.0
    """Concentration of the Dirichlet prior over the inputs of a part."""
    beta: Weight = 0.32
    """Weight of smoothness."""
    gamma: Weight = 1.0
    """Weight of the supermodular term, which keeps several outputs from using the same inputs."""
    tau: Weight = 0.83
    """Share of the grid from which on that term counts what other outputs use of an input."""
    eta: Weight = 0.05
    """Weight of the logarithm of the prior."""
    omega: Fraction = 0.001
    """Share of the distance between salient spots in how inputs compete; the rest is the input with itself."""
    grid: Count = 4
    """Cells along each side."""
    part: Count = 20
    """Most images that are mixed with one another; the last part takes what is left."""
    iterations: Count = 4
    """How often each output chooses."""
    settle: bool = False
    """Let outputs that are left with crowded inputs choose again at last; the official code has no such step."""
    clean: Weight = 1.0
    """Weight of the cross-entropy of the plain images."""

    def losses(self, step: Step) -> Losses:
        """Return the losses of the mixed and the plain mini-batch; a teacher's predictions join the former."""
        if self.clean == 0:
            return super().losses(step)
        loss, mixing = outside(self._look, step)
        mixed = self.compare(step, mixing, mixing.predict(step.network, step.inputs))
        return Losses(mixed.total + self.clean * loss, {**mixed.terms, "clean": loss.detach()})

    def _look(self, step: Step) -> tuple[Tensor, "Assembly"]:
        """Return the loss of the plain mini-batch, and the mixing by its gradient on the inputs."""
        network, inputs = step.network, step.inputs
        pixels = inputs if inputs.requires_grad else inputs.detach().requires_grad_()
        with kept_statistics(network), torch.enable_grad():  # the saliency is a gradient, wanted or not
            plain = network(pixels)
            loss = objective_of(network)(plain, wanted_of(network, step.targets, plain))
            (gradient,) = torch.autograd.grad(loss * len(inputs), pixels, retain_graph=True)
        return loss, self.mixing(saliency_of(gradient), step.generator)

    def draw(self, network: Network | None, inputs: Tensor, targets: Tensor, generator: Generator | None) -> "Assembly":
        """Draw the prior and a start, and choose the inputs of all cells."""
        gradient = input_gradient(cast("Network", network), inputs, targets)
        return self.mixing(saliency_of(gradient), generator)

    def mixing(self, saliency: Float[Tensor, "b h w"], generator: Generator | None = None) -> "Assembly":
        """Return the mixing of images of which the saliency, not negative and of any scale, is known."""
        saliency = saliency.detach().nan_to_num(0.0, 0.0, 0.0)
        spots, cells = _salient_spots(saliency).cpu(), _share_of_cells(saliency, self.grid).cpu()
        chosen = [
            self._choose(cells[at : at + self.part], spots[at : at + self.part], generator) + at
            for at in range(0, len(cells), self.part)
        ]
        return Assembly(torch.cat(chosen, 1).to(saliency.device))

    def _choose(self, cells: Tensor, spots: Tensor, generator: Generator | None) -> Int[Tensor, "2 n h w"]:
        """Return the two inputs, the same one twice or two different ones, of every cell of a part's outputs."""
        b, r = len(cells), cells[0].numel()
        prior = dirichlet(1, b, self.alpha, generator=generator).cpu()[0]
        home = generator.device if generator else None
        start = torch.randint(b, tuple(cells.shape), generator=generator, device=home)
        masks = comix_masks(
            -cells - self.eta / r * (prior + 1e-8).log()[:, None, None],
            _affinity(spots, self.omega),
            start,
            beta=self.beta,
            gamma=self.gamma,
            tau=self.tau,
            iterations=self.iterations,
            settle=self.settle,
        )
        return torch.stack([masks.argmax(-1), b - 1 - masks.flip(-1).argmax(-1)])


@dataclass(frozen=True)
class Assembly(Mixing):
    """The two inputs whose mean each cell of each output is; the same one twice where it is no blend."""

    chosen: Int[Tensor, "2 b rows columns"]

    def mix(self, inputs: Tensor) -> Tensor:
        """Return the assembled images."""
        sides = zip(inputs.shape[2:], self.chosen.shape[2:], strict=True)
        rows, columns = (_cell_of(side, n, inputs.device) for side, n in sides)
        pixels = self.chosen[:, :, rows][..., columns].unsqueeze(2).expand(2, *inputs.shape)
        first, second = (inputs.gather(0, index) for index in pixels)
        return (first + second) / 2

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the class probabilities mixed by the share of cells."""
        b = len(targets)
        share = functional.one_hot(self.chosen.transpose(0, 1).flatten(1), b).to(targets.dtype).mean(1)
        with no_autocast(targets.device.type):
            return share @ targets


def _cell_of(side: int, cells: int, device: torch.device) -> Int[Tensor, " side"]:
    return torch.arange(side, device=device) * cells // side


def _share_of_cells(saliency: Float[Tensor, "b h w"], grid: int) -> Float[Tensor, "b rows columns"]:
    """Return the mean saliency of each cell as a share of the image's; equal shares where an image has none."""
    for side in saliency.shape[1:]:
        cells = min(grid, side)
        member = functional.one_hot(_cell_of(side, cells, saliency.device), cells).to(saliency.dtype)
        saliency = torch.tensordot(saliency, member / member.sum(0), ([1], [0]))  # the next side comes first
    total = saliency.sum((1, 2), keepdim=True)
    return torch.where(total > 0, saliency / total.clamp_min(torch.finfo(saliency.dtype).tiny), 1 / saliency[0].numel())


def _salient_spots(saliency: Float[Tensor, "b h w"]) -> Int[Tensor, "b 2"]:
    """Return row and column of the window of 8 x 8 pixels that is most salient in the mean."""
    h, w = saliency.shape[1:]
    means = functional.avg_pool2d(saliency.unsqueeze(1), (min(8, h), min(8, w)), stride=1)[:, 0]
    where = means.flatten(1).argmax(1)
    return torch.stack([where // means.shape[2], where % means.shape[2]], 1)


def _affinity(spots: Int[Tensor, "b 2"], omega: float) -> Float[Tensor, "b b"]:
    """Return how inputs compete: ``(1 - omega) I`` plus omega times city-block distances whose mean over rows is 1."""
    distance = (spots[:, None] - spots).abs().sum(-1).double()
    scale = len(spots) / distance.sum().clamp_min(1)  # no two spots apart: no distance at all
    return (1 - omega) * torch.eye(len(spots), dtype=torch.float64) + omega * scale * distance
