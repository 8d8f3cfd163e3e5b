"""TIFF files: their directories, which image is the slide, whether all is there, one segment decoded."""
