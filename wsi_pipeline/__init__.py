"""wsi-pipeline: from a CSV of whole-slide images to a trained slide-level model."""

__version__ = "0.1.0"
