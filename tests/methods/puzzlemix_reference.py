"""The energy of PuzzleMix's masks, the least there is, and gradients by differences, in loops."""

import itertools
import math

import pytest
import torch

from multimix.methods import puzzlemix as module


def fix(patch, lam):
    patch.setattr(module, "beta", lambda n, alpha, **_: torch.full((n,), lam))


def mean_difference(one, other, *, axis, line, block, patch, side):
    """Return the difference of two images across one border of blocks: mean over channels and patches along it."""
    size = patch
    total = 0.0
    for p in range(block // size):
        for c in range(one.shape[0]):
            means = []
            for image, start in ((one, line - size), (other, line)):
                value = 0.0
                for u, v in itertools.product(range(size), repeat=2):
                    across, along = start + u, side * block + p * size + v
                    value += float(image[c, across, along] if axis == 0 else image[c, along, across])
                means.append(value / size**2)
            total += abs(means[0] - means[1])
    return total / one.shape[0] / (block // size)


def tables(first, second, s1, s2, lam, block, patch, labels, *, beta, gamma, eta):
    """Return the costs of labels at cells and at pairs of neighbours, from the paper's definitions, in loops."""
    rows, columns = s1.shape
    scale, top = beta / 16 / min(rows, columns), labels - 1
    cells, pairs = {}, {}
    for y, x in itertools.product(range(rows), range(columns)):
        for a in range(labels):
            z = a / top
            prior = math.comb(top, a) * lam**a * (1 - lam) ** (top - a)
            cost = z * float(s2[y, x]) + (1 - z) * float(s1[y, x]) - eta * math.log(prior) / (rows * columns)
            cells[y, x, a] = cost
        for axis, (v, u) in enumerate(((y + 1, x), (y, x + 1))):
            if v == rows or u == columns:
                continue
            line, side = ((y + 1) * block, x) if axis == 0 else ((x + 1) * block, y)
            options = {"axis": axis, "line": line, "block": block, "patch": patch, "side": side}
            d = {
                (p, q): mean_difference((second, first)[p], (second, first)[q], **options)
                for p, q in itertools.product((0, 1), repeat=2)
            }
            for a, b in itertools.product(range(labels), repeat=2):
                # Between 0 and 1 the difference is the quadratic that is linear for equal masks.
                z, t = a / top, b / top
                edge = d[1, 0] + d[0, 1] - d[1, 1] - d[0, 0]
                own = z * (d[1, 0] + d[1, 1]) + (1 - z) * (d[0, 1] + d[0, 0])
                own += t * (d[0, 1] + d[1, 1]) + (1 - t) * (d[1, 0] + d[0, 0])
                smooth = max(1 + gamma * edge / 2, 0) * (z - t) ** 2
                pairs[y, x, v, u, a, b] = scale * (smooth + gamma * own / 2)
                if labels == 2 and 1 + gamma * edge / 2 > 0:  # then it is the difference itself, but for a constant
                    expected = (z - t) ** 2 + gamma * (d[a, b] + (d[1, 0] + d[0, 1]) / 2)
                    assert pairs[y, x, v, u, a, b] == pytest.approx(scale * expected)
    return cells, pairs


def total(cells, pairs, labels):
    own = sum(cells[y, x, int(labels[y, x])] for y, x in {key[:2] for key in cells})
    return own + sum(
        pairs[y, x, v, u, int(labels[y, x]), int(labels[v, u])] for y, x, v, u in {key[:4] for key in pairs}
    )


def best(cells, pairs, labels, rows, columns):
    every = torch.tensor(list(itertools.product(range(labels), repeat=rows * columns))).view(-1, rows, columns)
    energies = torch.zeros(len(every), dtype=torch.float64)
    for y, x in {key[:2] for key in cells}:
        energies += torch.tensor([cells[y, x, a] for a in range(labels)], dtype=torch.float64)[every[:, y, x]]
    for y, x, v, u in {key[:4] for key in pairs}:
        table = [[pairs[y, x, v, u, a, b] for b in range(labels)] for a in range(labels)]
        energies += torch.tensor(table, dtype=torch.float64)[every[:, y, x], every[:, v, u]]
    return float(energies.min())


def finite_differences(network, inputs, probabilities, step=1e-5):
    """Return the gradient of each example's cross-entropy on its pixels, by central differences."""
    gradient = torch.zeros(inputs.shape, dtype=torch.float64)
    for pixel in itertools.product(*(range(n) for n in inputs.shape[1:])):
        losses = []
        for sign in (1, -1):
            moved = inputs.double().clone()
            moved[(slice(None), *pixel)] += sign * step
            losses.append(-(probabilities.double() * network(moved).detach().log_softmax(-1)).sum(-1))
        gradient[(slice(None), *pixel)] = (losses[0] - losses[1]) / (2 * step)
    return gradient
