"""What is said of localisation."""

from multimix.lab.about.kinds import Curve, Description, Table, percent

ABOUT = Description(
    title="Localisation",
    measure="multimix.lab.evaluate.localisation:Localisation",
    meaning="Does the network's attention map find the object? A box is drawn round what exceeds a threshold and "
    "compared with the true one; the network was never trained on boxes.",
    metrics=(
        percent(
            "localisation_accuracy",
            "Localisation accuracy",
            "Share of images whose box round the attention above a threshold overlaps a true one by half or more: "
            "best, at the threshold that is best on these images, which flatters; fixed, at a given one; whole, of the "
            "whole image.",
            "higher",
        ),
        percent("pointing_accuracy", "Pointing accuracy", "Share whose largest attention lies in a box.", "higher"),
        percent("measured", "Measured", "Share of the test images that have a box."),
    ),
    tables=(
        Table(r"(?!measured$)[^/]*(/[^/]*)?"),
        Table(r"((?P<line>.*)/)?(?P<metric>[^/]*)", key="Box", more=True),
    ),
    figures=(
        Curve(
            "threshold",
            axis="Threshold",
            title="Localisation accuracy over the threshold at which the attention map is cut",
        ),
    ),
)
