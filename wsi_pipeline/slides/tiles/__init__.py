"""Compressed tiles of TIFF files: found, read, decoded."""
