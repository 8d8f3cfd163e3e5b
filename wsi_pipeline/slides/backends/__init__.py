"""Readers of slide files, each behind the Slide contract."""
