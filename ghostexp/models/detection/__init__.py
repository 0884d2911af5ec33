"""Faster R-CNN and RetinaNet on the feature pyramid of any network."""
