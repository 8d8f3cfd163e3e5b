"""The files that results are kept in: trainings, tunings, predictions, fractions; read and put together."""
