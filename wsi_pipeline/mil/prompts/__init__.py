"""Prompts of a frozen vision transformer, tuned end to end through a slide-level model from slide labels alone."""
