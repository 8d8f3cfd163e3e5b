"""Finding slide files without a table: which files are slides, their ids, and unsupported formats."""
