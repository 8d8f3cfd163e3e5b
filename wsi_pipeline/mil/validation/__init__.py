"""Validation: nested cross-validation, metrics, external tests, paired comparisons."""
