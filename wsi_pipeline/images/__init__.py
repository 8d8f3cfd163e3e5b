"""Pure functions on pixel arrays, independent of slides."""
