"""Whether a network's attention finds the object that it was never told the place of."""

from multimix.lab.evaluate.localisation._boxes import read_boxes
from multimix.lab.evaluate.localisation._maps import box_above, overlap, score_maps
from multimix.lab.evaluate.localisation.suite import Localisation, LocalisationSettings

__all__ = ["Localisation", "LocalisationSettings", "box_above", "overlap", "read_boxes", "score_maps"]
