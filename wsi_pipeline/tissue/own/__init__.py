"""Tissue masks of the user's own: outlines and pictures in place of a detector."""
