"""What is said of the geometry of embeddings."""

from multimix.lab.evaluate.about.kinds import Description, Metric, Scatter, Table, percent

EMBEDDING = Description(
    name="embedding",
    suite="Embedding",
    title="Embedding",
    meaning="How the embeddings of test images lie: near others of their class, far from other classes, and spread "
    "over many directions.",
    metrics=(
        Metric(
            "alignment",
            "Alignment",
            "Squared distance of two embeddings of one class, scaled to length 1, mean over pairs.",
            better="lower",
        ),
        Metric(
            "uniformity",
            "Uniformity",
            "Logarithm of the mean of exp(-2 distance²) over pairs of embeddings scaled to length 1: the lower, the "
            "more evenly they cover the sphere.",
            better="lower",
        ),
        Metric(
            "intra_distance",
            "Distance within classes",
            "Distance of embeddings, scaled to length 1, to the mean of their class, mean over classes.",
        ),
        Metric(
            "inter_distance",
            "Distance between classes",
            "Distance between the mean embeddings of two classes, mean over pairs of classes.",
        ),
        Metric("min_inter_distance", "Least distance between classes", "Distance between the two nearest class means."),
        Metric("separation", "Separation", "Distance between classes divided by that within classes.", better="higher"),
        Metric(
            "effective_rank",
            "Effective rank",
            "Exponential of the entropy of the embeddings' singular values: in how many directions they spread.",
        ),
        percent(
            "knn_accuracy",
            "kNN accuracy",
            "Share of examples whose nearest embeddings vote for the true class.",
            "higher",
        ),
    ),
    tables=(Table(pattern=r"(?!.*_distance$).*"), Table(pattern=r".*", more=True)),
    figures=(Scatter(what="embeddings"),),
    words={"tsne": "t-SNE", "umap": "UMAP", "pca": "PCA"},
)
