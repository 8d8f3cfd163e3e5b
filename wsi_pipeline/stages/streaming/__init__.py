"""Patches of all slides in one stream through a network."""
