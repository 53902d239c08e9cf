"""From run folders to records, tables, figures and one self-contained HTML page; needs no torch."""

from multimix.lab.about.kinds import Metric
from multimix.lab.report._figures import Figure, learning_curves, seed_dots
from multimix.lab.report._page import page
from multimix.lab.report._paired import Difference, paired, paired_table
from multimix.lab.report._records import (
    Cell,
    Comparison,
    Record,
    Row,
    Summary,
    read_records,
    records,
    suites,
    summarise,
    with_labels,
    write_records,
)
from multimix.lab.report._runs import Evaluation, Picture, Run, read_run
from multimix.lab.report._tables import Format, table
from multimix.lab.report._words import metric

__all__ = [
    "Cell",
    "Comparison",
    "Difference",
    "Evaluation",
    "Figure",
    "Format",
    "Metric",
    "Picture",
    "Record",
    "Row",
    "Run",
    "Summary",
    "learning_curves",
    "metric",
    "page",
    "paired",
    "paired_table",
    "read_records",
    "read_run",
    "records",
    "seed_dots",
    "suites",
    "summarise",
    "table",
    "with_labels",
    "write_records",
]
