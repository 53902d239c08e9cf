"""After training: a network with its classes and its preprocessing, for predictions and for other programs."""

from multimix.lab.inference._classifier import Classifier, Prediction, load
from multimix.lab.inference._export import FORMATS, Exported, export
from multimix.lab.inference._transform import Transform

__all__ = ["FORMATS", "Classifier", "Exported", "Prediction", "Transform", "export", "load"]
