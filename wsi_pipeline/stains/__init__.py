"""Stain of a slide: what it was stained with, how strongly, and how to give it the colours of another."""
