"""Tissue detectors and the image operations they share."""
