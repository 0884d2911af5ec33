"""Faster R-CNN and RetinaNet on a feature pyramid of any network."""
