"""Speed as ratios within one run: interleaved, after warm-up, medians with spread, one record a case."""

from multimix.bench.compare import Case, Comparison, Result, measure
from multimix.bench.ops import op_comparisons
from multimix.bench.step import step_comparisons

SUITES = {"ops": op_comparisons, "step": step_comparisons}
"""Every suite: a function from the device to its comparisons."""

__all__ = ["SUITES", "Case", "Comparison", "Result", "measure", "op_comparisons", "step_comparisons"]
