"""Further comparisons: rows over several sets with paired differences, labels to choose, tasks told apart by text."""
