"""Readers of other tools' files: what a file holds and which tool wrote it. One per layout, chosen by content."""
