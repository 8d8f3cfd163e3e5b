"""Where labelled patches come from: class folders, CSVs, patch stores, annotated slides."""
