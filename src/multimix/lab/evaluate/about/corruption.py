"""What is said of common corruptions."""

from multimix.lab.evaluate.about.kinds import Description, HeatMap, Table

CORRUPTION = Description(
    name="corruption",
    suite="Corruption",
    title="Corruptions",
    meaning="Accuracy on test images that are disturbed, in kinds and severities of common corruptions.",
    tables=(
        Table(pattern=r"(clean|mean)/accuracy"),
        Table(pattern=r"(?P<column>[^/]*)/accuracy", title="{metric} by corruption, mean over severities", more=True),
        Table(
            pattern=r"(?P<column>[^/]*)/(?P<line>[0-9]+)/accuracy",
            title="{metric} by corruption and severity",
            key="Severity",
            more=True,
        ),
    ),
    figures=(
        HeatMap(lines="corruptions", line="corruption", columns="severities", column="severity", reference="clean"),
    ),
    words={"jpeg_compression": "JPEG compression"},
)
