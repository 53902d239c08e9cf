"""Self-distillation: a moving-average teacher and the two views."""

from multimix.distill.distilled import SelfDistilled
from multimix.distill.ema import EMATeacher

__all__ = ["EMATeacher", "SelfDistilled"]
