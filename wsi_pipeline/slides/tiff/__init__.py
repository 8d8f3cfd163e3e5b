"""TIFF files: their directories, which image is the slide, completeness checks, decoding of segments."""
