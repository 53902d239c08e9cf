"""The training engine: one configuration in, one run folder out."""

from multimix.train.codec import from_json, to_json
from multimix.train.config import SGD, AdamW, Cosine, Step, TrainConfig
from multimix.train.engine import Engine
from multimix.train.run import evaluate_run, load_network, resume, train
from multimix.train.session import TrainingError

__all__ = [
    "SGD",
    "AdamW",
    "Cosine",
    "Engine",
    "Step",
    "TrainConfig",
    "TrainingError",
    "evaluate_run",
    "from_json",
    "load_network",
    "resume",
    "to_json",
    "train",
]
