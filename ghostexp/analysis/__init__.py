"""Measurements of networks: tensors in, numbers out."""
