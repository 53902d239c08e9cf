"""All scores of a set of images in one pass over it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from multimix.lab.data import seed_of
from multimix.lab.evaluate.ood.scores import KNN, Mahalanobis, energy, max_logit, msp, nudged
from multimix.lab.evaluate.predict import LabelledBatches, NonFiniteError, evaluating, not_alone
from multimix.protocols import Network

__all__ = ["Observer", "Seen", "embedded", "fingerprints"]


@dataclass(frozen=True)
class Seen:
    """What a pass over a set of images gives."""

    scores: dict[str, Float64[Tensor, " n"]]
    """Each score of every image, on the CPU."""
    fingerprints: Int64[Tensor, " n"]
    """The same for equal images, on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Observer:
    """Computes several scores at once: a forward pass, and for ODIN a backward and another forward pass."""

    names: tuple[str, ...]
    """Which scores, in this order."""
    energy_temperature: float
    odin_temperature: float
    odin_step: tuple[float, ...]
    """How far ODIN moves each channel of the inputs, as the network takes them."""
    knn: KNN | None = None
    mahalanobis: Mahalanobis | None = None

    def __call__(self, network: Network, batches: LabelledBatches) -> Seen:
        """Return what is seen of a set, in order; the network predicts in eval mode.

        Raises:
            ValueError: If there is no batch.
            NonFiniteError: If the network says NaN or infinity.
        """
        rows, prints = [], []
        with evaluating(network):
            for inputs, _ in batches:
                scores = self._scores(network, inputs)
                rows.append(torch.stack([scores[name][: len(inputs)].cpu() for name in self.names]))
                prints.append(fingerprints(inputs).cpu())
        if not rows:
            raise ValueError("batches must hold at least one batch, got none")
        values = torch.cat(rows, dim=1)
        return Seen(dict(zip(self.names, values, strict=True)), torch.cat(prints))

    def _scores(self, network: Network, inputs: Tensor) -> dict[str, Tensor]:
        moves = "odin" in self.names and any(self.odin_step)
        inputs = inputs.detach()
        if moves:
            inputs = not_alone(inputs).requires_grad_()
        with torch.set_grad_enabled(moves):
            embeddings, logits = _passed(network, inputs)
        with torch.no_grad():
            scores = self._of_one_pass(embeddings, logits)
        if "odin" in self.names:
            scores["odin"] = self._odin(network, inputs, logits)
        return scores

    def _of_one_pass(self, embeddings: Tensor, logits: Tensor) -> dict[str, Tensor]:
        scores = {"msp": msp(logits), "max_logit": max_logit(logits), "energy": energy(logits, self.energy_temperature)}
        if self.knn is not None:
            scores["knn"] = self.knn(embeddings)
        if self.mahalanobis is not None:
            scores["mahalanobis"] = self.mahalanobis(embeddings)
        return scores

    def _odin(self, network: Network, inputs: Tensor, logits: Tensor) -> Tensor:
        if inputs.requires_grad:
            step = torch.tensor(self.odin_step, dtype=inputs.dtype, device=inputs.device).view(-1, 1, 1)
            moved = nudged(inputs, logits, step=step, temperature=self.odin_temperature)
            with torch.no_grad():
                logits = _finite(network(moved))
        return msp(logits, self.odin_temperature)


def embedded(network: Network, batches: LabelledBatches) -> tuple[Tensor, Tensor]:
    """Return the pooled embedding (n, d) and the label (n,) of every image, on the device of the batches."""
    embeddings, labels = [], []
    with evaluating(network), torch.no_grad():
        for inputs, targets in batches:
            embeddings.append(_finite(network.pool(network.embed(inputs)).float()))
            labels.append(targets)
    if not embeddings:
        raise ValueError("batches must hold at least one batch, got none")
    return torch.cat(embeddings), torch.cat(labels)


def fingerprints(images: Tensor) -> Int64[Tensor, " n"]:
    """Return a 64-bit number for each image, the same for the same pixels on one device.

    A sum of the values' bits with fixed random weights: two different images agree with a probability below 2**-32, of
    the usual normalised pixels far below.
    """
    bits = images.detach().float().flatten(1).contiguous().view(torch.int32).long()
    generator = torch.Generator().manual_seed(seed_of("fingerprint"))
    weights = torch.randint(-(2**63), 2**63 - 1, (bits.shape[1],), generator=generator)
    return (bits * weights.to(bits.device)).sum(1)


def _passed(network: Network, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return pooled embeddings and logits, in one pass."""
    embeddings = _finite(network.pool(network.embed(inputs)))
    return embeddings, _finite(network.classify(embeddings))


def _finite(values: Tensor) -> Tensor:
    """Refuse NaN and infinity; a class may be ruled out by a logit of minus infinity, as in ``predict``."""
    if (values.isnan() | values.isposinf()).any():
        raise NonFiniteError(
            "the network says NaN or infinity: its weights, or what they make of these inputs, are not finite"
        )
    return values
