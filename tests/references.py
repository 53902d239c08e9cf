"""The plain truth: loops in float64, written from the equations of the paper, sharing no code with the package.

Numbers in parentheses are the paper's equations; where it has examples as columns, here they are rows. Functions that
return numbers work on Python floats; those that take a network stay differentiable, so that autograd gives the truth
about its gradients.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Row = list[float]


def rows(values: Tensor) -> list:
    """Return a tensor as nested lists of Python floats, which are float64."""
    return values.detach().double().cpu().tolist()


def one_hot(targets: Tensor, classes: int) -> list[Row]:
    """Return class probabilities, whatever kind of targets came."""
    if targets.is_floating_point():
        return rows(targets)
    return [[1.0 if c == label else 0.0 for c in range(classes)] for label in targets.tolist()]


def softmax(logits: Row) -> Row:
    largest = max(logits)
    exponentials = [math.exp(value - largest) for value in logits]
    return [value / sum(exponentials) for value in exponentials]


def log_softmax(logits: Row) -> Row:
    largest = max(logits)
    log_sum = largest + math.log(sum(math.exp(value - largest) for value in logits))
    return [value - log_sum for value in logits]


def cross_entropy(logits: Sequence[Row], targets: Sequence[Row]) -> float:
    """Equation (1), the mean over rows."""
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        for log_probability, share in zip(log_softmax(row), target, strict=True):
            total -= share * log_probability
    return total / len(logits)


def mix(weights: Sequence[Row], values: Sequence[Row]) -> list[Row]:
    """Equations (6) and (7)."""
    mixed = []
    for vector in weights:
        mixed.append([0.0] * len(values[0]))
        for i, weight in enumerate(vector):
            for c, value in enumerate(values[i]):
                mixed[-1][c] += weight * value
    return mixed


def interpolate(weights: Tensor, values: Tensor) -> Tensor:
    """Equation (6) for values of any shape."""
    mixed = mix(rows(weights), rows(values.reshape(len(values), -1)))
    return torch.tensor(mixed, dtype=torch.float64).reshape(len(weights), *values.shape[1:])


def mixed_cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor, teacher_logits: Tensor | None = None, gamma: float = 1.0
) -> float:
    """Equation (8); with a teacher, equation (9) of section 3.3, the teacher predicting on its own mixed embeddings."""
    lam = rows(weights)
    mixed = mix(lam, rows(logits))
    labels = cross_entropy(mixed, mix(lam, one_hot(targets, logits.shape[-1])))
    if teacher_logits is None:
        return labels
    predictions = [softmax(row) for row in mix(lam, rows(teacher_logits))]
    return gamma * labels + (1 - gamma) * cross_entropy(mixed, predictions)


def mixed_gradient(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    teacher_logits: Tensor | None = None,
    gamma: float = 1.0,
    *,
    balanced: bool = False,
    centre: Row | None = None,
) -> Tensor:
    """Gradient of :func:`mixed_cross_entropy` on the clean logits: the weights, times softmax minus target, over n."""
    lam, (b, k) = rows(weights), logits.shape
    probabilities = [softmax(row) for row in mix(lam, rows(logits))]
    wanted = mix(lam, one_hot(targets, k))
    if teacher_logits is not None:
        taught = [softmax(row) for row in mix(lam, rows(teacher_logits))]
        wanted = [
            [gamma * label + (1 - gamma) * soft for label, soft in zip(*pair, strict=True)]
            for pair in zip(wanted, taught, strict=True)
        ]
    gradient = [[0.0] * k for _ in range(b)]
    for vector, probability, target in zip(lam, probabilities, wanted, strict=True):
        for i in range(b):
            for c in range(k):
                gradient[i][c] += vector[i] * (probability[c] - target[c]) / len(lam)
    return torch.tensor(balance(gradient, lam, centre) if balanced else gradient, dtype=torch.float64)


def balance(gradient: list[Row], weights: list[Row], centre: Row | None = None) -> list[Row]:
    """``gain * (dL - mean dL) + mean dL`` with ``gain = 1 / (m * mean((weights - 1/m)^2))``: findings.md, section 1.

    With a centre c instead of 1/m: ``gain * (dL - c sum dL) + c sum dL``, ``gain = 1 / (m * mean((weights - c)^2))``.
    """
    m, k = len(gradient), len(gradient[0])
    centre = [1 / m] * m if centre is None else centre
    squares = [(weight - c) ** 2 for vector in weights for weight, c in zip(vector, centre, strict=True)]
    spread = m * sum(squares) / len(squares)
    gain = 1 / spread if spread > 1e-12 else 1.0
    total = [sum(row[c] for row in gradient) for c in range(k)]
    common = [[share * each for each in total] for share in centre]
    return [[gain * (row[c] - same[c]) + same[c] for c in range(k)] for row, same in zip(gradient, common, strict=True)]


def attention(
    features: Tensor, query: str = "gap", activation: str = "relu", class_weights: Tensor | None = None
) -> Tensor:
    """Equation (9); uniform where no position is accepted. Differentiable."""
    b, r, d = features.shape
    features = features.double()
    maps = []
    for i in range(b):
        if query == "uniform":
            maps.append(torch.full((r,), 1 / r, dtype=torch.float64))
            continue
        u = sum(features[i, j] for j in range(r)) / r if query == "gap" else class_weights[i].double()
        scores = [sum(features[i, j, c] * u[c] for c in range(d)) for j in range(r)]
        if activation == "softmax":
            largest = max(float(score.detach()) for score in scores)
            accepted = [(score - largest).exp() for score in scores]
        else:
            accepted = [score if score > 0 else score * 0 for score in scores]
        total = sum(accepted)
        maps.append(torch.stack(accepted) / total if total > 0 else torch.full((r,), 1 / r, dtype=torch.float64))
    return torch.stack(maps)


def reweight(weights: Tensor, attention: Tensor) -> Tensor:
    """Equations (10) and (11), weights (n, b) or (r, n, b); a tuple without any attention keeps its weights."""
    a, (b, r) = rows(attention), attention.shape
    per_position = rows(weights) if weights.ndim == 3 else [rows(weights)] * r
    result = []
    for j in range(r):
        result.append([])
        for vector in per_position[j]:
            scaled = [vector[i] * a[i][j] for i in range(b)]
            result[-1].append([value / sum(scaled) for value in scaled] if sum(scaled) > 0 else vector)
    return torch.tensor(result, dtype=torch.float64)


def dense_mixed_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    attention: Tensor,
    teacher_logits: Tensor | None = None,
    gamma: float = 1.0,
) -> float:
    """Equations (10) to (14)."""
    normalised, r = reweight(weights, attention), logits.shape[1]
    total = 0.0
    for j in range(r):
        taught = None if teacher_logits is None else teacher_logits[:, j]
        total += mixed_cross_entropy(logits[:, j], targets, normalised[j], taught, gamma)
    return total / r


def dense_mixed_gradient(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    attention: Tensor,
    teacher_logits: Tensor | None = None,
    gamma: float = 1.0,
    *,
    balanced: bool = False,
) -> Tensor:
    """Gradient of :func:`dense_mixed_cross_entropy` on the clean logits, balanced at every position by itself."""
    normalised, r = reweight(weights, attention), logits.shape[1]
    gradient = []
    for j in range(r):
        taught = None if teacher_logits is None else teacher_logits[:, j]
        seen = [float(a) for a in attention[:, j].double()]
        centre = [a / sum(seen) if sum(seen) > 0 else 1 / len(seen) for a in seen]
        here = logits[:, j], targets, normalised[j], taught, gamma
        gradient.append(mixed_gradient(*here, balanced=balanced, centre=centre) / r)
    return torch.stack(gradient, 1)


def pairs(values: Tensor, partners: Tensor, lam: float) -> Tensor:
    """Equations (3) to (5): lambda weighs the first example. Differentiable."""
    return torch.stack([lam * values[i] + (1 - lam) * values[int(j)] for i, j in enumerate(partners)])


def cutmix(images: Tensor, partners: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """Pixel by pixel."""
    top, bottom, left, right = box
    mixed = images.clone()
    for i, partner in enumerate(partners.tolist()):
        for y in range(top, bottom):
            for x in range(left, right):
                mixed[i, :, y, x] = images[partner, :, y, x]
    return mixed


def cut(height: int, width: int, lam: float, y: int, x: int) -> tuple[int, int, int, int]:
    """CutMix's box around a centre, clipped to the image (Yun et al., equation (2), and its code's rounding)."""
    ratio = math.sqrt(1 - lam)
    half_height, half_width = int(height * ratio) // 2, int(width * ratio) // 2
    return (
        min(max(y - half_height, 0), height),
        min(max(y + half_height, 0), height),
        min(max(x - half_width, 0), width),
        min(max(x + half_width, 0), width),
    )


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Equation (1), differentiable: logits and targets (n, k)."""
    return sum(-(target * row.log_softmax(-1)).sum() for row, target in zip(logits, targets, strict=True)) / len(logits)


def network_loss(
    classify: Callable[[Tensor], Tensor],
    embeddings: Tensor,
    probabilities: Tensor,
    weights: Tensor,
    taught: tuple[Callable[[Tensor], Tensor], Tensor, float] | None = None,
) -> Tensor:
    """Mix the embeddings (b, d), classify, soft cross-entropy; (classify, embeddings, gamma) of a teacher. (6) to (9).

    What the commuted ops must equal whenever ``classify`` is affine.
    """
    mixed = torch.stack([sum(w * z for w, z in zip(vector, embeddings, strict=True)) for vector in weights])
    targets = torch.stack([sum(w * y for w, y in zip(vector, probabilities, strict=True)) for vector in weights])
    labels = soft_cross_entropy(classify(mixed), targets)
    if taught is None:
        return labels
    teach, theirs, gamma = taught
    with torch.no_grad():
        seen = torch.stack([sum(w * z for w, z in zip(vector, theirs, strict=True)) for vector in weights])
        predictions = teach(seen).softmax(-1)
    return gamma * labels + (1 - gamma) * soft_cross_entropy(classify(mixed), predictions)


def dense_network_loss(
    classify: Callable[[Tensor], Tensor],
    features: Tensor,
    probabilities: Tensor,
    weights: Tensor,
    attention: Tensor,
    taught: tuple[Callable[[Tensor], Tensor], Tensor, float] | None = None,
) -> Tensor:
    """The same at every position of (b, r, d), with weights (r, n, b) times attention (b, r): (10) to (14)."""
    total = 0.0
    for j in range(features.shape[1]):
        scaled = [vector * attention[:, j] for vector in weights[j]]
        normalised = [s / s.sum() if s.sum() > 0 else w for s, w in zip(scaled, weights[j], strict=True)]
        at = None if taught is None else (taught[0], taught[1][:, j], taught[2])
        total = total + network_loss(classify, features[:, j], probabilities, torch.stack(normalised), at)
    return total / features.shape[1]


def moving_average(start: Tensor, values: Sequence[Tensor], momentum: float) -> Tensor:
    """Closed form of ``average <- momentum * average + (1 - momentum) * value``."""
    steps = len(values)
    average = momentum**steps * start.double()
    for t, value in enumerate(values, start=1):
        average = average + (1 - momentum) * momentum ** (steps - t) * value.double()
    return average
