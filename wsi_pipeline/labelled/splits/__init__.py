"""Splits of labelled patches that keep groups whole."""
