"""Sources of labelled patches: class folders, CSVs, patch stores, annotated slides."""
