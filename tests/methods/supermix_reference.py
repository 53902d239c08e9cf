"""SuperMix's search in float64, written from the paper with torch's own convolution and interpolation."""

import torch
from torch.nn import functional

import toy
from methods.shared import seeded
from multimix.methods.supermix import MaskedSets, SuperMix

QUICK = {"side": 3, "iterations": 4}


def plain_masks(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    flat = functional.interpolate(values.flatten(0, 1)[:, None], size, mode="bilinear")
    masks = torch.sigmoid(flat).view(*values.shape[:2], *size)
    return masks / masks.sum(1, keepdim=True)


def plain_search(teacher, images, members, wanted, values, settings):
    """Every set at every step, one after the other; returns the values and the objectives before each step."""
    b, m = len(images), len(members)
    reach = int(5 * settings.sigma) // 2
    ticks = torch.arange(-reach, reach + 1, dtype=torch.float64)
    bell = torch.exp(-(ticks**2) / 2 / settings.sigma**2) if reach else torch.ones(1, dtype=torch.float64)
    kernel = (bell[:, None] * bell / bell.sum() ** 2)[None, None]
    open_sets, history, values = [True] * b, [], values.clone()
    for _ in range(settings.iterations):
        if sum(open_sets) <= settings.tolerance * b and history:
            break
        losses = []
        for i in [i for i in range(b) if open_sets[i]]:
            v = values[i : i + 1].clone().requires_grad_()
            masks = plain_masks(v, images.shape[-2:])
            mixed = sum(masks[:, j : j + 1] * images[members[j][i]] for j in range(m))
            log_p = teacher(torch.cat([mixed, mixed]))[:1].log_softmax(1)  # not alone: see _in_company
            fit = functional.kl_div(log_p, wanted[i : i + 1], reduction="sum")
            loss = fit + settings.sparsity * (masks * (masks - 1)).abs().mean()
            (gradient,) = torch.autograd.grad(loss, v)
            smooth = functional.conv2d(gradient[0][:, None], kernel, padding=reach)[:, 0]
            length = float(loss.detach()) / (float((smooth * gradient[0]).sum()) + 1e-10)
            values[i] -= min(max(length, 1e-4), 2000.0) * smooth
            losses.append(float(loss.detach()))
        history.append(losses)
        masks = plain_masks(values, images.shape[-2:])
        mixed = sum(masks[:, j : j + 1] * images[members[j]] for j in range(m))
        for i, logits in enumerate(teacher(mixed).detach()):
            named = {c for c in range(wanted.shape[1]) if wanted[i, c] > 0}
            open_sets[i] = set(logits.topk(len(named)).indices.tolist()) != named
    return values, history


def case(b=5, m=2, shape=(6, 6), seed=0):
    """A teacher in double precision, images, sets and the distributions wanted."""
    teacher = toy.images(seed=seed).double().eval()
    with torch.no_grad():
        teacher.classifier.weight.mul_(8)  # sure of itself, as a trained one is
    images = 2 * toy.batch(b, 3, *shape, dtype=torch.float64, seed=seed)[0]
    drawn = SuperMix(teacher, images=m, iterations=1).draw(None, images, None, seeded(seed))
    wanted = torch.zeros(b, 5, dtype=torch.float64)
    seen = teacher(images).argmax(1).tolist()
    for i in range(b):
        for j in range(m):
            wanted[i, seen[drawn.members[j, i]]] += drawn.weights[i, j]
    even = torch.zeros(b, m, 4, 4, dtype=torch.float64)
    return teacher, images, MaskedSets(drawn.members, drawn.weights, even), wanted
