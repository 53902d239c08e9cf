"""The fifteen common corruptions of Hendrycks and Dietterich (ICLR 2019), five severities each, and what they cost."""

from multimix.lab.evaluate.corruption.suite import CORRUPTIONS, SEVERITIES, Corruption, CorruptionSettings, corrupt

__all__ = ["CORRUPTIONS", "SEVERITIES", "Corruption", "CorruptionSettings", "corrupt"]
