"""Quality of patches without learned weights: focus, folds, pen, edges of glass and bubbles, stain, JPEG blocks."""
