"""Clinical tables: read, join to the slides by patient id, and take one outcome per target."""
