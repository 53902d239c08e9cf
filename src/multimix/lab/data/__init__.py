"""Image sets by name or path, batched augmentation with per-image parameters, and batches that resume anywhere.

``load`` returns the ``Splits`` of a data set. Small sets are ``Images``, uint8 tensors that live on the device of the
training and are augmented there; large ones are ``Files``, decoded by worker processes. ``Batches`` serves both with
the same promise: batch i of an epoch depends on the seed, the epoch and i alone.
"""

from multimix.lab.data._arrays import own_data
from multimix.lab.data._batches import Augment, Batches, Crops, normalise
from multimix.lab.data._identity import difference, identity
from multimix.lab.data._load import DATASETS, load
from multimix.lab.data._pixels import UnreadableError
from multimix.lab.data._sets import (
    Files,
    Images,
    ImageSet,
    Splits,
    class_counts,
    classes_told,
    first_of,
    ignoring,
    labelled,
    seed_of,
)

__all__ = [
    "DATASETS",
    "Augment",
    "Batches",
    "Crops",
    "Files",
    "ImageSet",
    "Images",
    "Splits",
    "UnreadableError",
    "class_counts",
    "classes_told",
    "difference",
    "first_of",
    "identity",
    "ignoring",
    "labelled",
    "load",
    "normalise",
    "own_data",
    "seed_of",
]
