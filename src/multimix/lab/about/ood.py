"""What is said of out-of-distribution detection."""

from multimix.lab.about.kinds import Description, Scores, Table, percent

_METRICS = (
    percent(
        "auroc",
        "AUROC",
        "Area under the ROC curve: chance that an example of the test set gets a higher score than one of the other "
        "set, ties counting half; guessing gives 50 %.",
        "higher",
    ),
    percent("fpr95", "FPR95", "Share of the other set that passes where 95 % of the test set do.", "lower"),
    percent("aupr_in", "AUPR-in", "Area under precision over recall with the test set as the positives.", "higher"),
    percent("aupr_out", "AUPR-out", "Area under precision over recall with the other set as the positives.", "higher"),
    percent(
        "detection_accuracy",
        "Detection accuracy",
        "Share told apart rightly at the best threshold, both sets weighing the same.",
        "higher",
    ),
)

ABOUT = Description(
    title="Out-of-distribution detection",
    measure="multimix.lab.evaluate.ood:OOD",
    meaning="Can the network's own scores tell test images from images of other sets, which it has never seen? Test "
    "images should score high. The mean is over the sets.",
    metrics=_METRICS,
    tables=tuple(
        Table(
            rf"(?P<column>.*)/(?P<line>[^/]*)/{metric.name}",
            title="{metric}",
            key="Score",
            first="mean",
            more=metric.name not in ("auroc", "fpr95"),
        )
        for metric in _METRICS
    ),
    figures=(Scores("auroc"),),
    words={"knn": "kNN", "mahalanobis": "Mahalanobis", "msp": "MSP", "odin": "ODIN", "ood": "OOD", "svhn": "SVHN"},
)
