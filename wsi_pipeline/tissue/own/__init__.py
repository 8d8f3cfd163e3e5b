"""User-supplied tissue masks: outlines and pictures in place of a detector."""
