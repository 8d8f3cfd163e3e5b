"""Inputs of stages: bags of features, the adapter to use, imported files."""
