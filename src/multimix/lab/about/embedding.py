"""What is said of the geometry of embeddings."""

from multimix.lab.about.kinds import Description, Metric, Scatter, Table, percent

ABOUT = Description(
    title="Embedding",
    measure="multimix.lab.evaluate.embedding:Embedding",
    meaning="How the embeddings of test images, scaled to length 1, lie: near others of their class, far from other "
    "classes, and spread over many directions.",
    metrics=(
        Metric("alignment", "Alignment", "Squared distance of two embeddings of one class, mean over pairs.", "lower"),
        Metric(
            "uniformity",
            "Uniformity",
            "Logarithm of the mean of exp(-2 distance²) over pairs: the lower, the more evenly they cover the sphere.",
            "lower",
        ),
        Metric("intra_distance", "Distance within classes", "Distance to the mean of the class, mean over classes."),
        Metric("inter_distance", "Distance between classes", "Distance of two class means, mean over pairs."),
        Metric("min_inter_distance", "Least distance between classes", "Distance of the two nearest class means."),
        Metric("separation", "Separation", "Distance between classes divided by that within classes.", "higher"),
        Metric(
            "effective_rank",
            "Effective rank",
            "Exponential of the entropy of the embeddings' singular values: in how many directions they spread.",
        ),
        percent("knn_accuracy", "kNN accuracy", "Share whose nearest embeddings vote for the true class.", "higher"),
    ),
    tables=(Table(r"(?!.*_distance$).*"), Table(r".*", more=True)),
    figures=(Scatter("embeddings"),),
    words={"tsne": "t-SNE", "umap": "UMAP", "pca": "PCA"},
)
