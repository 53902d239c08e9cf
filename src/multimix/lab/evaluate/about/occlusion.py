"""What is said of occlusion."""

from multimix.lab.evaluate.about.kinds import Curve, Description, Table

OCCLUSION = Description(
    name="occlusion",
    suite="Occlusion",
    title="Occlusion",
    meaning="Accuracy on test images of which a part is hidden.",
    tables=(
        Table(pattern=r"(?![0-9.]+/accuracy$).*"),
        Table(
            pattern=r"(?P<column>[0-9]+(\.[0-9]+)?)/accuracy",
            title="{metric} by the share of the image that is hidden",
            column="{} %",
            more=True,
        ),
    ),
    figures=(
        Curve(
            x="fraction",
            axis="Hidden share of the image (%)",
            title="Accuracy over the share of the image that is hidden",
            factor=100.0,
        ),
    ),
    words={"area": "average"},
)
