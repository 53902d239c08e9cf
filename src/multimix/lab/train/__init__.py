"""Training classifiers: one configuration in, one run folder out."""

from multimix.lab.runs.codec import from_json, to_json
from multimix.lab.runs.loop import TrainingError
from multimix.lab.runs.optim import SGD, AdamW, Cosine, Step
from multimix.lab.train.config import TrainConfig
from multimix.lab.train.engine import Engine, resume, train
from multimix.lab.train.evaluation import evaluate_run
from multimix.lab.train.network import load_network, load_trained
from multimix.lab.train.objective import BinaryCrossEntropy, CrossEntropy

__all__ = [
    "SGD",
    "AdamW",
    "BinaryCrossEntropy",
    "Cosine",
    "CrossEntropy",
    "Engine",
    "Step",
    "TrainConfig",
    "TrainingError",
    "evaluate_run",
    "from_json",
    "load_network",
    "load_trained",
    "resume",
    "to_json",
    "train",
]
