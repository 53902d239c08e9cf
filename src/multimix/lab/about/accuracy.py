"""What is said of clean accuracy."""

from multimix.lab.about.kinds import Confusion, Description, Gallery, Metric, PerClass, percent

ABOUT = Description(
    title="Accuracy",
    measure="multimix.lab.evaluate.calibration:Accuracy",
    meaning="Accuracy, NLL and ECE on the test images as they are; where an image may have several labels, mean "
    "average precision, macro F1, exact match and binary cross-entropy.",
    metrics=(
        percent("accuracy", "Accuracy", "Share of examples whose most probable class is the true one.", "higher"),
        Metric("nll", "NLL", "Negative log-likelihood (in nats) of the true class, mean over examples.", "lower", 3),
        percent(
            "ece",
            "ECE",
            "Expected calibration error: gap between confidence and accuracy, mean over bins weighted by examples.",
            "lower",
        ),
        percent(
            "mean_average_precision",
            "mAP",
            "Mean average precision: of each label that any image has, precision over recall; mean over labels.",
            "higher",
        ),
        percent(
            "macro_f1",
            "Macro F1",
            "Harmonic mean of precision and recall at probability 1/2, mean over labels that any image has.",
            "higher",
        ),
        percent("exact_match", "Exact match", "Share of images of which every label is right.", "higher"),
        Metric("bce", "BCE", "Binary cross-entropy (in nats), mean over images and labels.", "lower", 3),
    ),
    figures=(
        PerClass("accuracy", "Accuracy"),
        PerClass("average_precision", "Average precision", "Of several labels an image there is no confusion matrix."),
        Confusion(),
        Gallery("the most confident mistakes"),
    ),
    words={"erm": "ERM"},
)
