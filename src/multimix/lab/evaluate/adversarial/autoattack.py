"""AutoAttack, of the package pyautoattack: four attacks one after the other, each on what the others left."""

import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from multimix.lab.evaluate.adversarial.attacks import BALLS, Classifier, Norm, no_attack, together
from multimix.lab.evaluate.passes import LabelledBatches, concatenated, evaluating
from multimix.protocols import SILENT, Monitor, Network

ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")
"""Those of the standard version (Croce and Hein, ICML 2020, section 6), in order."""
LEAST_CLASSES = 4
"""The loss of apgd-t compares the four greatest logits."""
_NORMS = {"linf": "Linf", "l2": "L2"}


def autoattack(
    network: Classifier,
    batches: LabelledBatches,
    *,
    epsilon: float,
    norm: Norm = "linf",
    batch_size: int = 100,
    seed: int = 0,
    monitor: Monitor = SILENT,
) -> tuple[Tensor, Tensor]:
    """Return the images after AutoAttack's standard version, and whether each is misclassified, both on the CPU.

    With k classes below ten, the targeted attacks try the k - 1 wrong ones instead of nine.

    Args:
        network: From pixels in [0, 1] to logits (b, k).
        batches: Pixels and class indices; attacked on the device that they come on.
        epsilon: Radius of the ball, in pixels.
        norm: ``linf`` or ``l2``.
        batch_size: Images attacked at a time. The attacks draw one random number after another for a whole batch, so
            that results depend on it a little.
        seed: Of those numbers.
        monitor: Hears how far each attack is.

    Raises:
        ValueError: If pyautoattack is missing or there are fewer than four classes.
    """
    require_package()
    device, classes, clean = torch.device("cpu"), 0, []
    for pixels, targets in monitor.track("AutoAttack, clean", batches):
        judged = no_attack()(network, pixels, targets)
        device, classes = pixels.device, judged.classes
        clean.append((pixels.cpu().contiguous(), targets.cpu().long(), judged.fooled.cpu()))
    original, labels, fooled = concatenated(clean)
    require_classes(classes)
    images = original.clone()
    with evaluating(cast("Network", network)), torch.inference_mode(mode=False), _frozen(network), _undisturbed(device):
        tool = _tool(network, epsilon, norm, classes, seed, device)
        for name in ATTACKS:
            tool.attacks_to_run = [name]
            rest = (~fooled).nonzero()[:, 0]
            for chosen in monitor.track(f"AutoAttack, {name}", rest.split(batch_size) if len(rest) else ()):
                found, _ = tool.run_standard_evaluation(original[chosen], labels[chosen], batch_size=len(chosen))
                images[chosen] = BALLS[norm](original[chosen], epsilon).inside(found)
                judged = no_attack()(network, images[chosen].to(device), labels[chosen].to(device))
                fooled[chosen] = judged.fooled.cpu()
    return images, fooled


def require_package() -> None:
    """Raise ValueError if pyautoattack is not installed."""
    if importlib.util.find_spec("pyautoattack") is None:
        raise ValueError("autoattack needs the package pyautoattack: pip install pyautoattack")


def require_classes(classes: int) -> None:
    """Raise ValueError if there are fewer than four classes."""
    if classes < LEAST_CLASSES:
        raise ValueError(f"autoattack needs at least {LEAST_CLASSES} classes, as its losses do, got {classes}")


def _tool(network: Classifier, epsilon: float, norm: Norm, classes: int, seed: int, device: torch.device) -> Any:
    from pyautoattack import AutoAttack

    tool = AutoAttack(together(network), eps=epsilon, norm=_NORMS[norm], seed=seed, version="standard", device=device)
    targets = min(tool.apgd_targeted.n_target_classes, classes - 1)
    tool.apgd_targeted.n_target_classes = tool.fab.n_target_classes = targets
    return tool


@contextmanager
def _frozen(network: Classifier) -> Iterator[None]:
    """Keep gradients from the parameters: fab-t calls ``backward``."""
    parameters = network.parameters() if isinstance(network, nn.Module) else ()
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Keep from the rest of the program what the package does to it: global seeds, the trace function, log lines."""
    logger, trace = logging.getLogger("auto-attack"), sys.gettrace()
    silent = logger.disabled
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        logger.disabled = True
        try:
            yield
        finally:
            logger.disabled = silent
            sys.settrace(trace)
