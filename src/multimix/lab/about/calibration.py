"""What is said of calibration."""

from multimix.lab.about.kinds import Description, Metric, Reliability, Table, percent

_RARE = "classwise_ece|rms_calibration_error|overconfidence_error"

ABOUT = Description(
    title="Calibration",
    measure="multimix.lab.evaluate.calibration:Calibration",
    meaning="Does the network know how sure it may be? Confidence is the probability of the predicted class; a "
    "calibrated network is right as often as it is sure. Scaled logits are divided by one temperature, fitted on the "
    "validation split.",
    metrics=(
        percent("mce", "MCE", "Maximum calibration error: the largest gap between confidence and accuracy.", "lower"),
        percent(
            "classwise_ece",
            "Classwise ECE",
            "Calibration error of every class's probability, not of the most probable one's alone; mean over classes.",
            "lower",
            digits=2,
        ),
        percent(
            "rms_calibration_error",
            "RMS calibration error",
            "Root of the mean squared gap between confidence and accuracy, bins weighted by their examples.",
            "lower",
        ),
        percent(
            "overconfidence_error",
            "Overconfidence error",
            "Like the ECE, but only bins whose confidence exceeds their accuracy count, weighted by their confidence.",
            "lower",
            digits=2,
        ),
        Metric("brier", "Brier score", "Squared distance of the probabilities to the one-hot true class.", "lower", 3),
        Metric(
            "temperature",
            "Temperature",
            "What logits are divided by to fit the validation split best: above 1 the network was too sure, below 1 "
            "not sure enough.",
        ),
    ),
    tables=(
        Table(rf"((?P<line>.*)/)?(?P<metric>(?!({_RARE})$)[^/]+)", key="Logits", bare="as trained"),
        Table(r"((?P<line>.*)/)?(?P<metric>[^/]+)", key="Logits", bare="as trained", more=True),
    ),
    figures=(Reliability("after temperature scaling", name="*_scaled"), Reliability("as trained")),
)
