"""Clinical tables beside the slides: read, joined by patient id, one outcome for each target."""
