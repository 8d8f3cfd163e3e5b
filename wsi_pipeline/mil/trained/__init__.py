"""Trained models at work: files, committees, predictions, novelty."""
