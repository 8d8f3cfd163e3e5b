"""Nearest patches and slides by stored features."""
