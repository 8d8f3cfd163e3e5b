"""Folds over patients: who trains, who stops the training, who tests; and what must not be on two sides."""
