"""What the evaluation suites leave in a run's folder, with made-up numbers that depend on the seed alone."""

import base64
import io
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

from multimix.lab.about import SUITES

KINDS = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
SETS = ("gaussian-noise", "uniform-noise", "digits")
SCORES = ("msp", "max_logit", "energy", "odin", "knn", "mahalanobis")


@dataclass
class Suite:
    """One suite of one run: its metrics, and the data of its figures."""

    metrics: dict[str, float]
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=lambda: {"examples": None, "seed": 0})
    weights: str = "0123456789abcdef"
    date: str = "2025-05-01T11:00:00"

    def event(self, name: str, epochs: int = 2) -> dict[str, Any]:
        """The line in metrics.jsonl."""
        about = {"event": "test", "split": "test", "epoch": epochs, "seconds": 3.0, "examples": 360}
        return about | self._about(name) | self.metrics

    def file(self, name: str) -> dict[str, Any]:
        """The file in evaluation/."""
        return self._about(name) | {"figures": self.figures}

    def _about(self, name: str) -> dict[str, Any]:
        return {"suite": name, "settings": self.settings, "weights": self.weights, "date": self.date}


def all_suites(seed: int = 0, *, better: float = 0.0, points: int = 300) -> dict[str, Suite]:
    """Every suite, somewhat better or worse."""
    draw = np.random.default_rng([seed, round(1000 * better)])
    makers = (adversarial, ood, calibration, corruption, occlusion, embedding, intrusion, localisation, accuracy)
    known = {make.__name__: make(draw, better, points) for make in makers}
    others = {name: about for name, about in SUITES.items() if name not in known}
    return known | {name: Suite({m.name: 0.5 + better for m in about.metrics}) for name, about in others.items()}


def picture(shade: int, side: int = 128) -> str:
    """A PNG in base64."""
    out = io.BytesIO()
    Image.linear_gradient("L").resize((side, side)).point(lambda value: (value + shade) % 256).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def accuracy(draw: np.random.Generator, better: float, _: int) -> Suite:
    classes, size = [str(digit) for digit in range(10)], 36
    cells = np.array(
        [draw.multinomial(size, 0.12 * np.eye(10)[(k + 5) % 10] + 0.88 * np.eye(10)[k]) for k in range(10)]
    )
    true, predicted = np.nonzero(cells)
    pairs = {"true": true.tolist(), "predicted": predicted.tolist(), "count": cells[true, predicted].tolist()}
    shown = {
        "true": [*"83518352"],
        "predicted": [*"35883811"],
        "probability": [0.999 - place / 100 for place in range(8)],
        "names": [f"image {17 * place} of 360" for place in range(8)],
        "pictures": [picture(32 * place) for place in range(8)],
    }
    figures = {
        "classes": {"classes": classes, "accuracy": (np.diag(cells) / size).tolist(), "count": [size] * 10},
        "confusion": {"classes": classes, **pairs},
        "mistakes": shown,
    }
    right = float(np.trace(cells)) / cells.sum() + better
    return Suite({"accuracy": right, "nll": 1 - right, "ece": 0.03}, figures)


def adversarial(draw: np.random.Generator, better: float, _: int) -> Suite:
    names = {"clean": 0.95, "fgsm/linf": 0.5, "fgsm/l2": 0.6, "pgd/linf": 0.3, "pgd/l2": 0.4, "autoattack/linf": 0.25}
    metrics = {f"{name}/accuracy": value + better + draw.normal(0, 0.01) for name, value in names.items()}
    metrics |= {f"{name}/loss": 3 * (1 - value) for name, value in names.items() if name != "autoattack/linf"}
    metrics |= {"pgd/linf/more_steps/accuracy": 0.29 + better, "pgd/linf/unbounded/accuracy": 0.0}
    epsilon = [step / 255 for step in (0, 1, 2, 4, 8, 16)]
    accuracy = [max(0.95 - 20 * (1 - 4 * better) * e + draw.normal(0, 0.01), 0.0) for e in epsilon]
    curve = {"norm": "linf", "attack": "pgd", "epsilon": epsilon, "accuracy": accuracy, "examples": 200}
    return Suite(metrics, {"epsilon_curve": curve}, {"examples": None, "steps": 20, "fgsm_epsilon": 8 / 255, "seed": 0})


def ood(draw: np.random.Generator, better: float, _: int) -> Suite:
    metrics: dict[str, float] = {}
    figures: dict[str, dict[str, Any]] = {f"ood/{name}": {"scores": {}} for name in SETS}
    for name, score in product(SETS, SCORES):
        auroc = draw.uniform(0.6, 0.9) + better
        values = {"auroc": auroc, "aupr_in": auroc, "aupr_out": auroc, "fpr95": 1 - auroc}
        metrics |= {f"{name}/{score}/{m}": v for m, v in values.items()}
        metrics[f"{name}/{score}/detection_accuracy"] = auroc - 0.1
        (fpr, tpr), (inside, outside) = np.sort(draw.random((2, 100))), draw.dirichlet(np.ones(50), 2)
        data = {"edges": np.linspace(-3, 5, 51), "in": inside, "out": outside, "fpr": fpr, "tpr": tpr}
        figures[f"ood/{name}"]["scores"][score] = {key: values.tolist() for key, values in data.items()}
    for score, m in product(SCORES, ("auroc", "aupr_in", "aupr_out", "fpr95", "detection_accuracy")):
        metrics[f"mean/{score}/{m}"] = float(np.mean([metrics[f"{name}/{score}/{m}"] for name in SETS]))
    return Suite(metrics, figures, {"examples": None, "sets": list(SETS), "odin_epsilon": 0.0014})


def calibration(draw: np.random.Generator, better: float, _: int) -> Suite:
    counts = [0, 0, 1, 3, 5, 8, 9, 12, 14, 15, 18, 22, 30, 63, 160]
    edges = np.linspace(0, 1, 16)
    sure = (edges[:-1] + edges[1:]) / 2
    figures = {}
    for name, gap in (("reliability", 0.15 - better), ("reliability_scaled", 0.03)):
        right = (sure - gap * np.sin(np.pi * sure) + draw.normal(0, 0.02, 15)).clip(0, 1)
        inside = {"confidence": sure.tolist(), "accuracy": right.tolist()}
        figures[name] = {"edges": edges.tolist(), "count": counts, **inside}
    errors = {"nll": 0.3, "brier": 0.2, "ece": 0.05 - better / 4, "mce": 0.2, "classwise_ece": 0.012}
    errors |= {"rms_calibration_error": 0.07, "overconfidence_error": 0.03}
    metrics = {"accuracy": 0.95 + better, **errors, "temperature": 1.4}
    return Suite(metrics | {f"scaled/{name}": value / 2 for name, value in errors.items()}, figures)


def corruption(draw: np.random.Generator, better: float, _: int) -> Suite:
    cells = np.array([[0.92 - 0.1 * s - 0.012 * k + better for s in range(5)] for k in range(15)])
    cells = (cells + draw.normal(0, 0.01, cells.shape)).clip(0, 1)
    metrics = {"clean/accuracy": 0.95 + better}
    for kind, line in zip(KINDS, cells, strict=True):
        metrics |= {f"{kind}/{grade}/accuracy": float(value) for grade, value in enumerate(line, start=1)}
        metrics[f"{kind}/accuracy"] = float(line.mean())
    metrics["mean/accuracy"] = float(cells.mean())
    figure = {"corruptions": list(KINDS), "severities": [1, 2, 3, 4, 5], "accuracy": cells.tolist()}
    return Suite(metrics, {"corruption": figure | {"clean": 0.95 + better, "examples": 360}})


def occlusion(draw: np.random.Generator, better: float, _: int) -> Suite:
    fraction = [place / 8 for place in range(8)]
    accuracy = [float(0.95 - 0.85 * f**2 + better + draw.normal(0, 0.01)) for f in fraction]
    metrics = {f"{100 * f:g}/accuracy": value for f, value in zip(fraction, accuracy, strict=True)}
    figure = {"fraction": fraction, "accuracy": accuracy, "examples": 360}
    return Suite({**metrics, "area/accuracy": float(np.mean(accuracy))}, {"occlusion": figure})


def embedding(draw: np.random.Generator, better: float, points: int) -> Suite:
    label = np.arange(points) % 10
    angle = 2 * np.pi * label / 10
    x, y = (10 * turn(angle) + draw.normal(0, 2 - 5 * better, points) for turn in (np.cos, np.sin))
    metrics = {"alignment": 0.3, "uniformity": -2.5 - better, "intra_distance": 0.5, "inter_distance": 1.2}
    metrics |= {"separation": 2.4 + better, "effective_rank": 20.5, "knn_accuracy": 0.94 + better}
    figure = {"method": "tsne", "x": x.round(3).tolist(), "y": y.round(3).tolist(), "label": label.tolist()}
    return Suite(metrics, {"picture": figure | {"classes": [str(digit) for digit in range(10)]}})


def intrusion(draw: np.random.Generator, better: float, _: int) -> Suite:
    edges = np.linspace(0, 2, 31)
    metrics, figure = {}, {"edges": edges.tolist()}
    for place, way in enumerate(("own", "mixup", "manifold-mixup", "multimix")):
        figure[way] = np.histogram(draw.normal(0.5 + 0.2 * place, 0.2, 500), edges)[0].tolist()
        metrics |= {f"{way}/intrusion_rate": 0.2 - better - 0.02 * place, f"{way}/distance": 0.5 + 0.2 * place}
        metrics[f"{way}/nearest_class_weight"] = 0.4
    return Suite(metrics, {"intrusion": figure})


def localisation(draw: np.random.Generator, better: float, _: int) -> Suite:
    threshold = [place / 20 for place in range(1, 20)]
    accuracy = [float(0.6 - 2 * (t - 0.4) ** 2 + better + draw.normal(0, 0.01)) for t in threshold]
    metrics = {"best/localisation_accuracy": max(accuracy), "fixed/localisation_accuracy": accuracy[3]}
    figure = {"threshold": threshold, "accuracy": [max(a, 0.0) for a in accuracy], "iou": 0.5, "examples": 360}
    metrics |= {"best/iou30/localisation_accuracy": 0.8, "best/mean/localisation_accuracy": 0.5}
    return Suite(metrics | {"pointing_accuracy": 0.9, "measured": 1.0}, {"localisation": figure})
