"""Any Hugging Face vision model as an encoder: its own preprocessing, one row of features per image."""
