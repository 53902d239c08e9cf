"""A mini-batch that has gone through a network once, and every gradient that can be had from it."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import Parameter

from anatomy.law import plain_gradient
from multimix.methods import MultiMix
from multimix.ops import mixed_cross_entropy
from multimix.protocols import Method, Network

TOTAL = "total"
"""What the gradient of all parameters together is called."""


def layers_of(network: nn.Module) -> dict[str, list[Parameter]]:
    """Return the parameters of each top-level child that has any, in order; of an adapted model, those of its children.

    Raises:
        ValueError: If no parameter takes a gradient.
    """
    children = {name: [p for p in child.parameters() if p.requires_grad] for name, child in network.named_children()}
    children = {name: own for name, own in children.items() if own}
    if not children:
        raise ValueError("network must have parameters that take a gradient, got none")
    if len(children) == 1:
        inner = network.get_submodule(next(iter(children)))
        if any(True for _ in inner.children()):
            return layers_of(inner)
    return children


class Probe:
    """One forward pass, through which any gradient on the logits is pulled back to the parameters of each layer.

    Batch normalisation does as the network's mode says, and its buffers move: give it a copy of a network that is
    still to be trained.

    Raises:
        ValueError: If the classifier is not affine, so that tuples are not mixed on the logits.
    """

    def __init__(self, network: Network, inputs: Tensor, targets: Tensor) -> None:
        """Go through ``network`` with inputs (b, ...), whose class indices are ``targets`` (b,)."""
        if network.head is None:
            raise ValueError("network must have an affine head, on whose logits tuples can be mixed, got head=None")
        self.network, self.inputs, self.targets = network, inputs, targets
        self.layers = layers_of(cast("nn.Module", network))
        self._live = network(inputs)
        self.logits = self._live.detach()

    def plain(self) -> Float[Tensor, "b k"]:
        """Return the gradient of plain training on the logits."""
        return plain_gradient(self.logits, self.targets)

    def mixed(self, method: MultiMix, generator: Generator) -> Float[Tensor, "b k"]:
        """Return the gradient of MultiMix on the logits, by the op that trains with it."""
        logits = self.logits.clone().requires_grad_()
        weights = method.weights(len(logits), like=logits, generator=generator)
        loss = mixed_cross_entropy(logits, self.targets, weights, balanced=method.balanced, impl=method.impl)
        return torch.autograd.grad(loss, logits)[0]

    def pull_back(self, gradient: Float[Tensor, "b k"]) -> dict[str, Tensor]:
        """Return the gradient of each layer's parameters, and of all, as vectors, for a gradient on the logits."""
        return self._by_layer(self._live, gradient)

    def through(self, method: Method, generator: Generator) -> dict[str, Tensor]:
        """Return the gradient of each layer's parameters, and of all, for any method, by a forward pass of its own."""
        return self._by_layer(method(self.network, self.inputs, self.targets, generator=generator).total, None)

    def _by_layer(self, output: Tensor, gradient: Tensor | None) -> dict[str, Tensor]:
        flat = [parameter for own in self.layers.values() for parameter in own]
        found = torch.autograd.grad(output, flat, gradient, retain_graph=gradient is not None, materialize_grads=True)
        vectors = iter([each.flatten() for each in found])
        layers = {name: torch.cat([next(vectors) for _ in own]) for name, own in self.layers.items()}
        return {**layers, TOTAL: torch.cat(list(layers.values()))}
