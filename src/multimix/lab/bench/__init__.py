"""Speed as ratios within one run: interleaved, after warm-up, medians with spread, one record a case."""

from multimix.lab.bench.compiled import compile_comparisons
from multimix.lab.bench.data import data_comparisons
from multimix.lab.bench.ops import op_comparisons, pair_comparisons
from multimix.lab.bench.start import start_comparisons
from multimix.lab.bench.step import step_comparisons, suite_comparisons
from multimix.lab.bench.table import HEADINGS, grouped
from multimix.lab.bench.timing import Case, Comparison, Rates, Result, counted, measure, rates

BENCHES = {
    "ops": op_comparisons,
    "pairs": pair_comparisons,
    "step": step_comparisons,
    "evaluation": suite_comparisons,
    "data": data_comparisons,
    "start": start_comparisons,
    "compile": compile_comparisons,
}
"""Every bench: a function from the device to makers of its comparisons, one at a time to spare memory."""

__all__ = ["BENCHES", "HEADINGS", "Case", "Comparison", "Rates", "Result", "counted", "grouped", "measure", "rates"]
