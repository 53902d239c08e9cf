"""What is said of occlusion."""

from multimix.lab.about.kinds import Curve, Description, Table

_HIDDEN = r"(?P<column>[0-9]+(\.[0-9]+)?)/accuracy"

ABOUT = Description(
    title="Occlusion",
    measure="multimix.lab.evaluate.occlusion:Occlusion",
    meaning="Accuracy on test images of which a part is hidden.",
    tables=(
        Table(r"(?![0-9.]+/accuracy$).*"),
        Table(_HIDDEN, "{metric} by the share of the image that is hidden", column="{} %", more=True),
    ),
    figures=(
        Curve(
            "fraction",
            axis="Hidden share of the image (%)",
            title="Accuracy over the share of the image that is hidden",
            factor=100.0,
        ),
    ),
    words={"area": "average"},
)
