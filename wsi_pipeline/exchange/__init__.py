"""File formats of other tools: readers for import, writers for export."""
