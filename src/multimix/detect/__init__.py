"""Transfer of a trained backbone to object detection."""
