"""Average precision of detected boxes, by COCO's rules and by VOC's."""

from multimix.lab.evaluate.detection._coco import coco_metrics, require_coco
from multimix.lab.evaluate.detection._detections import Detections
from multimix.lab.evaluate.detection._voc import voc_average_precision, voc_metrics

__all__ = ["Detections", "coco_metrics", "require_coco", "voc_average_precision", "voc_metrics"]
