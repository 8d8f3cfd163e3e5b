"""The files of results: trainings, tunings, predictions, fractions; how they are read and merged."""
