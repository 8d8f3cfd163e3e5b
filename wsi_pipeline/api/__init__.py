"""The Python face: what `import wsi_pipeline as wp` offers, over the stages, with the defaults of the command line."""
