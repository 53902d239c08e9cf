"""The search for SuperMix's masks: one objective, one Newton-like step, and the loop around it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import interpolate

from multimix.methods._predict import InputMixing
from multimix.ops import accurate, no_autocast

_LEAST_STEP, _MOST_STEP = 1e-4, 2000.0
"""Bounds on the step's length, those of the official code."""

Supervisor = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MaskedSets(InputMixing):
    """Which examples make up each set, how their targets are weighed, and where each one shows."""

    members: Int[Tensor, "m b"]
    """For each example the set that it leads: itself first."""
    weights: Float[Tensor, "b m"]
    """Of the members' targets."""
    values: Float[Tensor, "b m s s"]
    """The masks before upsampling, sigmoid and normalisation."""

    def masks(self, height: int, width: int) -> Float[Tensor, "b m h w"]:
        """Return the masks of images of this size; they sum to one over the members of a set."""
        return masks_of(self.values, height, width)

    def mix(self, inputs: Tensor) -> Tensor:
        """Return one mixed image for each set."""
        return compose(inputs, self.members, self.masks(*inputs.shape[-2:]))

    def mix_targets(self, targets: Tensor) -> Tensor:
        """Return the members' class probabilities, weighed."""
        weights = self.weights.to(targets.dtype)
        return sum((w[:, None] * targets[i] for w, i in zip(weights.T, self.members, strict=True)), 0 * targets)


@dataclass(frozen=True)
class Search:
    """How masks are looked for."""

    sparsity: float
    """Weight of the term that wants masks of zeros and ones."""
    sigma: float
    """Standard deviation of the Gaussian that smooths the gradient, in cells of the mask."""
    iterations: int
    """Most steps."""
    tolerance: float
    """Share of the sets that may be left unsolved."""

    def run(self, supervisor: Supervisor, images: Tensor, sets: MaskedSets, wanted: Tensor) -> Tensor:
        """Return values of masks for which the supervisor sees the wanted classes (b, k), from those given on.

        A set is solved when its wanted classes rank before all others; it is then left alone, and no longer computed.
        """
        values, active = sets.values.clone(), torch.arange(len(images), device=images.device)
        for step in range(self.iterations):
            current = values[active].requires_grad_()
            with torch.enable_grad():
                masks = masks_of(current, *images.shape[-2:])
                logits = accurate(_in_company(supervisor, compose(images, sets.members[:, active], masks)))
                losses = objective(logits, wanted[active], masks, self.sparsity)
                (gradient,) = torch.autograd.grad(losses.sum(), current)
            moved = newton_step(current.detach(), losses.detach(), gradient, self.sigma)
            # Even masks would solve many a set; the official code takes one step before it looks.
            unsolved = ~solved(logits.detach(), wanted[active]) if step else torch.ones_like(active, dtype=torch.bool)
            active, moved = active[unsolved], moved[unsolved]
            if len(active) <= (self.tolerance * len(images) if step else 0):
                break
            values[active] = moved
        return values


def masks_of(values: Float[Tensor, "b m s s"], height: int, width: int) -> Float[Tensor, "b m h w"]:
    """Return values upsampled bilinearly, through a sigmoid, over their sum over the members of a set."""
    with no_autocast(values.device.type):
        down, across = (_upsampling(values, size) for size in (height, width))
        masks = (down @ values @ across.mT).sigmoid()
        return masks / masks.sum(1, keepdim=True)


def compose(images: Tensor, members: Int[Tensor, "m b"], masks: Float[Tensor, "b m h w"]) -> Tensor:
    """Return the sum of each set's images under their masks."""
    masks = masks.to(images.dtype)
    mixed = masks[:, :1] * images[members[0]]
    for j in range(1, len(members)):
        mixed = mixed + masks[:, j : j + 1] * images[members[j]]
    return mixed


def objective(
    logits: Float[Tensor, "b k"], wanted: Float[Tensor, "b k"], masks: Float[Tensor, "b m h w"], sparsity: float
) -> Float[Tensor, " b"]:
    """Return, for each set, KL(wanted || prediction) + sparsity * mean |m (m - 1)|."""
    wanted = wanted.to(logits.dtype)
    divergence = (torch.xlogy(wanted, wanted) - wanted * logits.log_softmax(1)).sum(1)
    return divergence + sparsity * (masks * (1 - masks)).mean((1, 2, 3))


def newton_step(
    values: Float[Tensor, "b m s s"], losses: Float[Tensor, " b"], gradient: Float[Tensor, "b m s s"], sigma: float
) -> Float[Tensor, "b m s s"]:
    """Return the values after a step along the smoothed gradient, to where the linearised objective is zero."""
    smooth = blur(gradient, sigma)
    slope = (gradient * smooth).sum((1, 2, 3))
    length = (losses.to(slope.dtype).abs() / (slope + 1e-10)).clamp(_LEAST_STEP, _MOST_STEP)
    return values - length[:, None, None, None] * smooth


def solved(logits: Float[Tensor, "b k"], wanted: Float[Tensor, "b k"]) -> Bool[Tensor, " b"]:
    """Return whether the q wanted classes are the q most likely ones, whatever their order."""
    among = wanted > 0
    least = logits.masked_fill(~among, torch.inf).amin(1)
    return least > logits.masked_fill(among, -torch.inf).amax(1)


def blur(values: Float[Tensor, "b m s s"], sigma: float) -> Float[Tensor, "b m s s"]:
    """Return values smoothed by a Gaussian that is cut off at two and a half standard deviations, zeros outside."""
    s = values.shape[-1]
    where = torch.arange(s, device=values.device, dtype=values.dtype)
    reach = int(5 * sigma) // 2
    if reach == 0:
        return values
    taps = torch.arange(-reach, reach + 1, device=values.device, dtype=values.dtype)
    total = (-(taps**2) / (2 * sigma**2)).exp().sum()
    apart = (where[:, None] - where).abs()
    weights = (-(apart**2) / (2 * sigma**2)).exp().masked_fill(apart > reach, 0) / total
    with no_autocast(values.device.type):
        return weights @ values @ weights.mT


def precision_of(network: object, inputs: Tensor) -> torch.dtype:
    """Return the dtype of a network's parameters, or of the inputs if it has none."""
    parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
    return next((p.dtype for p in parameters if p.is_floating_point()), inputs.dtype)


def _in_company(supervisor: Supervisor, images: Tensor) -> Tensor:
    """Return the logits of images, a single one doubled.

    On a CPU torch 2.14 returns wrong gradients of batch normalisation for a mini-batch of one when what comes back
    lies channels last, as it does from a mean over positions (b, r, d).
    """
    return supervisor(images) if len(images) > 1 else supervisor(torch.cat([images, images]))[:1]


def _upsampling(values: Float[Tensor, "b m s s"], size: int) -> Float[Tensor, "size s"]:
    """Return bilinear upsampling of one axis as a matrix, whose products, unlike torch's own, repeat on a GPU."""
    eye = torch.eye(values.shape[-1], device=values.device, dtype=values.dtype)
    return interpolate(eye[None], size, mode="linear")[0].mT
