"""What is said of clean accuracy."""

from multimix.lab.about.kinds import Description, Metric, percent

ABOUT = Description(
    title="Accuracy",
    measure="multimix.lab.evaluate.calibration:Accuracy",
    meaning="Accuracy, NLL and ECE on the test images as they are.",
    metrics=(
        percent("accuracy", "Accuracy", "Share of examples whose most probable class is the true one.", "higher"),
        Metric("nll", "NLL", "Negative log-likelihood (in nats) of the true class, mean over examples.", "lower", 3),
        percent(
            "ece",
            "ECE",
            "Expected calibration error: gap between confidence and accuracy, mean over bins weighted by examples.",
            "lower",
        ),
    ),
    words={"erm": "ERM"},
)
