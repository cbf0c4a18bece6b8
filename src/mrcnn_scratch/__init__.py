"""Mask R-CNN written out by hand in NumPy: every layer, every gradient."""

__version__ = "0.1.0"
