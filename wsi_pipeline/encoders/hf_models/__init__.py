"""Any Hugging Face vision model as an encoder: its own processor, one row an image."""
