"""Self-distillation: a moving-average teacher and the two views."""

from multimix.distill.distilled import EMATeacher, SelfDistilled

__all__ = ["EMATeacher", "SelfDistilled"]
