"""What is said of manifold intrusion."""

from multimix.lab.about.kinds import Description, Histogram, Metric, Table, percent

ABOUT = Description(
    title="Manifold intrusion",
    measure="multimix.lab.evaluate.intrusion:Intrusion",
    meaning="Where interpolated embeddings lie: an intrusion is one whose nearest clean embedding is of a class that "
    "was not mixed into it. Each network is probed with its method's own interpolation and with others.",
    metrics=(
        percent(
            "intrusion_rate",
            "Intrusion",
            "Share of mixed embeddings whose nearest clean one is of a class that was not mixed in.",
            "lower",
        ),
        Metric(
            "distance",
            "Distance",
            "Distance of mixed embeddings to the nearest clean one, in units of that of a clean one to the nearest "
            "other.",
        ),
        Metric(
            "nearest_class_weight",
            "Weight of the nearest class",
            "How much of the nearest clean embedding's class was mixed in, mean weight.",
        ),
    ),
    tables=(Table(r"((?P<line>.*)/)?(?P<metric>[^/]*)", key="Interpolation"),),
    figures=(
        Histogram(
            axis="Distance to the nearest clean embedding",
            title="distance of interpolated embeddings to the nearest clean one, one line a way of interpolating; own "
            "is the method's.",
        ),
    ),
)
