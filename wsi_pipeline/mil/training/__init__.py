"""One training: batches, losses, steps, early stopping."""
