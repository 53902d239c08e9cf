"""Images with boxes around objects, from COCO-format and VOC-format folders.

``load_boxes`` returns a ``BoxSet``; ``BoxBatches`` serves it, its order and flips a function of seed and epoch.
Boxes are (left, top, right, bottom) in pixels, continuous: the whole image is (0, 0, w, h).
"""

from multimix.lab.data.boxes._read import load_boxes
from multimix.lab.data.boxes._sets import BoxBatch, BoxBatches, BoxSet, Objects, Photo

__all__ = ["BoxBatch", "BoxBatches", "BoxSet", "Objects", "Photo", "load_boxes"]
