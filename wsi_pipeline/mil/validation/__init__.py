"""What a model is worth: nested cross-validation, its metrics, paired comparisons."""
