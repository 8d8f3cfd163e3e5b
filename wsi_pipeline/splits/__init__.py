"""Folds over patients: training, early-stopping and test parts, without leaks between them."""
