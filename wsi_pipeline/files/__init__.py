"""Slide files where there is no table: found, named, and refused by name where they cannot be read."""
