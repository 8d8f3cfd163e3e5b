"""The Python API behind `import wsi_pipeline as wp`: calls the stages, with the defaults of the command line."""
