"""How far interpolated embeddings lie from clean ones, and whether those are of a class that was not mixed in."""

from multimix.lab.evaluate.intrusion._mixed import Interpolated, interpolate, interpolates
from multimix.lab.evaluate.intrusion.suite import Intrusion, IntrusionSettings

__all__ = ["Interpolated", "Intrusion", "IntrusionSettings", "interpolate", "interpolates"]
