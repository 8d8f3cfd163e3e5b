"""The checks of `check`: on one slide, and on all slides of a cohort together."""
