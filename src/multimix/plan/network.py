"""What a network costs in a training step, counted on tensors without values: no arithmetic is done."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from multimix.distill import EMATeacher
from multimix.models import build
from multimix.plan.work import Recorder, Work
from multimix.protocols import Network
from multimix.train import SGD
from multimix.train.config import AdamW
from multimix.train.optim import make_optimizer
from multimix.train.sharded import blocks


@dataclass(frozen=True)
class Subject:
    """A network and the images of one device, in the form in which a method uses them."""

    model: str
    classes: int
    shape: tuple[int, int, int]
    """Of an image, (c, h, w)."""
    batch: int
    """Images of one device, b."""
    width: int | None = None
    strides: tuple[int, ...] | None = None
    final_norm: bool | None = None
    optimizer: SGD | AdamW = field(default_factory=SGD)
    dense: bool = False
    """Classify every position instead of the pooled embedding."""
    teacher: bool = False
    """A moving average of the network looks at a second view, and follows the step."""

    def build(self, device: str = "meta") -> Network:
        """Return the network."""
        with torch.device(device):
            return build(
                self.model,
                num_classes=self.classes,
                in_channels=self.shape[0],
                width=self.width,
                strides=self.strides,
                final_norm=self.final_norm,
                image_size=self.shape[1],
            )


@dataclass(frozen=True)
class NetworkCount:
    """Operations and bytes of a network's part in a step, in float32."""

    works: tuple[Work, ...]
    """Of the forward and backward passes."""
    updates: tuple[Work, ...]
    """Of the optimiser's step and the teacher's, tensor by tensor."""
    tensors: int
    """Parameters that are trained."""
    parameters: int
    """Numbers in them."""
    blocks: tuple[int, ...]
    """Those of each block that is put together by itself where weights are shared out."""
    buffers: int
    """Floating-point numbers that are not, such as running statistics."""
    norms: tuple[int, ...]
    """Channels of each batch normalisation."""
    positions: int
    """Of an embedding, r."""
    width: int
    """Of an embedding, d."""
    state_bytes: int
    """Of the optimiser."""
    saved_bytes: int
    """Held at the end of the forward pass, for the backward pass."""
    forward_bytes: int
    """Most held during the student's forward pass."""
    teacher_bytes: int
    """Most held during the teacher's, beyond what is saved."""
    backward_bytes: int
    """Most held during the backward pass, gradients of parameters included."""
    update_bytes: int
    """Most held during the optimiser's step, likewise."""


@lru_cache(maxsize=256)
def count_network(subject: Subject) -> NetworkCount:
    """Run a step without values, and count.

    Raises:
        ValueError: If the network does not run without values.
    """
    try:
        return _count(subject, *_made(replace(subject, batch=1, dense=False)))
    except (NotImplementedError, RuntimeError) as error:
        said = " ".join(str(error).split())[:160]
        raise ValueError(f"model {subject.model!r} cannot be counted on tensors without values: {said}") from error


@dataclass(frozen=True)
class _Update:
    """What the optimiser's step and the teacher's take."""

    works: tuple[Work, ...]
    peak_bytes: int
    state_bytes: int


@lru_cache(maxsize=8)
def _made(subject: Subject) -> tuple[Network, EMATeacher | None, _Update]:
    """Return network, teacher and update, which do not depend on the mini-batch: making a large network takes time."""
    network = subject.build()
    module = cast("nn.Module", network).train()
    if hasattr(module, "_checked"):
        module._checked = True  # type: ignore[assignment]  # there are no values by which to compare it with its model
    teacher = EMATeacher(network) if subject.teacher else None
    return network, teacher, _update(module, make_optimizer(subject.optimizer, module.parameters()), teacher)


def _count(subject: Subject, network: Network, teacher: EMATeacher | None, update: _Update) -> NetworkCount:
    module = cast("nn.Module", network)
    images = torch.empty(subject.batch, *subject.shape, device="meta")
    recorder = Recorder()
    with recorder:
        with recorder.during("encoder forward"):
            features, pooled = _embedded(network, images, dense=subject.dense)
        positions, width = features.shape[1:]
        del features
        leaf = pooled.detach().requires_grad_()
        with recorder.during("classifier"):
            logits = network.classify(leaf)
        saved, forward = recorder.live, recorder.peak
        recorder.restart()
        if teacher is not None:
            with torch.no_grad(), recorder.during("teacher"):
                other = cast("Network", teacher.network)
                other.classify(_embedded(other, images, dense=subject.dense)[1])
        taught = recorder.peak - saved
        recorder.restart()
        with recorder.during("classifier"):
            logits.backward(torch.empty_like(logits))
        del logits
        with recorder.during("encoder backward"):
            pooled.backward(leaf.grad)
        del pooled, leaf
        backward = recorder.peak
    module.zero_grad()
    return NetworkCount(
        works=tuple(recorder.works),
        updates=update.works,
        tensors=sum(p.requires_grad for p in module.parameters()),
        parameters=sum(p.numel() for p in module.parameters() if p.requires_grad),
        blocks=tuple(sum(p.numel() for p in block.parameters() if p.requires_grad) for block in blocks(module)),
        buffers=sum(buffer.numel() for buffer in module.buffers() if buffer.is_floating_point()),
        norms=tuple(part.num_features for part in module.modules() if isinstance(part, _BatchNorm)),
        positions=positions,
        width=width,
        state_bytes=update.state_bytes,
        saved_bytes=saved,
        forward_bytes=forward,
        teacher_bytes=taught,
        backward_bytes=backward,
        update_bytes=update.peak_bytes,
    )


def _embedded(network: Network, images: Tensor, *, dense: bool) -> tuple[Tensor, Tensor]:
    """Return features (b, r, d) and what is classified, (b, d) or (b, r, d), as the methods make it."""
    features = network.embed(images)
    if not dense:
        return features, network.pool(features)
    b, r, d = features.shape
    return features, network.pool(features.reshape(b * r, 1, d)).reshape(b, r, -1)


def _update(module: nn.Module, optimizer: torch.optim.Optimizer, teacher: EMATeacher | None) -> _Update:
    """Return what a step of the optimiser, and one of the teacher, takes; gradients are held meanwhile."""
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
    held = sum(p.numel() * p.element_size() for p in module.parameters() if p.grad is not None)
    optimizer.step()  # the first one makes the state
    recorder = Recorder()
    with recorder:
        with recorder.during("optimiser"):
            optimizer.step()
        if teacher is not None:
            with recorder.during("teacher"):
                teacher.update_(module)
    module.zero_grad()
    values = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    state = sum(value.numel() * value.element_size() for value in values)
    return _Update(tuple(recorder.works), held + recorder.peak, state)
