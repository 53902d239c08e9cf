"""Transfer of a run's backbone to object detection: Faster R-CNN with a feature pyramid, in, one run folder out."""

from multimix.lab.detect.config import DetectConfig, DetectFolder, detection_records, write_detection_records
from multimix.lab.detect.engine import detect, load_detector, resume_detect
from multimix.lab.detect.model import build_detector, detect_boxes

__all__ = [
    "DetectConfig",
    "DetectFolder",
    "build_detector",
    "detect",
    "detect_boxes",
    "detection_records",
    "load_detector",
    "resume_detect",
    "write_detection_records",
]
