"""Trained models: files, committees, predictions, novelty."""
