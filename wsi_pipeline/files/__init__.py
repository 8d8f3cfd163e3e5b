"""Slide files where there is not a table: found, named, and refused by name where they cannot be read."""
