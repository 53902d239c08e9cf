"""The metrics that are known: titles, units, which way is better, and what each of them means."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """How a metric is shown, and what it means."""

    name: str
    """The name in the records."""
    title: str
    """The name for people."""
    meaning: str
    """One sentence."""
    unit: str = ""
    """Unit as shown, after ``factor``."""
    better: Literal["higher", "lower"] | None = None
    """Which values are better; None where nobody can say."""
    factor: float = 1.0
    """From the record's unit to the shown one."""
    digits: int | None = None
    """Decimals as shown; None chooses them by the size of the values."""

    @property
    def quantity(self) -> str:
        """Title and unit, for an axis."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def heading(self) -> str:
        """Title, unit and an arrow in the better direction, for a column."""
        arrow = {"higher": " ↑", "lower": " ↓", None: ""}[self.better]
        return self.quantity + arrow


QUALITY = (
    Metric(
        name="accuracy",
        title="Accuracy",
        meaning="Share of examples whose most probable class is the true one.",
        unit="%",
        better="higher",
        factor=100.0,
        digits=1,
    ),
    Metric(
        name="nll",
        title="NLL",
        meaning="Negative log-likelihood (cross-entropy, in nats) of the true class, mean over examples.",
        better="lower",
        digits=3,
    ),
    Metric(
        name="ece",
        title="ECE",
        meaning="Expected calibration error: gap between confidence and accuracy, mean over bins of confidence "
        "weighted by their examples.",
        unit="%",
        better="lower",
        factor=100.0,
        digits=1,
    ),
)
COST = (
    Metric(
        name="step_seconds",
        title="Step",
        meaning="Training time divided by the number of mini-batches.",
        unit="ms",
        better="lower",
        factor=1000.0,
    ),
    Metric(
        name="seconds",
        title="Training",
        meaning="Wall-clock time of training, without validation and test.",
        unit="s",
        better="lower",
    ),
    Metric(
        # No direction: of runs in one process, the later ones show the earlier ones' peak.
        name="peak_mib",
        title="Peak memory",
        meaning="Most memory held: the device's on a GPU, else the process's; earlier runs of the same process count.",
        unit="MiB",
        digits=0,
    ),
)
TRAINING = (
    Metric(
        name="train_loss",
        title="Training loss",
        meaning="What the method minimises, mean over an epoch.",
        better="lower",
        digits=3,
    ),
)


def _share(name: str, title: str, meaning: str, better: Literal["higher", "lower"] | None, digits: int = 1) -> Metric:
    """Return a metric that is recorded as a fraction and shown in percent."""
    return Metric(name, title, meaning, "%", better, 100.0, digits)


CALIBRATION = (
    _share(
        "mce", "MCE", "Maximum calibration error: the largest gap between confidence and accuracy of any bin.", "lower"
    ),
    _share(
        "classwise_ece",
        "Classwise ECE",
        "Calibration error of every class's probability, not of the most probable one's alone; mean over classes.",
        "lower",
        2,
    ),
    _share(
        "rms_calibration_error",
        "RMS calibration error",
        "Root of the mean squared gap between confidence and accuracy, bins weighted by their examples.",
        "lower",
    ),
    _share(
        "overconfidence_error",
        "Overconfidence error",
        "Like the ECE, but only bins whose confidence exceeds their accuracy count, weighted by their confidence.",
        "lower",
        2,
    ),
    Metric(
        "brier",
        "Brier score",
        "Squared distance from the predicted probabilities to the true class's one-hot vector, mean over examples.",
        better="lower",
        digits=3,
    ),
    Metric(
        "temperature",
        "Temperature",
        "What logits are divided by to fit the validation split best: above 1 the network was too sure, below 1 not "
        "sure enough.",
    ),
)
ROBUSTNESS = (
    Metric("loss", "Loss", "Cross-entropy (in nats) of the true class, mean over examples.", better="lower", digits=3),
)
DETECTION = (
    _share(
        "auroc",
        "AUROC",
        "Area under the ROC curve: chance that an example of the test set gets a higher score than one of the other "
        "set, ties counting half; guessing gives 50 %.",
        "higher",
    ),
    _share("aupr_in", "AUPR-in", "Area under precision over recall with the test set as the positives.", "higher"),
    _share("aupr_out", "AUPR-out", "Area under precision over recall with the other set as the positives.", "higher"),
    _share(
        "fpr95",
        "FPR95",
        "Share of the other set that passes as known at the threshold that lets 95 % of the test set pass.",
        "lower",
    ),
    _share(
        "detection_accuracy",
        "Detection accuracy",
        "Share told apart rightly at the best threshold, both sets weighing the same.",
        "higher",
    ),
)
EMBEDDING = (
    Metric(
        "alignment",
        "Alignment",
        "Squared distance of two embeddings of one class, scaled to length 1, mean over pairs.",
        better="lower",
    ),
    Metric(
        "uniformity",
        "Uniformity",
        "Logarithm of the mean of exp(-2 distance²) over pairs of embeddings scaled to length 1: the lower, the more "
        "evenly they cover the sphere.",
        better="lower",
    ),
    Metric(
        "intra_distance",
        "Distance within classes",
        "Distance of embeddings, scaled to length 1, to the mean of their class, mean over classes.",
    ),
    Metric(
        "inter_distance",
        "Distance between classes",
        "Distance between the mean embeddings of two classes, mean over pairs of classes.",
    ),
    Metric("min_inter_distance", "Least distance between classes", "Distance between the two nearest class means."),
    Metric("separation", "Separation", "Distance between classes divided by that within classes.", better="higher"),
    Metric(
        "effective_rank",
        "Effective rank",
        "Exponential of the entropy of the embeddings' singular values: in how many directions they spread.",
    ),
    _share(
        "knn_accuracy", "kNN accuracy", "Share of examples whose nearest embeddings vote for the true class.", "higher"
    ),
)
INTRUSION = (
    _share(
        "intrusion_rate",
        "Intrusion",
        "Share of mixed embeddings whose nearest clean one is of a class that was not mixed in.",
        "lower",
    ),
    Metric(
        "distance",
        "Distance",
        "Distance of mixed embeddings to the nearest clean one, in units of that of a clean one to the nearest other.",
    ),
    Metric(
        "nearest_class_weight",
        "Weight of the nearest class",
        "How much of the nearest clean embedding's class was mixed in, mean weight.",
    ),
)
LOCALISATION = (
    _share(
        "localisation_accuracy",
        "Localisation accuracy",
        "Share of images whose box round the attention above a threshold overlaps a true one by half or more: best, at "
        "the threshold that is best on these images, which flatters; fixed, at a given one; whole, of the whole image.",
        "higher",
    ),
    _share(
        "pointing_accuracy", "Pointing accuracy", "Share of images whose largest attention lies in a box.", "higher"
    ),
    _share("measured", "Measured", "Share of the test images that have a box.", None),
)
KNOWN = {
    metric.name: metric
    for metric in (
        *QUALITY,
        *COST,
        *TRAINING,
        *CALIBRATION,
        *ROBUSTNESS,
        *DETECTION,
        *EMBEDDING,
        *INTRUSION,
        *LOCALISATION,
    )
}
WORDS = {
    "adversarial": "robustness",
    "area": "average",
    "autoattack": "AutoAttack",
    "erm": "ERM",
    "fgsm": "FGSM",
    "jpeg_compression": "JPEG compression",
    "knn": "kNN",
    "linf": "l-inf",
    "mahalanobis": "Mahalanobis",
    "msp": "MSP",
    "odin": "ODIN",
    "ood": "OOD",
    "pgd": "PGD",
    "svhn": "SVHN",
}
"""How words of metric names are written for people, where they are not simply taken over."""
