"""What `check` looks at: one slide, and all slides of a cohort together."""
