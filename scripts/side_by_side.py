"""Put the metrics that ``multimix evaluate`` recorded of a run beside what independent libraries say: RUN OUT.jsonl.

The run must have records of calibration, embedding and ood over its whole test set, with the default settings. The
libraries see the network's logits and embeddings of the same images, and nothing of our metrics' code.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from scipy.spatial.distance import pdist
from sklearn.metrics import accuracy_score, average_precision_score, brier_score_loss, log_loss, roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error

from multimix.lab.evaluate.embedding import normalised
from multimix.lab.evaluate.ood import OODSettings
from multimix.lab.evaluate.ood.sets import open_set
from multimix.lab.evaluate.passes import embed, predict
from multimix.lab.runs.environment import commit
from multimix.lab.train import load_network
from multimix.lab.train.evaluation import source_of
from multimix.lab.train.folder import RunFolder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from netcal.metrics import ECE, MCE
    from pytorch_ood.detector import EnergyBased, MaxSoftmax
    from pytorch_ood.metrics.functional import fpr_at_tpr

BINS = 15
OUTSIDE = "gaussian-noise"

Row = tuple[str, str, str, float]
"""Suite, metric, library, its value."""


def of_predictions(logits: Tensor, labels: Tensor) -> Iterator[Row]:
    """Yield what others say of accuracy, likelihood and calibration."""
    p, y = logits.double().softmax(1).numpy(), labels.numpy()
    one_hot = np.eye(p.shape[1])[y]
    yield "calibration", "accuracy", "scikit-learn", accuracy_score(y, p.argmax(1))
    yield "calibration", "nll", "scikit-learn", log_loss(y, p)
    # scikit-learn's of several classes halves the sum over classes where there are two, and only there.
    yield "calibration", "brier", "scikit-learn", brier_score_loss(y, p)
    yield "calibration", "brier", "NumPy", float(((p - one_hot) ** 2).sum(1).mean())
    for norm, name in (("l1", "ece"), ("max", "mce"), ("l2", "rms_calibration_error")):
        value = multiclass_calibration_error(
            torch.from_numpy(p), labels, num_classes=p.shape[1], n_bins=BINS, norm=norm
        )
        yield "calibration", name, "torchmetrics", float(value)
    yield "calibration", "ece", "netcal", float(ECE(BINS).measure(p, y))
    yield "calibration", "mce", "netcal", float(MCE(BINS).measure(p, y))


def of_embeddings(embeddings: Tensor, labels: Tensor) -> Iterator[Row]:
    """Yield what others say of the embeddings' geometry."""
    z, y = normalised(embeddings).double().numpy(), labels.numpy()
    squares = pdist(z, "sqeuclidean")
    rows, columns = np.triu_indices(len(z), 1)
    yield "embedding", "alignment", "SciPy", float(squares[y[rows] == y[columns]].mean())
    yield "embedding", "uniformity", "SciPy", float(np.log(np.exp(-2 * squares).mean()))
    nearest = NearestNeighbors(n_neighbors=21).fit(z).kneighbors(z, return_distance=False)[:, 1:]
    votes = np.stack([(y[nearest] == k).sum(1) for k in range(y.max() + 1)], 1)
    yield "embedding", "knn_accuracy", "scikit-learn", float((votes.argmax(1) == y).mean())
    centred = embeddings.double().numpy() - embeddings.double().numpy().mean(0)
    share = np.linalg.svd(centred, compute_uv=False)
    share = share[share > 0] / share.sum()
    yield "embedding", "effective_rank", "NumPy", float(np.exp(-(share * np.log(share)).sum()))


def of_scores(inside: Tensor, outside: Tensor) -> Iterator[Row]:
    """Yield what others say of out-of-distribution detection; their scores are higher outside."""
    for name, score in (("msp", MaxSoftmax.score), ("energy", EnergyBased.score)):
        scores = torch.cat([score(inside.double()), score(outside.double())])
        out = torch.cat([torch.zeros(len(inside)), torch.ones(len(outside))]).long()
        s, y = scores.numpy(), out.numpy()
        for metric, value in (
            ("auroc", roc_auc_score(y, s)),
            ("aupr_in", average_precision_score(1 - y, -s)),
            ("aupr_out", average_precision_score(y, s)),
        ):
            yield "ood", f"{OUTSIDE}/{name}/{metric}", "pytorch-ood, scikit-learn", float(value)
        # pytorch-ood's FPR95 takes the outside for the positives: negated, and with the sets swapped, it is ours.
        value = fpr_at_tpr(-scores, 2 * out - 1, 0.95)  # to it, labels below 0 are outside
        yield "ood", f"{OUTSIDE}/{name}/fpr95", "pytorch-ood", float(value)


def recorded(run: RunFolder) -> dict[tuple[str, str], Any]:
    """Return every metric of the network itself that the run has, by suite and name."""
    tests = [e for e in run.metrics.read() if e["event"] == "test" and "network" not in e]
    return {(test["suite"], name): value for test in tests for name, value in test.items()}


def main(folder: Path, out: Path) -> None:
    """Measure, print and write one record a metric and library."""
    run = RunFolder(folder)
    config = run.read_config()
    network, splits = load_network(folder)
    device = next(cast("nn.Module", network).parameters()).device
    source = source_of(config, splits, device)
    test, of = source.batches(source.test()), OODSettings()
    others = open_set(OUTSIDE, source, limit=of.ood_examples, seed=of.seed)
    logits, labels = predict(network, test)
    embeddings, _ = embed(network, test)
    rows = [
        *of_predictions(logits, labels),
        *of_embeddings(embeddings.cpu(), labels),
        *of_scores(logits, predict(network, others)[0]),
    ]
    ours = recorded(run)
    about = {
        "data": config.data.rpartition("/")[2],
        "method": config.title,
        "examples": len(labels),
        "seed": config.seed,
        "device": device.type,
        "versions": {
            name: version(name) for name in ("torch", "scikit-learn", "torchmetrics", "netcal", "pytorch-ood")
        },
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    lines = []
    for suite, metric, library, value in rows:
        mine = ours[suite, metric]
        lines.append({"suite": suite, "metric": metric, "ours": mine, "library": library, "theirs": value, **about})
        print(f"{suite:12} {metric:32} {mine:.9f}  {value:.9f}  {abs(mine - value):.1e}  {library}")
    out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
