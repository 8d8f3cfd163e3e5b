"""Figures of the report: SVG charts and PNG curves."""
