"""Metrics and intervals: pure functions on arrays, shared by mil, stages and report."""
