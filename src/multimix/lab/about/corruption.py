"""What is said of common corruptions."""

from multimix.lab.about.kinds import Description, HeatMap, Table

ABOUT = Description(
    title="Corruptions",
    measure="multimix.lab.evaluate.corruption:Corruption",
    meaning="Accuracy on test images that are disturbed, in kinds and severities of common corruptions.",
    tables=(
        Table(r"(clean|mean)/accuracy"),
        Table(r"(?P<column>[^/]*)/accuracy", "{metric} by corruption, mean over severities", more=True),
        Table(
            r"(?P<column>[^/]*)/(?P<line>[0-9]+)/accuracy",
            "{metric} by corruption and severity",
            key="Severity",
            more=True,
        ),
    ),
    figures=(
        HeatMap(lines="corruptions", line="corruption", columns="severities", column="severity", reference="clean"),
    ),
    words={"jpeg_compression": "JPEG compression"},
)
