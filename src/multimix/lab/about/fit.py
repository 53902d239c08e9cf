"""What is said of the fit of training images."""

from collections.abc import Mapping
from typing import Any

from multimix.lab.about.kinds import Description, Metric, percent

FITTED = 0.99
"""Share of its training images that a network is right about if it has fitted them."""


def regime(record: Mapping[str, Any]) -> str:
    """Return whether training has fitted its images, and what that means for mixing."""
    fitted = record["train_accuracy"]
    found = (
        f"right about {100 * fitted:.1f} % of its training images and {100 * (fitted - record['gap']):.1f} % of test"
    )
    if fitted < FITTED:
        return f"{found}: under-fitted. If this is plain training, train longer before you mix."
    return f"{found}: over-fitted. If this is plain training, mixing can pay."


ABOUT = Description(
    title="Fit",
    measure="multimix.lab.evaluate.fit:Fit",
    meaning="Accuracy on the training images as they are: plain training over-fits if it is right about 99 % of them.",
    metrics=(
        percent("train_accuracy", "Training accuracy", "Accuracy on training images, which are not augmented here."),
        Metric("train_nll", "Training NLL", "Negative log-likelihood (in nats), mean over training images.", digits=3),
        percent("gap", "Gap", "Training accuracy less test accuracy.", "lower"),
    ),
    says=regime,
)
