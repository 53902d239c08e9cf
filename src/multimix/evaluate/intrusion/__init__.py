"""How far interpolated embeddings lie from clean ones, and whether those are of a class that was not mixed in."""

from multimix.evaluate.intrusion._mixed import Interpolated, interpolate, interpolates
from multimix.evaluate.intrusion.suite import Intrusion, IntrusionSettings

__all__ = ["Interpolated", "Intrusion", "IntrusionSettings", "interpolate", "interpolates"]
