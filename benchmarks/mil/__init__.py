"""Slide-level models beside published numbers, on the sets that papers on multiple-instance learning use."""
