"""One slide through one stage: run, skip, isolate, record."""
