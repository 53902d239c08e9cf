"""Anatomy of the gradient: what mixing tuples does to it, by layer and over training, beside what theory says."""

from anatomy.course import Record, anatomise
from anatomy.law import (
    centred,
    cosine,
    expected_cosine,
    law_gradient,
    norm_ratio,
    plain_gradient,
    quadratic_gradient,
    relative_error,
    relative_variance,
    shrinkage,
)
from anatomy.measure import AnatomySettings
from anatomy.tables import TABLES, Table, read, render, tables

__all__ = [
    "TABLES",
    "AnatomySettings",
    "Record",
    "Table",
    "anatomise",
    "centred",
    "cosine",
    "expected_cosine",
    "law_gradient",
    "norm_ratio",
    "plain_gradient",
    "quadratic_gradient",
    "read",
    "relative_error",
    "relative_variance",
    "render",
    "shrinkage",
    "tables",
]
