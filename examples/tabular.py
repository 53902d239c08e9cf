"""Tables: a scikit-learn estimator, compared with scikit-learn's own tools; classes and values."""

from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import multimix as mm
from multimix.integrations import MultiMixClassifier, MultiMixRegressor

EPOCHS = 25


def main() -> None:
    """Print cross-validated scores on tables that come with scikit-learn."""
    settings = {"hidden": (64, 64), "epochs": EPOCHS, "batch_size": 32, "random_state": 0}
    tables = {"breast cancer": load_breast_cancer, "wine": load_wine}
    for name, load in tables.items():
        x, y = load(return_X_y=True)
        for label, estimator in {
            "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
            "network, plain": MultiMixClassifier(method=mm.ERM(), **settings),
            "network, MultiMix": MultiMixClassifier(method=mm.MultiMix(), **settings),
        }.items():
            scores = cross_val_score(estimator, x, y, cv=3)
            print(f"{name:14} {label:20} accuracy {scores.mean():6.1%} ± {scores.std(ddof=1):5.1%} over 3 folds")
    x, y = load_diabetes(return_X_y=True)
    for label, estimator in {
        "ridge regression": make_pipeline(StandardScaler(), Ridge()),
        "network, plain": MultiMixRegressor(method=mm.ERM(), **settings),
        "network, MultiMix": MultiMixRegressor(method=mm.MultiMix(), **settings),
    }.items():
        scores = cross_val_score(estimator, x, y, cv=3)
        print(f"{'diabetes':14} {label:20} R²       {scores.mean():6.3f} ± {scores.std(ddof=1):5.3f} over 3 folds")


if __name__ == "__main__":
    main()
