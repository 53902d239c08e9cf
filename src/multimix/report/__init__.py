"""From run folders to records, tables, figures and one self-contained HTML page; needs no torch."""

from multimix.report._evaluations import Evaluation
from multimix.report._figures import learning_curves, seed_dots
from multimix.report._metrics import Metric, metric
from multimix.report._page import page
from multimix.report._paired import Difference, paired, paired_table
from multimix.report._records import Record, read_records, records, with_labels, write_records
from multimix.report._runs import Picture, Run, read_run
from multimix.report._summary import Cell, Comparison, Row, Summary, suites, summarise
from multimix.report._svg import Figure
from multimix.report._tables import Format, table

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
